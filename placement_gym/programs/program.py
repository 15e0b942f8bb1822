"""TensorProgram: a neural network as einsum-labelled tensor ops, to be differentiated, split and run."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import prod
from types import MappingProxyType

from placement_gym.errors import InvalidProgram, unknown_name
from placement_gym.op_kernel import DTYPE_BYTES, Option, Shape, Source
from placement_gym.programs.checks import wrong_labels
from placement_gym.programs.functions import FUNCTIONS, KINDS, Kind

Labels = tuple[str, ...]


def parse_labels(text: str) -> tuple[tuple[Labels, ...], Labels]:
    """Labels of inputs and output: "bsh,hnd->bsnd", or with blanks where labels are words: "b s h, h n d -> b s n d".

    Raises:
        InvalidProgram: There is no arrow.
    """
    inputs, arrow, output = text.partition("->")
    if not arrow:
        raise InvalidProgram(f"labels {text!r} have no '->'; expected such as 'bsh,hnd->bsnd'")

    parts = [part.strip() for part in (*inputs.split(","), output)]
    words = any(" " in part for part in parts)
    labels = [tuple(part.split()) if words else tuple(part) for part in parts]
    return tuple(labels[:-1]) if inputs.strip() else (), labels[-1]


@dataclass(frozen=True, slots=True)
class TensorOp:
    """One op of a program; its output is one tensor.

    Labels are the op's own: axis k of an input is axis k of its producer's output, whatever the producer calls it.

    Attributes:
        name: Unique; dots part scopes ("layer0.attention.query").
        kind: "parameter" and "input" are sources; the others compute.
        function: A name in `FUNCTIONS`; "" for sources.
        inputs: Numbers of the ops that it reads.
        input_labels: One label per axis, per input.
        labels: One label per axis of the output.
        label_sizes: Size of every label of the op.
        dtype: Of the output.
        whole: Labels that are never split: spatial ones, the rows of a table.
        options: Further arguments of the function, by name, sorted.
        is_backward: Whether it belongs to the backward pass.
        n_values: For whole-number sources: values are in 0..n_values - 1.
    """

    name: str
    kind: Kind
    function: str
    inputs: tuple[int, ...]
    input_labels: tuple[Labels, ...]
    labels: Labels
    label_sizes: Mapping[str, int] = field(hash=False)
    dtype: str = "float32"
    whole: frozenset[str] = frozenset()
    options: tuple[tuple[str, Option], ...] = ()
    is_backward: bool = False
    n_values: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_sizes", MappingProxyType(dict(self.label_sizes)))

    def __reduce__(self) -> tuple[type["TensorOp"], tuple[object, ...]]:
        values = (getattr(self, each.name) for each in fields(self))
        # Views of mappings can be neither copied nor pickled.
        return TensorOp, tuple(dict(value) if isinstance(value, Mapping) else value for value in values)

    @property
    def shape(self) -> Shape:
        """Shape of the output."""
        return tuple(self.label_sizes[label] for label in self.labels)

    @property
    def n_bytes(self) -> int:
        """Bytes of the output."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def equation(self) -> str:
        """The labels of inputs and output, one letter each ("ab,bc->ac")."""
        letter = dict(zip(self.all_labels, string.ascii_letters, strict=False))
        parts = ["".join(letter[label] for label in labels) for labels in (*self.input_labels, self.labels)]
        return f"{','.join(parts[:-1])}->{parts[-1]}"

    @property
    def is_source(self) -> bool:
        """Whether it is a parameter or an input, which no device computes."""
        return self.kind in ("parameter", "input")

    @property
    def reduced(self) -> Labels:
        """Labels that may be split and that the output lacks: splitting one leaves partial results to be joined."""
        seen = dict.fromkeys(label for labels in self.input_labels for label in labels)
        return tuple(label for label in seen if label not in self.labels and label not in self.whole)

    @property
    def all_labels(self) -> Labels:
        """Every label: the output's, then those that only inputs have."""
        return tuple(dict.fromkeys([*self.labels, *(label for labels in self.input_labels for label in labels)]))

    @property
    def flops(self) -> float:
        """Floating point operations of the whole op."""
        if self.is_source:
            return 0.0
        points = prod(self.label_sizes[label] for label in self._counted())
        return FUNCTIONS[self.function].flops * points * self._window()

    def _counted(self) -> Labels:
        """Labels whose product is the number of index points that are computed (windows aside)."""
        if self.function.startswith("conv2d"):
            # One point per (image, channels in and out, kernel tap, output pixel): the larger image has no part in it.
            larger = self.labels if self.function == "conv2d_input_gradient" else self.input_labels[0]
            return tuple(label for label in self.all_labels if label not in larger[2:])
        if self.function == "max_pool2d":
            return self.labels
        if self.function == "max_pool2d_gradient":
            return self.input_labels[0]
        if self.function == "embedding_gradient":
            return self.input_labels[1]
        return self.all_labels

    def _window(self) -> int:
        """Elements of the window that pooling looks at for each index point."""
        window = dict(self.options)["window"] if self.kind == "window" else 1
        return window**2 if isinstance(window, int) else 1


@dataclass(frozen=True, slots=True, eq=False)
class TensorProgram:
    """A directed acyclic program of tensor ops, in an order in which they can run.

    Attributes:
        name: For tables.
        ops: The ops; an op reads only earlier ones.
        outputs: Numbers of the ops whose tensors are the program's results.

    Raises:
        InvalidProgram: A name twice, an op that reads a later one, a function or kind that is not known, labels that
            do not fit the shapes, missing options, no output.
    """

    name: str
    ops: tuple[TensorOp, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if len({op.name for op in self.ops}) != len(self.ops):
            names = [op.name for op in self.ops]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidProgram(f"{self.name}: op name {twice!r} appears twice; expected unique names")
        for number, op in enumerate(self.ops):
            self._check(number, op)
        if not self.outputs or not all(0 <= o < len(self.ops) for o in self.outputs):
            raise InvalidProgram(f"{self.name}: outputs are {self.outputs}; expected op numbers, at least one")

    def _check(self, number: int, op: TensorOp) -> None:
        def wrong(reason: str) -> InvalidProgram:
            return InvalidProgram(f"{self.name}: op {op.name!r}: {reason}")

        if op.kind not in KINDS:
            raise wrong(unknown_name("kind", op.kind, KINDS))
        if op.dtype not in DTYPE_BYTES:
            raise wrong(unknown_name("dtype", op.dtype, DTYPE_BYTES))
        if len(set(op.labels)) != len(op.labels):
            raise wrong(f"the output has a label twice: {op.labels}")
        for label in (*op.all_labels, *op.whole):
            if not op.label_sizes.get(label, 0) >= 1:
                raise wrong(f"label {label!r} has size {op.label_sizes.get(label)}; expected >= 1")
        if op.is_source:
            if op.inputs or op.function:
                raise wrong("a source reads nothing and computes nothing")
            return
        if op.function not in FUNCTIONS:
            raise wrong(unknown_name("function", op.function, FUNCTIONS))
        function = FUNCTIONS[op.function]
        if op.kind != function.kind:
            raise wrong(f"kind is {op.kind!r}; {op.function!r} is a {function.kind}")
        if len(op.inputs) != function.n_inputs or len(op.input_labels) != function.n_inputs:
            raise wrong(f"{len(op.inputs)} inputs; {op.function!r} takes {function.n_inputs}")
        if tuple(name for name, _ in op.options) != tuple(sorted(function.options)):
            raise wrong(f"options {[name for name, _ in op.options]}; {op.function!r} needs {list(function.options)}")
        for source, labels in zip(op.inputs, op.input_labels, strict=True):
            if not 0 <= source < number:
                raise wrong(f"it reads op {source}; expected an earlier one, 0..{number - 1}")
            shape = tuple(op.label_sizes[label] for label in labels)
            if shape != self.ops[source].shape or len(set(labels)) != len(labels):
                raise wrong(
                    f"input {self.ops[source].name!r} has shape {self.ops[source].shape}; "
                    f"labels {labels} say {shape}, each label once"
                )
        reason = wrong_labels(op)
        if reason:
            raise wrong(reason)

    @property
    def sources(self) -> tuple[int, ...]:
        """Numbers of parameters and inputs."""
        return tuple(i for i, op in enumerate(self.ops) if op.is_source)

    @property
    def named_sources(self) -> dict[str, Source]:
        """What the sources are, by name, in order."""
        return {
            op.name: Source("parameter" if op.kind == "parameter" else "input", op.shape, op.dtype, op.n_values)
            for op in (self.ops[i] for i in self.sources)
        }

    @property
    def flops(self) -> float:
        """Floating point operations of the whole program."""
        return sum(op.flops for op in self.ops)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(op.n_bytes for op in self.ops if op.kind == "parameter")

    def cast(self, dtype: str) -> "TensorProgram":
        """The same program with another number format; whole numbers stay.

        Raises:
            InvalidProgram: The dtype is no number format of real numbers.
        """
        real = [name for name in DTYPE_BYTES if "float" in name]
        if dtype not in real:
            raise InvalidProgram(f"{self.name}: " + unknown_name("dtype of real numbers", dtype, real))
        ops = (replace(op, dtype=dtype) if op.dtype in real else op for op in self.ops)
        return TensorProgram(self.name, tuple(ops), self.outputs)

    def readers(self) -> list[list[int]]:
        """For each op, the numbers of the ops that read it (once per argument)."""
        readers: list[list[int]] = [[] for _ in self.ops]
        for number, op in enumerate(self.ops):
            for source in op.inputs:
                readers[source].append(number)
        return readers
