"""Split: how one op of a program is cut over its labels into blocks, and which cuts there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from placement_gym.errors import InvalidProgram, unknown_name
from placement_gym.programs.op import Labels, TensorOp

# int64 [n_blocks, n_axes, 2]: the first index, and one past the last, of every block on every axis.
Bounds = NDArray[np.int64]

# More ways than this to cut one op are not looked at; those that cut the fewest labels come first.
MAX_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class Split:
    """How an op is cut: one block is one kernel call.

    A label of size s in b blocks is cut at the whole parts of k s / b, so blocks differ by one index at most.

    Attributes:
        label_blocks: (label, number of blocks) of the labels that are cut; blocks are numbered with the first
            label slowest.
    """

    label_blocks: tuple[tuple[str, int], ...] = ()

    @property
    def n_blocks(self) -> int:
        """Number of kernel calls."""
        return prod(blocks for _, blocks in self.label_blocks)

    def check(self, op: TensorOp) -> None:
        """Checks that the op can be cut so.

        Raises:
            InvalidProgram: A label that the op lacks or that must stay whole, or more blocks than indices.
        """
        seen: set[str] = set()
        for label, blocks in self.label_blocks:
            if label not in op.all_labels:
                raise InvalidProgram(f"split of op {op.name!r}: {unknown_name('label', label, op.all_labels)}")
            if label in seen:
                raise InvalidProgram(f"split of op {op.name!r}: label {label!r} is cut twice")
            seen.add(label)
            size = op.label_sizes[label]
            if blocks > 1 and label not in splittable(op):
                raise InvalidProgram(f"split of op {op.name!r}: label {label!r} stays whole; got {blocks} blocks")
            if not (isinstance(blocks, int) and 1 <= blocks <= size):
                raise InvalidProgram(
                    f"split of op {op.name!r}: label {label!r} of size {size} in {blocks} blocks; expected 1..{size}"
                )

    def bounds(self, op: TensorOp, labels: Labels) -> Bounds:
        """Ranges of every block over a tuple of the op's labels: int64 [n_blocks, n_labels, 2]."""
        bounds = np.zeros((self.n_blocks, len(labels), 2), dtype=np.int64)
        bounds[:, :, 1] = [op.label_sizes[label] for label in labels]
        for label, blocks, at in self._digits():
            if label in labels:
                size = op.label_sizes[label]
                axis = labels.index(label)
                bounds[:, axis, 0] = at * size // blocks
                bounds[:, axis, 1] = (at + 1) * size // blocks
        return bounds

    def input_bounds(self, op: TensorOp, k: int) -> Bounds:
        """What every block reads of input k: labels that the input lacks do not matter, `select` reads one index."""
        bounds = self.bounds(op, op.input_labels[k])
        if op.function == "select":
            axis, index = selected(op)
            bounds[:, axis] = index, index + 1
        return bounds

    def block_part(self, op: TensorOp) -> NDArray[np.int64]:
        """Which part of the output each block makes, int64 [n_blocks]; equal numbers are partial results of one part.

        Parts are numbered as blocks are, by the labels that the output has.
        """
        part = np.zeros(self.n_blocks, dtype=np.int64)
        for label, blocks, at in self._digits():
            if label in op.labels:
                part = part * blocks + at
        return part

    def _digits(self) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
        """(label, number of blocks, which of them each block has) of every label that is cut."""
        slower, number = 1, np.arange(self.n_blocks)
        for label, blocks in self.label_blocks:
            slower *= blocks
            yield label, blocks, number * slower // self.n_blocks % blocks


def splittable(op: TensorOp) -> Labels:
    """Labels that may be cut: not those called whole, nor those of which the function needs every index."""
    if op.is_source:
        return ()
    needed = set(op.whole)
    if op.kind == "window" or op.function.startswith("conv2d"):
        needed.update(*(labels[2:] for labels in (*op.input_labels, op.labels)))
    elif op.function == "embedding":
        needed.add(op.input_labels[0][0])
    elif op.function == "embedding_gradient":
        needed.add(op.labels[0])
    elif op.function == "select":
        needed.add(op.input_labels[0][selected(op)[0]])
    elif op.function == "select_gradient":
        needed.add(op.labels[selected(op)[0]])
    elif op.function.startswith("rotary"):
        needed.add(op.labels[-2])
    return tuple(label for label in op.all_labels if label not in needed)


def selected(op: TensorOp) -> tuple[int, int]:
    """Axis and index (>= 0) that `select` and `select_gradient` are about."""
    options = dict(op.options)
    axis, index = options["axis"], options["index"]
    assert isinstance(axis, int)
    assert isinstance(index, int)
    labels = op.input_labels[0] if op.function == "select" else op.labels
    return axis % len(labels), index % op.label_sizes[labels[axis]]


def candidates(op: TensorOp, n: int) -> list[Split]:
    """All ways to cut an op into n blocks by powers of two, or into as many below n as its labels allow.

    Orders of labels count as different ways, since block j of one op is compared with block j of another. Ways that
    cut fewer labels come first, then those that cut the output's labels; `MAX_CANDIDATES` are kept.

    Raises:
        InvalidProgram: n is not a power of two.
    """
    if n < 1 or n & (n - 1):
        raise InvalidProgram(f"n is {n}; expected a power of two, the number of blocks per op")
    most = {label: 1 << (op.label_sizes[label].bit_length() - 1) for label in splittable(op)}
    labels = [label for label in most if most[label] > 1]
    reachable = min(n, prod(most.values()))

    def cuts(left: int, free: list[str]) -> Iterator[tuple[tuple[str, int], ...]]:
        if left == 1:
            yield ()
            return
        for label in free:
            others = [other for other in free if other != label]
            blocks = 2
            while blocks <= min(left, most[label]):
                for rest in cuts(left // blocks, others):
                    yield ((label, blocks), *rest)
                blocks *= 2

    found = sorted(cuts(reachable, labels), key=len)
    return [Split(cut) for cut in found[:MAX_CANDIDATES]]
