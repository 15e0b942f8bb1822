"""op_graph: a traced program -> OpGraph with kernels."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils.flop_counter import FlopCounterMode

from placement_gym.errors import CaptureError, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import DTYPE_BYTES, GraphResult, Kernel, Kernels, Operand, Piece, Shape, Source
from placement_gym.pytorch.replay import DROPOUTS, Replay, Tracer, ValueRead

aten = torch.ops.aten

LOOKUPS = ("embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")


@dataclass(frozen=True, slots=True)
class TracedGraph:
    """A program of torch calls on tensors without storage.

    Attributes:
        module: Its graph; the nodes' `meta["val"]` are fake tensors.
        sources: A `Named` for each placeholder that stands for a tensor; for the others the value itself.
        results: Nodes whose tensors are asked for, by name. One that has a source's name is that source's new value.
        backward: The first node of the backward pass.
    """

    module: GraphModule
    sources: Mapping[Node, Any]
    results: Mapping[str, Node]
    backward: Node | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """Name and kind of a source."""

    name: str
    kind: Literal["parameter", "input"]


def is_random(node: Node) -> bool:
    """Whether a call draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _outputs(node: Node) -> list[Any]:
    value = node.meta.get("val")
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _is_free(node: Node) -> bool:
    """Whether a call makes no new tensor: a view, a symbolic size, an assertion, or dropout that is off."""
    target = node.target
    tensors = [value for value in _outputs(node) if isinstance(value, Tensor)]
    if target is operator.getitem or not tensors:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return False
    packet = target._overloadpacket
    if packet is aten._unsafe_view:
        return True
    if packet in DROPOUTS:
        return not node.args[2]
    # The schema of a view says that its result shares memory with an argument (and writes nothing).
    returns = target._schema.returns
    first = next((one.meta.get("val") for one in node.all_input_nodes), None)
    converted = packet is aten.to and isinstance(first, Tensor) and first.dtype != tensors[0].dtype
    return (
        not converted and bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
    )


def _flops(node: Node, origins: Mapping[Node, Any]) -> float:
    """FLOPs of a call, by torch's own counter, run on its fake arguments."""

    def fake(argument: Node) -> Any:  # noqa: ANN401  (whatever the graph holds)
        return argument.meta["val"] if "val" in argument.meta else origins[argument]

    if not isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
        return 0.0
    modes = [v.fake_mode for v in _outputs(node) if hasattr(v, "fake_mode")]
    args = torch.fx.node.map_arg(node.args, fake)
    kwargs = torch.fx.node.map_arg(node.kwargs, fake)
    with modes[0], torch.no_grad(), FlopCounterMode(display=False) as counter:
        node.target(*args, **kwargs)
    return float(counter.get_total_flops())


def _described(value: Tensor, what: str) -> tuple[Shape, str]:
    """Shape and dtype of a (fake) tensor."""
    shape = tuple(value.shape)
    if not all(isinstance(size, int) for size in shape):
        raise CaptureError(f"{what} has the shape {shape}, which depends on data; expected a fixed one")
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise CaptureError(f"{what}: {unknown_name('dtype', dtype, DTYPE_BYTES)}")
    return shape, dtype


def _bytes(value: object) -> float:
    """Bytes of a (fake) tensor; 0 for anything else."""
    return float(value.numel() * value.element_size()) if isinstance(value, Tensor) else 0.0


@dataclass(slots=True)
class _Ops:
    """The columns of the graph that is being made."""

    names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    traffic: list[float] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    output_bytes: list[list[float]] = field(default_factory=list)
    is_backward: list[bool] = field(default_factory=list)


class _Builder:
    """Walks a traced program once and collects ops, edges and kernels."""

    def __init__(self, trace: TracedGraph) -> None:
        self.trace = trace
        self.origins: dict[Node, Any] = {}
        self.ops = _Ops()
        self.edges: list[tuple[int, int, float]] = []
        self.tensors: list[tuple[int, int]] = []
        self.sources: dict[str, Source] = {}
        self.source_bytes: dict[str, float] = {}
        self.readers: dict[str, list[int]] = {}
        self.together: list[tuple[int, int]] = []
        self.flops_of: dict[str, float] = {}
        backward = False
        for node in trace.module.graph.nodes:
            backward = backward or node is trace.backward
            if node.op == "placeholder":
                self._source(node)
            elif node.op == "get_attr":
                self.origins[node] = operator.attrgetter(str(node.target))(trace.module)
            elif node.op == "call_function" and not _is_free(node) and (node.all_input_nodes or is_random(node)):
                self._call(node, backward)
        self.results = {name: self._result(name, node, backward) for name, node in trace.results.items()}

    def _source(self, node: Node) -> None:
        named = self.trace.sources[node]
        if not isinstance(named, Named):
            self.origins[node] = named
            return
        value = node.meta["val"]
        shape, dtype = _described(value, f"source {named.name!r}")
        # Whole numbers may be ids: zeros are valid ones, whatever they count.
        n_values = int(dtype.startswith(("int", "uint")))
        self.sources[named.name] = Source(named.kind, shape, dtype, n_values)
        self.source_bytes[named.name] = _bytes(value)
        self.origins[node] = Operand(-1, shape, dtype, named.name)

    def _call(self, node: Node, backward: bool) -> None:
        tracer = Tracer(self.origins)
        args, kwargs = tracer.arguments(node)
        assert callable(node.target)
        tracer.add(node.target, args, kwargs)
        value = node.meta["val"]
        whole = isinstance(value, Tensor)
        parts = [i for i, one in enumerate(_outputs(node)) if isinstance(one, Tensor)]
        packet = getattr(node.target, "_overloadpacket", node.target)
        stack = node.meta.get("nn_module_stack") or {}
        path = list(stack.values())[-1][0] if stack else ""
        op = self._op(
            f"{path}.{node.name}" if path else node.name,
            getattr(packet, "__name__", str(packet)),
            tracer,
            tuple(_outputs(node)[i] for i in parts),
            None if whole else tuple(parts),
        )
        kernel = self.ops.kernels[op]
        outputs = [Operand(op, s, kernel.output_dtypes[i], output=i) for i, s in enumerate(kernel.output_shapes)]
        self.origins[node] = (
            outputs[0]
            if whole
            else [outputs[parts.index(i)] if i in parts else None for i in range(len(_outputs(node)))]
        )
        written = sum(self.ops.output_bytes[op])
        read = sum(_bytes(one.meta.get("val")) for one in node.all_input_nodes)
        # A lookup reads the rows that it returns, not the table.
        self.ops.traffic.append(written + (written if self.ops.kinds[op] in LOOKUPS else read))
        if kernel.signature not in self.flops_of:
            self.flops_of[kernel.signature] = _flops(node, self.origins)
        self.ops.flops.append(self.flops_of[kernel.signature])
        self.ops.is_backward.append(backward)

    def _op(
        self, name: str, kind: str, tracer: Tracer, outputs: tuple[Tensor, ...], parts: tuple[int, ...] | None
    ) -> int:
        """Adds an op that runs the tracer's calls, and its edges."""
        op = len(self.ops.names)
        described = [_described(value, f"op {name!r}") for value in outputs]
        replay = Replay(tuple(tracer.calls), parts)
        function = tracer.calls[-1].function
        kernel = Kernel(
            str(function) if isinstance(function, torch._ops.OperatorBase) else function.__name__,
            tuple(tracer.operands),
            tuple(shape for shape, _ in described),
            tuple(dtype for _, dtype in described),
            options=replay.options,
            call=replay,
        )
        self.ops.names.append(name)
        self.ops.kinds.append(kind)
        self.ops.kernels.append(kernel)
        self.ops.output_bytes.append([_bytes(value) for value in outputs])
        for operand in kernel.operands:
            if operand.op >= 0:
                self.edges.append((operand.op, op, self.ops.output_bytes[operand.op][operand.output]))
                self.tensors.append((operand.op, operand.output))
            elif self.sources[operand.source].kind == "parameter":
                self.readers.setdefault(operand.source, []).append(op)
        return op

    def _result(self, name: str, node: Node, backward: bool) -> GraphResult:
        """A result; one that is no op's whole output (a view, a source) gets an op without cost that makes it."""
        tracer = Tracer(self.origins)
        value = tracer.value(node)
        origin = next(iter(tracer.operands), None)
        if not (isinstance(value, ValueRead) and origin is not None and origin.op >= 0):
            fake = node.meta["val"]
            tracer.add(aten.alias.default, (value,), {})
            op = self._op(f"{name}.view", "view", tracer, (fake,), None)
            self.ops.traffic.append(0.0)
            self.ops.flops.append(0.0)
            self.ops.is_backward.append(backward)
            shape, dtype = self.ops.kernels[op].output_shapes[0], self.ops.kernels[op].output_dtypes[0]
            self.together += [(read.op, op) for read in tracer.operands if read.op >= 0]
            origin = Operand(op, shape, dtype)
        if name in self.readers:
            self.readers[name].append(origin.op)
        return GraphResult(origin.shape, origin.dtype, (Piece(origin.op, origin.output),))

    def _colocation(self) -> list[int]:
        group = list(range(len(self.ops.names)))

        def root(op: int) -> int:
            while group[op] != op:
                group[op] = group[group[op]]
                op = group[op]
            return op

        # A parameter that several ops read (tied weights) is held once, so its readers share a device; so do a view and
        # what it views.
        pairs = [(ops[0], other) for ops in self.readers.values() for other in ops[1:]]
        for a, b in pairs + self.together:
            group[root(b)] = root(a)
        roots = [root(op) for op in range(len(group))]
        sizes: dict[int, int] = {}
        for r in roots:
            sizes[r] = sizes.get(r, 0) + 1
        number = {r: i for i, r in enumerate(sorted(r for r, size in sizes.items() if size > 1))}
        return [number.get(r, -1) for r in roots]

    def graph(self) -> OpGraph:
        parameter_bytes = [0.0] * len(self.ops.names)
        for name, ops in self.readers.items():
            parameter_bytes[ops[0]] += self.source_bytes[name]
        tensor_number: dict[tuple[int, int], int] = {}
        read = {operand.source for kernel in self.ops.kernels for operand in kernel.operands if operand.op < 0}
        return OpGraph.build(
            self.ops.names,
            self.edges,
            kinds=self.ops.kinds,
            dtypes=[kernel.output_dtypes[0] for kernel in self.ops.kernels],
            flops=self.ops.flops,
            traffic_bytes=self.ops.traffic,
            parameter_bytes=parameter_bytes,
            output_bytes=[sum(b) for b in self.ops.output_bytes],
            is_backward=self.ops.is_backward,
            colocation=self._colocation(),
            edge_tensor=[tensor_number.setdefault(t, len(tensor_number)) for t in self.tensors],
            kernels=Kernels(
                tuple(self.ops.kernels),
                {name: source for name, source in self.sources.items() if name in read},
                self.results,
            ),
        )


def op_graph(trace: TracedGraph, what: str) -> OpGraph:
    """The ops of a traced program, with kernels.

    Args:
        trace: The program.
        what: Its name, for errors.

    Raises:
        CaptureError: It runs no op, or a tensor has a shape or dtype that no op graph can hold.
    """
    builder = _Builder(trace)
    if not any(kind != "view" for kind in builder.ops.kinds):
        raise CaptureError(f"{what} runs no op on its inputs; nothing to place")
    return builder.graph()
