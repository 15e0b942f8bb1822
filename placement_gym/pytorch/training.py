"""capture_training: any nn.Module -> OpGraph of one training step: forward, backward, update of the optimiser."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import Argument
from torch.fx.traceback import preserve_node_meta, set_current_meta
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from placement_gym.errors import CaptureError, InvalidOption, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.pytorch.capture import (
    build_module,
    capture_error,
    export,
    is_in_place,
    program_sources,
    program_values,
)
from placement_gym.pytorch.functions import dtype_of
from placement_gym.pytorch.replay import DROPOUTS
from placement_gym.pytorch.traced import Named, TracedGraph, is_random, op_graph
from placement_gym.pytorch.updates import UPDATES, OptimizerName

aten = torch.ops.aten
Loss = Callable[[Any], Tensor]


def mean_loss(output: Any) -> Tensor:  # noqa: ANN401  (whatever a module returns)
    """Mean of the first floating tensor of a module's output.

    Raises:
        CaptureError: It has none.
    """
    for value in pytree.tree_leaves(output):
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.mean()
    raise CaptureError("the module's output holds no floating tensor; expected one, or a loss")


class _Forward(Interpreter):
    """Runs exported calls as any device can, without random numbers: dropout is off.

    Calls of the backward pass get the module path of the forward calls that they belong to.
    """

    def __init__(self, module: GraphModule, metas: ExitStack) -> None:
        super().__init__(module)
        self.metas = metas

    def run_node(self, n: Node) -> Any:  # noqa: ANN401
        made = super().run_node(n)
        for value in pytree.tree_leaves(made):
            if isinstance(value, Tensor) and value.grad_fn is not None and n.op == "call_function":
                value.grad_fn.register_prehook(partial(self._enter, n))
        return made

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        args, kwargs = pytree.tree_map(self._fit, (args, kwargs))
        if getattr(target, "_overloadpacket", None) in DROPOUTS:
            return args[0]
        if target is aten.scaled_dot_product_attention.default:
            args = tuple(0.0 if i == 4 else arg for i, arg in enumerate(args))
            kwargs = {name: arg for name, arg in kwargs.items() if name != "dropout_p"}
        return super().call_function(target, args, kwargs)

    def _fit(self, argument: Any) -> Any:  # noqa: ANN401
        if isinstance(argument, torch.device):
            return torch.device("cpu")
        if isinstance(argument, GraphModule):  # the body of a region, such as one without gradients
            body = _Forward(argument, self.metas)
            return lambda *given: body.run(*given, enable_io_processing=False)
        return argument

    def _enter(self, n: Node, _gradients: Sequence[Tensor | None]) -> None:
        self.metas.close()
        self.metas.enter_context(set_current_meta(n))


def _trained(program: ExportedProgram) -> list[str | None]:
    """Per placeholder: name of the parameter that training changes, or None."""
    wanted = {name for name, value in program.named_parameters() if value.requires_grad}
    specs = program.graph_signature.input_specs
    return [str(spec.target) if spec.kind is InputKind.PARAMETER and spec.target in wanted else None for spec in specs]


def _traced_step(program: ExportedProgram, loss: Loss) -> GraphModule:
    """Forward and backward pass as one graph without in-place calls.

    Its placeholders are those of the program; its outputs are the loss, the gradient of the loss by itself (the first
    of the backward pass), and then, one per placeholder, the gradient of a parameter or the new value of a buffer.
    """
    placeholders = [node for node in program.graph_module.graph.nodes if node.op == "placeholder"]
    trained, specs = _trained(program), program.graph_signature.input_specs
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(node: Node) -> Any:  # noqa: ANN401
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        with fake_mode:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cpu")

    def step(*given: Any) -> tuple[Any, ...]:  # noqa: ANN401
        leaves = [x.detach().requires_grad_() if name else x for x, name in zip(given, trained, strict=True)]
        with preserve_node_meta(), torch.enable_grad(), ExitStack() as metas:
            outputs = _Forward(program.graph_module, metas).run(*leaves, enable_io_processing=False)
            value = loss(pytree.tree_unflatten(list(outputs), program.call_spec.out_spec))
            if not (isinstance(value, Tensor) and value.dim() == 0 and value.requires_grad):
                raise CaptureError(f"the loss is {value!r}; expected a scalar tensor that depends on a parameter")
            seed = torch.ones_like(value)
            wanted = [leaf for leaf, name in zip(leaves, trained, strict=True) if name]
            gradients = iter(torch.autograd.grad(value, wanted, seed, allow_unused=True))
        last = [
            next(gradients) if name else leaf if spec.kind is InputKind.BUFFER else None
            for leaf, name, spec in zip(leaves, trained, specs, strict=True)
        ]
        return value.detach(), seed, *last

    args = [fake(node) for node in placeholders]
    # The attention that any device can run, in calls that have derivatives of their own.
    with fake_mode, enable_python_dispatcher(), sdpa_kernel(SDPBackend.MATH):
        traced = make_fx(step)(*args)
        if any(is_in_place(node) for node in traced.graph.nodes):

            def again(*given: Any) -> Any:  # noqa: ANN401
                with preserve_node_meta():
                    return Interpreter(traced).run(*given)

            functional = make_fx(torch.func.functionalize(again, remove="mutations"))(*args)
            for node in functional.graph.find_nodes(op="call_function", target=aten.copy_.default):
                node.replace_all_uses_with(node.args[1])
                functional.graph.erase_node(node)
            return functional
    return traced


def capture_training(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    loss: Loss | None = None,
    optimizer: OptimizerName = "sgd",
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> OpGraph:
    """The ops of one training step: forward pass, loss, backward pass, and one update op per parameter.

    The module is exported in training mode (`torch.export`), differentiated and traced (`make_fx`) on tensors without
    storage; its parameters may be on the meta device. Calls are those below autograd ("addmm" for a linear layer).
    Dropout is off, since an op graph draws no random numbers; attention is computed by matrix products, which every
    device can run.

    `op_is_backward` is true from the first op of the backward pass on (the gradient of the loss by itself), updates
    included. An update op reads a parameter, its gradient and the optimiser's state, which is counted among its
    parameter bytes; as all readers of one parameter, it is colocated with the ops that use the parameter. Parameters
    without gradient are not updated; tied ones are one source, under one of their names.

    Sources are those of `capture` and the state, "<parameter>:<state>" (values: `training_values`). Results are
    "loss" and, under the names of their sources, the new parameters, states and buffers (batch statistics).

    Args:
        module: Any module that `torch.export` can export.
        example_inputs: Positional inputs.
        loss: From the module's output to a scalar; the mean of its first floating tensor where not given.
        optimizer: "sgd", "momentum", "adam" or "adamw", each as in `torch.optim`.
        learning_rate: Of every parameter.
        momentum: Of "momentum".
        weight_decay: Of every parameter.

    Raises:
        CaptureError: The module cannot be exported or differentiated, draws random numbers, or trains no parameter.
        InvalidOption: An unknown optimiser.
    """
    if optimizer not in UPDATES:
        raise InvalidOption(unknown_name("optimizer", optimizer, UPDATES))
    what = type(module).__name__
    program = export(module, example_inputs, training=True)
    try:
        traced = _traced_step(program, loss or mean_loss)
    except CaptureError:
        raise
    except Exception as error:
        raise capture_error(what, "differentiated", error) from error
    for node in traced.graph.nodes:
        if is_random(node):
            raise CaptureError(f"{what} draws random numbers in training ({node.target}); an op graph cannot")
    options = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
    return op_graph(_with_updates(program, traced, optimizer, options), what)


def _with_updates(
    program: ExportedProgram, traced: GraphModule, optimizer: OptimizerName, options: dict[str, float]
) -> TracedGraph:
    """The trace with an update for each parameter that has a gradient."""
    update = UPDATES[optimizer]
    chosen: dict[str, Argument] = {name: options[name] for name in update.options}
    nodes = [node for node in traced.graph.nodes if node.op == "placeholder"]
    sources = dict(zip(nodes, program_sources(program).values(), strict=True))
    (out,) = traced.graph.find_nodes(op="output")
    loss, seed, *last = out.args[0]
    results: dict[str, Node] = {"loss": loss}
    for node, name, new in zip(nodes, _trained(program), last, strict=True):
        if not isinstance(new, Node):
            continue
        if name is None:
            if new is not node:
                results[sources[node].name] = new
            continue
        like = node.meta["val"]
        values = [like, *(like.new_empty((), dtype=torch.float32) if s == "step" else like for s in update.states)]
        with traced.graph.inserting_before(out):
            states = [traced.graph.placeholder("state") for _ in update.states]
            made = traced.graph.call_function(update.function, (node, new, *states), chosen)
            parts = [traced.graph.call_function(getitem, (made, i)) for i in range(len(values))]
        made.meta = {"val": tuple(values), "nn_module_stack": {"": (name, None)}}
        names = [name, *(f"{name}:{state}" for state in update.states)]
        for state, value, called in zip(states, values[1:], names[1:], strict=True):
            state.meta["val"], sources[state] = value, Named(called, "parameter")
        results.update(zip(names, parts, strict=True))
    if len(results) == 1:
        raise CaptureError("no parameter has a gradient; nothing to train")
    return TracedGraph(traced, sources, results, seed)


def training_values(graph: OpGraph, module: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """A tensor for each source of a graph from `capture_training`, by name, as they are before the first step.

    The module's own and the inputs are not copied; the state of the optimiser is zero.

    Raises:
        CaptureError: The module cannot be exported.
    """
    values = program_values(export(module, example_inputs, training=True), example_inputs)
    assert graph.kernels is not None
    for name, source in graph.kernels.sources.items():
        if ":" in name:
            device = values[name.rpartition(":")[0]].device
            values[name] = torch.zeros(source.shape, dtype=dtype_of(source.dtype), device=device)
    return values


def capture_training_from(
    module: str,
    *,
    optimizer: OptimizerName = "sgd",
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> OpGraph:
    """The training step of the module that a function makes, for the mean of its output as loss.

    Args:
        module: "package.module:function", as `build_module` takes it.
        optimizer: As in `capture_training`; so are the others.
        learning_rate: Of every parameter.
        momentum: Of "momentum".
        weight_decay: Of every parameter.

    Raises:
        CaptureError: As `build_module` or `capture_training`.
        InvalidOption: An unknown optimiser.
    """
    built, inputs = build_module(module)
    return capture_training(
        built,
        inputs,
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
    )
