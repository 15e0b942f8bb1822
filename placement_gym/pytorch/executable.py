"""Executable: a placed graph with all that a run needs to know of it, computed before the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from placement_gym.arrays import FloatArray
from placement_gym.errors import ExecutionError, InvalidOption
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import Kernel, Kernels, Operand, Region, Shape, Source
from placement_gym.op_kernel import Tensor as TensorKey
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.pytorch.functions import Code, code_of, dtype_of
from placement_gym.rule import Rule
from placement_gym.trace import transfer_heads, walk_order

Index = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """Where an op finds an operand.

    Attributes:
        holder: What holds it (see `Executable`); -1 for a source.
        output: Which of the holder's tensors.
        index: Part of that tensor; None is all of it.
        value: The tensor itself, for a source.
    """

    holder: int
    output: int = 0
    index: Index | None = None
    value: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Executable:
    """A placed graph that workers can run.

    What holds tensors is numbered: op i holds its outputs as holder i, the copy that the transfer written at edge e
    makes is holder n_ops + e.

    Attributes:
        problem: What was placed.
        placement: The device of each op.
        rule: The order of ops and transfers.
        priority: float64 [n_ops], ranks for the `priority` queue.
        kernels: What the ops compute.
        op_code: The code of each op.
        op_reads: Where each op finds its operands.
        op_outputs: Shape and dtype of each output of each op.
        edge_holder: The holder that the op at the end of each edge reads from.
        edge_carried: The edges that one transfer delivers, in walking order, the one it is written at first: the same
            list at each of them; empty at edges that stay on a device.
        edge_read: What the transfer written at an edge copies.
        holder_readers: How many ops and transfers read it; an op counts as a reader of its own outputs.
        holder_bytes: How many bytes it holds.
    """

    problem: Problem
    placement: Placement
    rule: Rule
    priority: FloatArray
    kernels: Kernels
    op_code: tuple[Code, ...]
    op_reads: tuple[tuple[Read, ...], ...]
    op_outputs: tuple[tuple[tuple[Shape, torch.dtype], ...], ...]
    edge_holder: list[int]
    edge_carried: list[list[int]]
    edge_read: Mapping[int, Read]
    holder_readers: list[int]
    holder_bytes: list[int]

    @classmethod
    def build(
        cls,
        problem: Problem,
        placement: Placement,
        rule: Rule,
        priority: FloatArray,
        sources: "Sources",
        memories: Sequence[torch.device],
    ) -> "Executable":
        """Computes all attributes and copies each op's parts of the sources to its device's memory.

        Args:
            problem: With kernels in its graph.
            placement: Feasible.
            rule: The order of ops and transfers.
            priority: float64 [n_ops].
            sources: Of the graph's kernels; what is in a memory already is not put there again.
            memories: The memory of each device; equal ones share their sources.

        Raises:
            ExecutionError: The graph has no kernels, or one with an unknown function.
        """
        graph, n, kernels = problem.graph, problem.n_ops, kernels_of(problem)
        op_code = tuple(code_of(kernel) for kernel in kernels.op_kernels)
        heads = transfer_heads(graph, placement.op_device, rule).tolist()
        edge_src = graph.edge_src.tolist()
        edge_holder = [src if head < 0 else n + head for src, head in zip(edge_src, heads, strict=True)]
        tensor_edge = _tensor_edges(graph, kernels)

        def read(op: int, operand: Operand) -> Read:
            if operand.op < 0:
                return Read(-1, value=sources.part(operand, memories[int(placement.op_device[op])]))
            head = heads[tensor_edge[op, operand.tensor]]
            return _made(operand) if head < 0 else Read(n + head)

        operands = [(op, operand) for op, kernel in enumerate(kernels.op_kernels) for operand in kernel.operands]
        brought = {tensor_edge[op, operand.tensor]: operand for op, operand in operands if operand.op >= 0}
        outputs = tuple(_outputs(kernel) for kernel in kernels.op_kernels)
        output_bytes = [sum(prod(shape) * dtype.itemsize for shape, dtype in made) for made in outputs]
        holder_readers = [1] * n + [0] * graph.n_edges
        for edge, holder in enumerate(edge_holder):
            holder_readers[holder] += 1
            holder_readers[edge_src[edge]] += int(heads[edge] == edge)
        return cls(
            problem,
            placement,
            rule,
            priority,
            kernels,
            op_code,
            tuple(tuple(read(op, operand) for operand in k.operands) for op, k in enumerate(kernels.op_kernels)),
            outputs,
            edge_holder,
            _carried(graph, rule, heads),
            {edge: _made(operand) for edge, operand in brought.items() if heads[edge] == edge},
            holder_readers,
            output_bytes + [brought[edge].n_bytes for edge in range(graph.n_edges)],
        )

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The ordered pairs of devices between which tensors are copied."""
        device, graph = self.placement.op_device, self.problem.graph
        return sorted({(int(device[graph.edge_src[e]]), int(device[graph.edge_dst[e]])) for e in self.edge_read})


def kernels_of(problem: Problem) -> Kernels:
    """The kernels of a problem's graph.

    Raises:
        ExecutionError: It has none.
    """
    if problem.graph.kernels is None:
        raise ExecutionError(
            f"the graph of {problem.name!r} has no kernels, so there is nothing to run; graphs that programs are "
            "lowered to have them, and problems built on such graphs; problems loaded from a file do not"
        )
    return problem.graph.kernels


def _outputs(kernel: Kernel) -> tuple[tuple[Shape, torch.dtype], ...]:
    outputs = zip(kernel.output_shapes, kernel.output_dtypes, strict=True)
    return tuple((shape, dtype_of(dtype)) for shape, dtype in outputs)


def _carried(graph: OpGraph, rule: Rule, heads: list[int]) -> list[list[int]]:
    """See `Executable.edge_carried`; heads: see `transfer_heads`."""
    carried: dict[int, list[int]] = {}
    for edge in walk_order(graph, rule).tolist():
        if heads[edge] >= 0:
            carried.setdefault(heads[edge], []).append(edge)
    return [carried[head] if head >= 0 else [] for head in heads]


def _tensor_edges(graph: OpGraph, kernels: Kernels) -> dict[tuple[int, TensorKey], int]:
    """The edge that brings an op a tensor."""
    edges, start = graph.in_edges.tolist(), graph.in_start.tolist()
    return {
        (op, tensor): edge
        for op, kernel in enumerate(kernels.op_kernels)
        for tensor, edge in zip(kernel.tensors, edges[start[op] : start[op + 1]], strict=True)
    }


def _made(operand: Operand) -> Read:
    """Where an op's operand is, on the device that made it."""
    return Read(operand.op, operand.output, _index(operand))


def _index(operand: Operand) -> Index | None:
    return None if operand.region is None else tuple(slice(start, stop) for start, stop in operand.region)


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of sources that ops read, each copied once to every memory that it is read from.

    Attributes:
        values: The whole sources, by name.
        placed: The parts that have been copied, by source, part and memory.
    """

    values: Mapping[str, Tensor]
    placed: dict[tuple[str, Region | None, torch.device], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, kernels: Kernels, values: Mapping[str, Tensor]) -> "Sources":
        """These values as the sources of these kernels.

        Raises:
            InvalidOption: A source has no value, or one of another shape or dtype.
        """
        _check_values(kernels.sources, values)
        return cls(values)

    def part(self, operand: Operand, memory: torch.device) -> Tensor:
        """The part of a source that an operand is, in this memory."""
        key = (operand.source, operand.region, memory)
        if key not in self.placed:
            value, index = self.values[operand.source].detach(), _index(operand)
            self.placed[key] = (value if index is None else value[index]).to(memory).contiguous()
        return self.placed[key]


def _check_values(sources: Mapping[str, Source], values: Mapping[str, Tensor]) -> None:
    if set(values) != set(sources):
        missing, unknown = sorted(set(sources) - set(values)), sorted(set(values) - set(sources))
        raise InvalidOption(f"values lack {missing} and have {unknown} besides; expected the sources {sorted(sources)}")
    for name, source in sources.items():
        value = values[name]
        if tuple(value.shape) != source.shape or value.dtype != dtype_of(source.dtype):
            raise InvalidOption(
                f"the value of source {name!r} is {value.dtype} {tuple(value.shape)}; "
                f"expected torch.{source.dtype} {source.shape}"
            )
