"""What the part between two nested ideals pays for transfers, in time proportional to the larger ideal's cut."""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.exact.ideals import Tensors


class Cut(NamedTuple):
    """Tensors that an ideal cuts: some of their blocks are inside the ideal and some outside.

    Attributes:
        size: int64 [2], entries in use of `single` and of `several`.
        single: int64, blocks that are the only ones inside of some cut tensors.
        weight: float64, seconds of those tensors.
        place: int64 [n_blocks], where a block stands in `single`, or -1.
        several: int64, cut tensors with more blocks inside.
        inside_start: int64, `inside[inside_start[k]:inside_start[k + 1]]` are the blocks inside of `several[k]`.
        inside: int64.
    """

    size: np.ndarray
    single: np.ndarray
    weight: np.ndarray
    place: np.ndarray
    several: np.ndarray
    inside_start: np.ndarray
    inside: np.ndarray


@njit(cache=True)
def no_cut(n_blocks: int, tensors: Tensors) -> Cut:
    """An empty cut, with room for that of any ideal."""
    return Cut(
        np.zeros(2, np.int64),
        np.empty(n_blocks, np.int64),
        np.empty(n_blocks, np.float64),
        np.full(n_blocks, -1, np.int64),
        np.empty(tensors.seconds.size, np.int64),
        np.zeros(tensors.seconds.size + 1, np.int64),
        np.empty(tensors.blocks.size, np.int64),
    )


@njit(cache=True)
def _holds(bits: np.ndarray, block: int) -> bool:
    held: bool = (bits[block >> 6] >> np.uint64(block & 63)) & np.uint64(1) == np.uint64(1)
    return held


@njit(cache=True)
def list_cut(mine: np.ndarray, tensors: Tensors, cut: Cut) -> None:
    """Lists the tensors that the ideal `mine` cuts, with their blocks inside it."""
    n_single, n_several, n_inside = 0, 0, 0
    for k in range(cut.size[0]):
        cut.place[cut.single[k]] = -1
    for t in range(tensors.seconds.size):
        begin = n_inside
        for k in range(tensors.block_start[t], tensors.block_start[t + 1]):
            if _holds(mine, tensors.blocks[k]):
                cut.inside[n_inside] = tensors.blocks[k]
                n_inside += 1
        found = n_inside - begin
        if found == 1:
            v = cut.inside[begin]
            if cut.place[v] < 0:
                cut.place[v] = n_single
                cut.single[n_single] = v
                cut.weight[n_single] = 0.0
                n_single += 1
            cut.weight[cut.place[v]] += tensors.seconds[t]
        if found <= 1 or found == tensors.block_start[t + 1] - tensors.block_start[t]:
            n_inside = begin
        else:
            cut.several[n_several] = t
            n_several += 1
            cut.inside_start[n_several] = n_inside
    cut.size[0], cut.size[1] = n_single, n_several


@njit(cache=True)
def change_s(smaller: np.ndarray, tensors: Tensors, cut: Cut) -> float:
    """Seconds by which the part between `smaller` and the listed ideal pays more for transfers than `smaller` does.

    A set and its complement cut the same tensors, and the complement of the part is `smaller` with all that is
    outside the ideal: only tensors that the ideal cuts change. They cost the part if one of their blocks is in it,
    and no longer cost `smaller` by themselves if one of their blocks is there.
    """
    change = 0.0
    for k in range(cut.size[0]):
        change += -cut.weight[k] if _holds(smaller, cut.single[k]) else cut.weight[k]
    for k in range(cut.size[1]):
        n_smaller = 0
        for q in range(cut.inside_start[k], cut.inside_start[k + 1]):
            n_smaller += int(_holds(smaller, cut.inside[q]))
        n_inside = cut.inside_start[k + 1] - cut.inside_start[k]
        change += tensors.seconds[cut.several[k]] * (int(n_smaller < n_inside) - int(n_smaller > 0))
    return change
