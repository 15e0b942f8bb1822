"""Kernels: what the ops of a graph compute, by name; only `placement_gym.pytorch` turns a name into code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from placement_gym.errors import InvalidGraph, unknown_name

Shape = tuple[int, ...]
# (start, stop) on each axis of a tensor.
Region = tuple[tuple[int, int], ...]
# (op, output, region).
Tensor = tuple[int, int, Region | None]
Option = bool | int | float | str | tuple[int, ...]

DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "complex128": 16,
    "complex64": 8,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True, slots=True)
class Operand:
    """One argument of a kernel: a region of an op's output, or of a source.

    Attributes:
        op: The op that makes the tensor; -1 for a source.
        source: Name of the source where `op` is -1.
        output: Which of the op's outputs.
        region: Part of that tensor; None is all of it.
        shape: Of what the kernel reads.
        dtype: Of what the kernel reads.
    """

    op: int
    shape: Shape
    dtype: str = "float32"
    source: str = ""
    output: int = 0
    region: Region | None = None

    @property
    def tensor(self) -> Tensor:
        """Which tensor it is: equal for operands that one transfer can bring."""
        return self.op, self.output, self.region

    @property
    def n_bytes(self) -> int:
        """Bytes of what the kernel reads."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Kernel:
    """What one op computes.

    Attributes:
        function: Name of the function ("einsum", "add", ...; see `placement_gym.programs.functions`).
        operands: What it reads, in order.
        output_shapes: One shape per output.
        output_dtypes: One dtype per output.
        equation: Axes of operands and output, one letter each ("bsh,hnd->bsnd"), where the function needs them.
        options: Further arguments, by name, sorted.
        call: The code itself, for ops captured from a module, whose functions have no name here: takes the operands
            and returns a tensor or a tuple of tensors.
    """

    function: str
    operands: tuple[Operand, ...]
    output_shapes: tuple[Shape, ...]
    output_dtypes: tuple[str, ...]
    equation: str = ""
    options: tuple[tuple[str, Option], ...] = ()
    call: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that it reads from other ops, each once, in order: the graph has one edge for each."""
        return tuple(dict.fromkeys(operand.tensor for operand in self.operands if operand.op >= 0))

    @property
    def signature(self) -> str:
        """What decides how long the kernel takes: function, equation, options, shapes and dtypes."""
        options = ",".join(f"{name}={value}" for name, value in self.options)
        reads = ",".join(f"{o.dtype}{list(o.shape)}" for o in self.operands)
        writes = ",".join(f"{d}{list(s)}" for d, s in zip(self.output_dtypes, self.output_shapes, strict=True))
        return f"{self.function}[{self.equation}]({options})({reads})->({writes})".replace(" ", "")


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor that exists before the first op: every op finds its part of it on its own device.

    Attributes:
        kind: "parameter" or "input".
        shape: Of the whole tensor.
        dtype: Its number format.
        n_values: For whole-number tensors (ids): values are in 0..n_values - 1; 0 for others.
    """

    kind: Literal["parameter", "input"]
    shape: Shape
    dtype: str = "float32"
    n_values: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a result: output `output` of op `op` is its region `region` (None: all of it)."""

    op: int
    output: int = 0
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class GraphResult:
    """A tensor that is asked for, in pieces that different ops make."""

    shape: Shape
    dtype: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Kernels:
    """What makes an op graph executable.

    Attributes:
        op_kernels: One kernel per op; the edges into op i, in ascending order, bring `op_kernels[i].tensors`.
        sources: By name.
        results: By name.

    Raises:
        InvalidGraph: An operand, piece or dtype that is not there.
    """

    op_kernels: tuple[Kernel, ...]
    sources: Mapping[str, Source]
    results: Mapping[str, GraphResult]

    def __post_init__(self) -> None:
        n = len(self.op_kernels)
        for i, kernel in enumerate(self.op_kernels):
            if len(kernel.output_shapes) != len(kernel.output_dtypes) or not kernel.output_shapes:
                raise InvalidGraph(f"kernel of op {i}: {len(kernel.output_shapes)} shapes for its outputs' dtypes")
            for dtype in kernel.output_dtypes:
                if dtype not in DTYPE_BYTES:
                    raise InvalidGraph(f"kernel of op {i}: {unknown_name('dtype', dtype, DTYPE_BYTES)}")
            for operand in kernel.operands:
                self._check_operand(i, n, operand)
        for name, result in self.results.items():
            for piece in result.pieces:
                if not 0 <= piece.op < n or piece.output >= len(self.op_kernels[piece.op].output_shapes):
                    raise InvalidGraph(f"result {name!r}: there is no output {piece.output} of op {piece.op}")

    def _check_operand(self, i: int, n: int, operand: Operand) -> None:
        if operand.dtype not in DTYPE_BYTES:
            raise InvalidGraph(f"kernel of op {i}: {unknown_name('dtype', operand.dtype, DTYPE_BYTES)}")
        if operand.op == -1:
            if operand.source not in self.sources:
                raise InvalidGraph(f"kernel of op {i}: {unknown_name('source', operand.source, self.sources)}")
            whole = self.sources[operand.source].shape
        elif 0 <= operand.op < n and operand.output < len(self.op_kernels[operand.op].output_shapes):
            whole = self.op_kernels[operand.op].output_shapes[operand.output]
        else:
            raise InvalidGraph(f"kernel of op {i} reads output {operand.output} of op {operand.op}; no such tensor")
        region = operand.region
        inside = region is None or (
            len(region) == len(whole) and all(0 <= a < b <= size for (a, b), size in zip(region, whole, strict=True))
        )
        if not inside or (whole if region is None else tuple(b - a for a, b in region)) != operand.shape:
            raise InvalidGraph(
                f"kernel of op {i} reads {operand.shape} as region {operand.region} of a tensor of shape {whole}"
            )
