"""capture: any nn.Module and example inputs -> OpGraph, through torch.export on tensors without storage."""

import importlib
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from placement_gym.errors import CaptureError
from placement_gym.graph import OpGraph
from placement_gym.pytorch.traced import Named, TracedGraph, op_graph

# Tensors that the module holds.
HELD = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def is_in_place(node: Node) -> bool:
    """Whether a call changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """The module, and all in it, in training or evaluation mode for as long as this lasts."""
    before = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, was in before.items():
            part.training = was


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


def export(module: nn.Module, example_inputs: tuple[Any, ...], *, training: bool = False) -> ExportedProgram:
    """The calls of one forward pass, exported; in evaluation mode without in-place ops.

    Raises:
        CaptureError: The module cannot be exported; the message names the line.
    """
    if not isinstance(module, nn.Module):
        raise CaptureError(f"got {type(module).__name__}; expected an nn.Module")
    tensors = [*module.parameters(), *module.buffers(), *(x for x in example_inputs if isinstance(x, torch.Tensor))]
    # What forward makes without saying where (arange, zeros) belongs to where the module is.
    device = torch.device("meta") if any(tensor.is_meta for tensor in tensors) else nullcontext()
    try:
        with _mode(module, training), device, torch.set_grad_enabled(training), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, about torch
            program = torch.export.export(module, tuple(example_inputs), strict=False)
            if not training and any(is_in_place(node) for node in program.graph_module.graph.nodes):
                # With no decomposition asked for, this makes in-place ops functional.
                program = program.run_decompositions({})
    except Exception as error:
        raise capture_error(type(module).__name__, "exported", error) from error
    return program


def capture_error(what: str, done: str, error: Exception) -> CaptureError:
    """One line that says what could not be done, where and why."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return CaptureError(f"{what} cannot be {done} at {_where(error)}: {type(error).__name__}: {reason}")


def program_sources(program: ExportedProgram) -> dict[Node, Any]:
    """For each placeholder of an exported program the source that it stands for, or its plain value."""
    held = {str(spec.target) for spec in program.graph_signature.input_specs if spec.kind in HELD}
    sources: dict[Node, Any] = {}
    placeholders = [node for node in program.graph_module.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind in HELD:
            sources[node] = Named(str(spec.target), "parameter")
        elif isinstance(node.meta.get("val"), torch.Tensor):
            sources[node] = Named(f"input.{node.name}" if node.name in held else node.name, "input")
        else:
            sources[node] = getattr(spec.arg, "value", node.meta.get("val"))
    return sources


def program_values(program: ExportedProgram, example_inputs: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """A tensor for each source of an exported program, by name."""
    values: dict[str, torch.Tensor] = {}
    inputs = iter(pytree.tree_leaves(tuple(example_inputs)))
    stored = {**program.constants, **program.state_dict}
    for node, spec in zip(program_sources(program).items(), program.graph_signature.input_specs, strict=True):
        value = stored[str(spec.target)] if spec.kind in HELD else next(inputs)
        if isinstance(node[1], Named):
            values[node[1].name] = value.detach()
    return values


def capture(module: nn.Module, example_inputs: tuple[Any, ...]) -> OpGraph:
    """The ops that one forward pass of a module runs, ready to be run themselves.

    The module is exported (`torch.export`) in evaluation mode; parameters on the meta device stay without storage.
    Views and other calls that make no new tensor are folded away; a parameter's bytes belong to the first op that
    reads it, and all readers of one parameter are colocated. Inputs of the module are no ops: they are taken to be
    on every device. FLOPs are those of `torch.utils.flop_counter`, bytes those of the tensors.

    The graph's kernels replay the calls. Their sources are the parameters, buffers, constants and inputs (values:
    `module_values`); their results are the tensors among the module's outputs, flattened: "output0", "output1", ...;
    a buffer that the pass changes is a result under its own name. An output that is a view of an op's tensor, or an
    input handed through, gets an op of its own of kind "view": no FLOPs, no traffic, beside the op that it views.

    Args:
        module: Any module that `torch.export` can export.
        example_inputs: Positional inputs; tensors may be on the meta device, as the module's parameters then are.

    Returns:
        The graph; an op is named by its module's path and its call.

    Raises:
        CaptureError: The module cannot be exported or runs no op; the message names the line or the op.
    """
    program = export(module, example_inputs)
    results: dict[str, Node] = {}
    position = 0
    (out,) = program.graph_module.graph.find_nodes(op="output")
    for node, spec in zip(out.args[0], program.graph_signature.output_specs, strict=True):
        user = spec.kind is OutputKind.USER_OUTPUT
        if isinstance(node, Node) and isinstance(node.meta.get("val"), torch.Tensor):
            results[f"output{position}" if user else str(spec.target)] = node
        position += user
    return op_graph(TracedGraph(program.graph_module, program_sources(program), results), type(module).__name__)


def module_values(module: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """A tensor for each source of `capture(module, example_inputs)`, by name, not copied.

    Raises:
        CaptureError: The module cannot be exported.
    """
    return program_values(export(module, example_inputs), example_inputs)


def build_module(module: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module and the example inputs that a function makes, on the meta device.

    Args:
        module: "package.module:function"; the function takes nothing and returns (nn.Module, example inputs). It is
            called with the meta device as default, so that no weights are allocated.

    Raises:
        CaptureError: There is no such function, it fails, or it returns something else.
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
    return made[0], made[1]


def capture_from(module: str) -> OpGraph:
    """The graph of the module that a function makes.

    Args:
        module: "package.module:function", as `build_module` takes it.

    Raises:
        CaptureError: As `build_module` or `capture`.
    """
    return capture(*build_module(module))
