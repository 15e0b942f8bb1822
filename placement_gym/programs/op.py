"""TensorOp: one op of a program, with a label for each axis."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import prod
from types import MappingProxyType

from placement_gym.op_kernel import DTYPE_BYTES, Option, Shape
from placement_gym.programs.functions import FUNCTIONS, Kind

Labels = tuple[str, ...]


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
