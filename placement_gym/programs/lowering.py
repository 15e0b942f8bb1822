"""shard: a program, cut by a plan, as an op graph that can be placed, simulated and run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, get_args

from placement_gym.errors import InvalidProgram, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import (
    DTYPE_BYTES,
    GraphResult,
    Kernel,
    Kernels,
    Operand,
    Option,
    Piece,
    Region,
    Shape,
    Tensor,
)
from placement_gym.programs.functions import FUNCTIONS
from placement_gym.programs.movement import Estimate
from placement_gym.programs.op import Labels, TensorOp
from placement_gym.programs.op_splits import OpSplits
from placement_gym.programs.program import TensorProgram
from placement_gym.programs.split import Split

Costs = Literal["physical", "doppler_released"]
COSTS: tuple[str, ...] = get_args(Costs)


def shard(
    program: TensorProgram,
    n: int = 4,
    *,
    plan: OpSplits | None = None,
    estimate: Estimate = "scattered",
    costs: Costs = "physical",
) -> OpGraph:
    """The op graph of a program whose ops are cut into n kernel calls each; where they run is left to a placement.

    Block j of op "a" is "a/0", "a/1", ... Partial results (a label was cut that the output lacks) are joined by ops of
    kind "join" ("a/join0", ...). What a block reads is a region of one block of the producer, carried by the edge, or,
    if it spans several, of an op of kind "repartition" ("a/part0", ...) that puts it together once for all its
    readers. Parameters and inputs are no ops: kernels find their regions where they run.

    Costs are those of the block: FLOPs of its index points; traffic of the different regions that it reads and of
    what it writes (a lookup reads the rows that it returns, not its table); bytes of the parameter regions that it
    reads, counted at each op that reads them; bytes of the carried region on each edge.

    `costs="doppler_released"` charges what the released cost model of DOPPLER (arXiv 2505.23131) does, for comparison
    only: every block costs the index points of the WHOLE op (of the whole tensor for joins and repartitions) and every
    edge 4 x that of its producer. On devices of 1e10 FLOP/s and links of 1e10 bytes/s without latency, times are those
    of the graphs that `workloads.read_doppler` reads. There is no memory traffic then.

    Args:
        program: The program.
        n: Blocks per op, a power of two; ops with small labels get fewer.
        plan: How ops are cut, whatever n; `OpSplits.of(program, n=n, estimate=estimate)` where not given.
        estimate: As in `OpSplits.of`.
        costs: "physical" or "doppler_released".

    Raises:
        InvalidProgram: An unknown option, n is no power of two, or a plan of another program.
    """
    if costs not in COSTS:
        raise InvalidProgram(unknown_name("costs", costs, COSTS))
    if plan is None:
        plan = OpSplits.of(program, n=n, estimate=estimate)
    if plan.program is not program:
        raise InvalidProgram(f"the plan is one of program {plan.program.name!r}; expected a plan of {program.name!r}")
    lowering = _Lowering(program)
    for i, split in enumerate(plan.op_split):
        if not program.ops[i].is_source:
            lowering.cut(i, split)
    results = {program.ops[i].name: lowering.result(i) for i in dict.fromkeys(program.outputs)}
    return _op_graph(program, lowering.blocks, results, costs)


@dataclass(frozen=True, slots=True)
class _Block:
    """One op of the graph.

    Attributes:
        name: Unique.
        kind: Function of the program's op, "join" or "repartition".
        kernel: What it computes.
        flops: Of the block.
        whole_points: Index points of the whole op, or elements of the whole tensor, that it is a block of.
        is_backward: Whether it belongs to the backward pass.
    """

    name: str
    kind: str
    kernel: Kernel
    flops: float
    whole_points: float
    is_backward: bool


@dataclass(slots=True)
class _Lowering:
    """The graph so far.

    Attributes:
        program: The program.
        blocks: Ops of the graph.
        parts: Per op of the program, the ops of the graph that hold its output, each with its region.
        operands: What is read, by op of the program and region.
        n_repartitions: Per op of the program.
    """

    program: TensorProgram
    blocks: list[_Block] = field(default_factory=list)
    parts: dict[int, list[tuple[int, Region]]] = field(default_factory=dict)
    operands: dict[tuple[int, Region], Operand] = field(default_factory=dict)
    n_repartitions: Counter[int] = field(default_factory=Counter)

    def cut(self, i: int, split: Split) -> None:
        """Adds the blocks of op i, and what must be joined or put together for them."""
        op = self.program.ops[i]
        equation, options, whole = op.equation, _block_options(op), _points(op, op.all_labels)
        reads = [split.input_bounds(op, k).tolist() for k in range(len(op.inputs))]
        # Blocks of the graph that make one part of the output, and its region.
        makers: dict[int, list[int]] = {}
        part_region: dict[int, Region] = {}
        ranges_of, part_of = split.bounds(op, op.all_labels).tolist(), split.block_part(op).tolist()
        for j, (ranges, part) in enumerate(zip(ranges_of, part_of, strict=True)):
            block = replace(op, label_sizes={label: b - a for label, (a, b) in zip(op.all_labels, ranges, strict=True)})
            operands = tuple(self.operand(p, _region(reads[k][j]), op) for k, p in enumerate(op.inputs))
            kernel = Kernel(op.function, operands, (block.shape,), (op.dtype,), equation, options)
            number = self._add(_Block(f"{op.name}/{j}", op.function, kernel, block.flops, whole, op.is_backward))
            makers.setdefault(part, []).append(number)
            part_region[part] = _region(ranges[: len(op.labels)])
        self.parts[i] = [(self._joined(op, part, makers[part]), part_region[part]) for part in makers]

    def _add(self, block: _Block) -> int:
        self.blocks.append(block)
        return len(self.blocks) - 1

    def _joined(self, op: TensorOp, part: int, makers: list[int]) -> int:
        """The op that holds a part of an output: one that joins the partial results, if there are several."""
        if len(makers) == 1:
            return makers[0]
        shape = self.blocks[makers[0]].kernel.output_shapes[0]
        operands = tuple(Operand(maker, shape, op.dtype) for maker in makers)
        kernel = Kernel(f"join_{FUNCTIONS[op.function].join}", operands, (shape,), (op.dtype,))
        flops = float((len(makers) - 1) * prod(shape))
        return self._add(_Block(f"{op.name}/join{part}", "join", kernel, flops, _points(op, op.labels), op.is_backward))

    def operand(self, i: int, region: Region, reader: TensorOp) -> Operand:
        """A region of the output of op i, as a kernel of the reader finds it."""
        if (i, region) not in self.operands:
            op = self.program.ops[i]
            if op.is_source:
                shape = _shape(region)
                found = Operand(-1, shape, op.dtype, op.name, region=None if shape == op.shape else region)
            else:
                found = self._put_together(i, region, reader)
            self.operands[i, region] = found
        return self.operands[i, region]

    def _put_together(self, i: int, region: Region, reader: TensorOp) -> Operand:
        """The region out of the block that has it all, or an op that collects it from several."""
        op = self.program.ops[i]
        pieces: list[Operand] = []
        offsets: list[int] = []
        for holder, held in self.parts[i]:
            common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(held, region, strict=True))
            if all(a < b for a, b in common):
                within = None if common == held else _relative(common, held)
                pieces.append(Operand(holder, _shape(common), op.dtype, region=within))
                offsets += [a for a, _ in _relative(common, region)]
        if len(pieces) == 1:
            return pieces[0]
        return Operand(self._repartition(i, tuple(pieces), tuple(offsets), region, reader), _shape(region), op.dtype)

    def _repartition(
        self, i: int, pieces: tuple[Operand, ...], offsets: tuple[int, ...], region: Region, reader: TensorOp
    ) -> int:
        op = self.program.ops[i]
        kernel = Kernel("repartition", pieces, (_shape(region),), (op.dtype,), options=(("offsets", offsets),))
        name = f"{op.name}/part{self.n_repartitions[i]}"
        self.n_repartitions[i] += 1
        return self._add(_Block(name, "repartition", kernel, 0.0, _points(op, op.labels), reader.is_backward))

    def result(self, i: int) -> GraphResult:
        """Where the output of op i is; a source that is asked for is copied by an op."""
        op = self.program.ops[i]
        if op.is_source:
            whole = tuple((0, size) for size in op.shape)
            source = self.operand(i, whole, op)
            self.parts[i] = [(self._repartition(i, (source,), (0,) * len(whole), whole, op), whole)]
        return GraphResult(op.shape, op.dtype, tuple(Piece(holder, region=region) for holder, region in self.parts[i]))


def _shape(region: Region) -> Shape:
    return tuple(b - a for a, b in region)


def _relative(region: Region, outer: Region) -> Region:
    """A region counted from where an outer one begins."""
    return tuple((a - c, b - c) for (a, b), (c, _) in zip(region, outer, strict=True))


def _region(ranges: Sequence[Sequence[int]]) -> Region:
    return tuple((a, b) for a, b in ranges)


def _points(op: TensorOp, labels: Labels) -> float:
    return float(prod(op.label_sizes[label] for label in labels))


def _block_options(op: TensorOp) -> tuple[tuple[str, Option], ...]:
    """Options of the blocks: those of the op, but a block of `select` is given the selected index alone."""
    if op.function != "select":
        return op.options
    return tuple((name, 0 if name == "index" else value) for name, value in op.options)


def _traffic_bytes(kernel: Kernel) -> float:
    """Bytes that a kernel reads and writes; what it is given twice is read once."""
    written = sum(
        prod(shape) * DTYPE_BYTES[dtype]
        for shape, dtype in zip(kernel.output_shapes, kernel.output_dtypes, strict=True)
    )
    if kernel.function == "embedding":
        # The rows that are looked up are as large as the output.
        return float(2 * written + kernel.operands[1].n_bytes)
    return float(written + sum(operand.n_bytes for operand in dict.fromkeys(kernel.operands)))


def _op_graph(
    program: TensorProgram, blocks: Sequence[_Block], results: Mapping[str, GraphResult], costs: Costs
) -> OpGraph:
    """The graph of the blocks."""
    physical = costs == "physical"
    sources = program.named_sources
    edges: list[tuple[int, int, float]] = []
    tensors: list[Tensor] = []
    parameter_bytes: list[float] = []
    for number, block in enumerate(blocks):
        read = dict.fromkeys(block.kernel.operands)
        parameters = [o for o in read if o.op < 0 and sources[o.source].kind == "parameter"]
        parameter_bytes.append(float(sum(operand.n_bytes for operand in parameters)))
        for operand in read:
            if operand.op >= 0:
                carried = operand.n_bytes if physical else 4 * blocks[operand.op].whole_points
                edges.append((operand.op, number, float(carried)))
                tensors.append(operand.tensor)
    numbers = {tensor: number for number, tensor in enumerate(dict.fromkeys(tensors))}
    kernels = tuple(block.kernel for block in blocks)
    return OpGraph.build(
        [block.name for block in blocks],
        edges,
        kinds=[block.kind for block in blocks],
        dtypes=[kernel.output_dtypes[0] for kernel in kernels],
        flops=[block.flops if physical else block.whole_points for block in blocks],
        traffic_bytes=[_traffic_bytes(kernel) if physical else 0.0 for kernel in kernels],
        parameter_bytes=parameter_bytes,
        output_bytes=[prod(k.output_shapes[0]) * DTYPE_BYTES[k.output_dtypes[0]] for k in kernels],
        is_backward=[block.is_backward for block in blocks],
        edge_tensor=[numbers[tensor] for tensor in tensors],
        kernels=Kernels(kernels, sources, results),
    )
