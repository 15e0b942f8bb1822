"""capture: any nn.Module and example inputs -> OpGraph, through torch.export on tensors without storage."""

import importlib
import operator
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from placement_gym.errors import CaptureError
from placement_gym.graph import OpGraph

# A tensor of the program: ("op", op number, output number) or ("parameter", name, 0).
Source = tuple[str, int | str, int]


def _bytes(value: object) -> float:
    """Bytes of a (fake) tensor; 0 for anything else."""
    return float(value.numel() * value.element_size()) if isinstance(value, torch.Tensor) else 0.0


def _outputs(node: Node) -> list[Any]:
    value = node.meta.get("val")
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _is_free(node: Node) -> bool:
    """Whether a call makes no new tensor: a view, a symbolic size, an assertion, or dropout that is off."""
    target = node.target
    if target is operator.getitem or not any(isinstance(v, torch.Tensor) for v in _outputs(node)):
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target._overloadpacket is torch.ops.aten._unsafe_view:
        return True
    if target._overloadpacket is torch.ops.aten.dropout:
        return not node.args[2]
    # The schema of a view says that its result shares memory with an argument (and writes nothing).
    returns = target._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _writes(node: Node) -> bool:
    """Whether a call changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _flops(node: Node) -> float:
    """FLOPs of a call, by torch's own counter, run on its fake arguments."""

    def fake(argument: Node) -> Any:  # noqa: ANN401  (whatever the graph holds)
        return argument.meta["val"]

    args = torch.fx.node.map_arg(node.args, fake)
    kwargs = torch.fx.node.map_arg(node.kwargs, fake)
    modes = [v.fake_mode for v in _outputs(node) if hasattr(v, "fake_mode")]
    with modes[0], torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert callable(node.target)
        node.target(*args, **kwargs)
    return float(counter.get_total_flops())


class _Builder:
    """Walks an exported program once and collects ops and edges."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.sources: dict[Node, list[Source | None]] = {}
        self.names: list[str] = []
        self.kinds: list[str] = []
        self.dtypes: list[str] = []
        self.flops: list[float] = []
        self.traffic: list[float] = []
        self.output_bytes: list[list[float]] = []
        self.edges: list[tuple[int, int, float]] = []
        self.tensors: list[tuple[int, int]] = []
        self.readers: dict[str, list[int]] = {}
        self.parameter_bytes: dict[str, float] = {}
        stored = {
            spec.arg.name: str(spec.target)
            for spec in program.graph_signature.input_specs
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
            and hasattr(spec.arg, "name")
        }
        for node in program.graph_module.graph.nodes:
            if node.op == "placeholder":
                name = stored.get(node.name)
                self.sources[node] = [("parameter", name, 0) if name is not None else None]
                if name is not None:
                    self.parameter_bytes[name] = _bytes(node.meta.get("val"))
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "get_attr":
                self.sources[node] = [None]

    def _call(self, node: Node) -> None:
        inputs = node.all_input_nodes
        if node.target is operator.getitem:
            of, index = node.args[0], node.args[1]
            assert isinstance(of, Node)
            found = self.sources[of]
            self.sources[node] = [found[index] if isinstance(index, int) and index < len(found) else found[0]]
        elif _is_free(node):
            base = self.sources[inputs[0]][0] if inputs else None
            self.sources[node] = [base] * len(_outputs(node))
        elif not inputs:
            self.sources[node] = [None] * len(_outputs(node))  # a constant, such as arange
        else:
            self._op(node, inputs)

    def _op(self, node: Node, inputs: list[Node]) -> None:
        op = len(self.names)
        outputs = _outputs(node)
        packet = getattr(node.target, "_overloadpacket", node.target)
        kind = getattr(packet, "__name__", str(packet))
        stack = node.meta.get("nn_module_stack") or {}
        path = list(stack.values())[-1][0] if stack else ""
        self.names.append(f"{path}.{node.name}" if path else node.name)
        self.kinds.append(kind)
        first = next(v for v in outputs if isinstance(v, torch.Tensor))
        self.dtypes.append(str(first.dtype).removeprefix("torch."))
        self.flops.append(_flops(node))
        written = [_bytes(v) for v in outputs]
        self.output_bytes.append(written)
        self.sources[node] = [("op", op, i) for i in range(len(outputs))]
        read = 0.0
        seen: set[Source] = set()
        for one in inputs:
            read += _bytes(one.meta.get("val"))
            for source in self.sources[one]:
                if source is None or source in seen:
                    continue
                seen.add(source)
                if source[0] == "parameter":
                    self.readers.setdefault(str(source[1]), []).append(op)
                else:
                    producer, output = int(source[1]), source[2]
                    self.edges.append((producer, op, self.output_bytes[producer][output]))
                    self.tensors.append((producer, output))
        # A lookup reads the rows that it returns, not the table.
        self.traffic.append(sum(written) + (sum(written) if "embedding" in kind else read))

    def graph(self) -> OpGraph:
        parameter_bytes = [0.0] * len(self.names)
        group = list(range(len(self.names)))

        def root(op: int) -> int:
            while group[op] != op:
                op = group[op]
            return op

        # A parameter that several ops read (tied weights) is held once, so its readers share a device.
        for name, ops in self.readers.items():
            parameter_bytes[ops[0]] += self.parameter_bytes[name]
            for other in ops[1:]:
                group[root(other)] = root(ops[0])
        roots = [root(op) for op in range(len(self.names))]
        number = {r: i for i, r in enumerate(sorted({r for r in roots if roots.count(r) > 1}))}
        tensor_number: dict[tuple[int, int], int] = {}
        return OpGraph.build(
            self.names,
            self.edges,
            kinds=self.kinds,
            dtypes=self.dtypes,
            flops=self.flops,
            traffic_bytes=self.traffic,
            parameter_bytes=parameter_bytes,
            output_bytes=[sum(b) for b in self.output_bytes],
            colocation=[number.get(r, -1) for r in roots],
            edge_tensor=[tensor_number.setdefault(t, len(tensor_number)) for t in self.tensors],
        )


def _where(error: BaseException) -> str:
    """The last line of the user's own code in the error's traceback or, failing that, in its message."""
    package = str(Path(torch.__file__).parent)
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((package, "<")) and frame.filename != __file__
    ]
    if own:
        return f'{own[-1].filename}:{own[-1].lineno} "{own[-1].line}"'
    quoted = [line.strip() for line in str(error).splitlines() if line.strip().startswith('File "')]
    return quoted[-1] if quoted else "the module"


def capture(module: nn.Module, example_inputs: tuple[Any, ...]) -> OpGraph:
    """The ops that one forward pass of a module runs.

    The module is exported (`torch.export`) in evaluation mode; parameters on the meta device stay without storage.
    Views and other calls that make no new tensor are folded away; a parameter's bytes belong to the first op that
    reads it, and all readers of one parameter are colocated. Inputs of the module are no ops: they are taken to be
    on every device. FLOPs are those of `torch.utils.flop_counter`, bytes those of the tensors.

    Args:
        module: Any module that `torch.export` can export.
        example_inputs: Positional inputs; tensors may be on the meta device, as the module's parameters then are.

    Returns:
        The graph; an op is named by its module's path and its call.

    Raises:
        CaptureError: The module cannot be exported or runs no op; the message names the line or the op.
    """
    if not isinstance(module, nn.Module):
        raise CaptureError(f"got {type(module).__name__}; expected an nn.Module")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, about torch
            program = torch.export.export(module.eval(), tuple(example_inputs), strict=False)
            if any(_writes(node) for node in program.graph_module.graph.nodes):
                # With no decomposition asked for, this makes in-place ops functional.
                program = program.run_decompositions({})
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CaptureError(
            f"{type(module).__name__} cannot be exported at {_where(error)}: {type(error).__name__}: {reason}"
        ) from error
    builder = _Builder(program)
    if not builder.names:
        raise CaptureError(f"{type(module).__name__} runs no op on its inputs; nothing to place")
    return builder.graph()


def capture_from(module: str) -> OpGraph:
    """The graph of the module that a function makes.

    Args:
        module: "package.module:function"; the function takes nothing and returns (nn.Module, example inputs). It is
            called with the meta device as default, so that no weights are allocated.

    Raises:
        CaptureError: No such function, it fails, or returns something else; or as `capture`.
    """
    path, colon, name = module.partition(":")
    if not colon:
        raise CaptureError(f"workload.module is {module!r}; expected 'package.module:function'")
    try:
        build: Callable[[], Any] = getattr(importlib.import_module(path), name)
    except ImportError as error:
        raise CaptureError(f"workload.module is {module!r}: cannot import {path!r} ({error})") from error
    except AttributeError as error:
        raise CaptureError(f"workload.module is {module!r}: {path!r} has no function {name!r}") from error
    try:
        with torch.device("meta"):
            made = build()
    except Exception as error:
        raise CaptureError(f"{module} failed at {_where(error)}: {type(error).__name__}: {error}") from error
    if not (
        isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and isinstance(made[1], tuple)
    ):
        raise CaptureError(f"{module} returned {type(made).__name__}; expected (nn.Module, tuple of example inputs)")
    return capture(made[0], made[1])
