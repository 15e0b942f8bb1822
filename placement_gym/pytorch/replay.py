"""Replay: the calls that one captured op runs, without the trace that they were found in."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from placement_gym.op_kernel import Operand, Option

aten = torch.ops.aten

# A kernel may get a copy of a tensor whose strides differ from those of the trace, where a plain view could fail.
AS_RESHAPE = (aten.view.default, aten._unsafe_view.default)
DROPOUTS = (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
# Calls that give back their first argument, if they are replayed at all: gradients are no concern of a kernel, and
# dropout that is on is an op.
IDENTITY = (aten.detach, aten.alias, *DROPOUTS)


@dataclass(frozen=True, slots=True)
class ValueRead:
    """Operand `number` of the kernel."""

    number: int


@dataclass(frozen=True, slots=True)
class Made:
    """The value of call `number`."""

    number: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call; `ValueRead` and `Made` stand for tensors among its arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        # Torch's ops cannot be pickled, but are known by name in every process.
        named = isinstance(self.function, torch._ops.OpOverload)
        return _unpickled, (str(self.function) if named else self.function, self.args, dict(self.kwargs))


def _unpickled(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:  # noqa: ANN401
    return Call(operator.attrgetter(function)(torch.ops) if isinstance(function, str) else function, args, kwargs)


@dataclass(frozen=True, slots=True)
class Replay:
    """The code of a captured op: takes its operands, returns its outputs.

    Attributes:
        calls: In order; the last one is the op itself, the others the views and constants that it reads through.
        parts: Which parts of the last call's value are the outputs; None where the value is the one output.
    """

    calls: tuple[Call, ...]
    parts: tuple[int, ...] | None = None

    def __call__(self, *operands: Tensor) -> tuple[Tensor, ...]:
        """The outputs, on the device of the operands, whatever device the trace was made on."""
        device = operands[0].device if operands else torch.get_default_device()
        made: list[Any] = []
        for call in self.calls:
            args = [_filled(arg, operands, made, device) for arg in call.args]
            kwargs = {name: _filled(arg, operands, made, device) for name, arg in call.kwargs.items()}
            made.append(call.function(*args, **kwargs))
        return (made[-1],) if self.parts is None else tuple(made[-1][part] for part in self.parts)

    @property
    def options(self) -> tuple[tuple[str, Option], ...]:
        """The op's arguments besides its operands, sorted by name; what is read through views is text here."""
        last = self.calls[-1]
        schema = getattr(last.function, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema else []
        named = {names[i] if i < len(names) else f"argument{i}": arg for i, arg in enumerate(last.args)}
        named.update(last.kwargs)
        return tuple(
            (name, _option(arg, self.calls))
            for name, arg in sorted(named.items())
            if arg is not None and not isinstance(arg, (ValueRead, torch.device))
        )


def _filled(arg: Any, operands: Sequence[Tensor], made: Sequence[Any], device: torch.device) -> Any:  # noqa: ANN401
    """The argument with tensors in it."""
    match arg:
        case ValueRead():
            return operands[arg.number]
        case Made():
            return made[arg.number]
        case tuple() | list():
            return type(arg)(_filled(one, operands, made, device) for one in arg)
        case torch.device():
            return device
        case Tensor():
            return arg.to(device)
        case _:
            return arg


def _option(arg: Any, calls: Sequence[Call]) -> Option:  # noqa: ANN401
    if isinstance(arg, (bool, int, float)):
        return arg
    if isinstance(arg, (list, tuple)) and all(type(one) is int for one in arg):
        return tuple(arg)
    return _text(arg, calls)


def _text(arg: Any, calls: Sequence[Call]) -> str:  # noqa: ANN401
    """The argument, with the calls that it reads through written out."""
    written: list[str] = []
    rest = [arg]  # next one last: a chain of views may be longer than Python's stack
    while rest:
        match rest.pop():
            case ValueRead(number):
                written.append(f"#{number}")
            case Made(number):
                call = calls[number]
                parts = [[one] for one in call.args if not isinstance(one, torch.device)]
                named = [(name, one) for name, one in call.kwargs.items() if not isinstance(one, torch.device)]
                parts += [[f"{name}=", one] for name, one in named if one is not None]
                name = str(call.function) if hasattr(call.function, "_schema") else call.function.__name__
                rest += _backwards(f"{name}(", parts, ")")
            case tuple() | list() as several:
                rest += _backwards("[", [[one] for one in several], "]")
            case Tensor():
                written.append("constant")
            case GraphModule() as module:
                written.append("".join(module.code.split()))
            case one:
                written.append(str(one))
    return "".join(written)


def _backwards(opening: str, parts: Sequence[Sequence[Any]], closing: str) -> list[Any]:
    """The parts with commas between them, in brackets, last one first."""
    between = [one for part in parts for one in (",", *part)][1:]
    return [closing, *reversed(between), opening]


class Tracer:
    """Collects the calls that one op runs: its own, and the views and constants through which it reads.

    Args:
        origins: What is known of nodes of the trace: an `Operand`, a list of them for an op of several outputs, or a
            plain value. A node that is not there is a view or a constant, to be replayed.
    """

    def __init__(self, origins: Mapping[Node, Any]) -> None:
        self.origins = origins
        self.operands: dict[Operand, int] = {}
        self.calls: list[Call] = []
        self._known: dict[Node, Any] = {}

    def value(self, node: Node) -> Any:  # noqa: ANN401
        """What stands for the node's value in the arguments of a call."""
        rest = [node]  # a node comes after what it reads; no recursion, which a long chain of views would exhaust
        while rest:
            unknown = [one for one in self._inputs(rest[-1]) if one not in self._known]
            if unknown:
                rest += reversed(unknown)
                continue
            one = rest.pop()
            if one not in self._known:
                self._known[one] = self._value(one)
        return self._known[node]

    def arguments(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the named arguments of the node's call."""
        return _plain(map_arg(node.args, self.value)), _plain(map_arg(node.kwargs, self.value))

    def add(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Made:
        """Adds a call; returns what stands for its value."""
        self.calls.append(Call(function, args, kwargs))
        return Made(len(self.calls) - 1)

    def _read(self, origin: Any) -> Any:  # noqa: ANN401
        if isinstance(origin, Operand):
            return ValueRead(self.operands.setdefault(origin, len(self.operands)))
        return [self._read(one) for one in origin] if isinstance(origin, list) else origin

    def _inputs(self, node: Node) -> Sequence[Node]:
        """The nodes whose values must be known before the node's own."""
        # Parts of an op of several outputs are operands of their own: do not read the others.
        of_several = node.target is operator.getitem and isinstance(self.origins.get(node.all_input_nodes[0]), list)
        return () if node in self.origins or of_several else node.all_input_nodes

    def _value(self, node: Node) -> Any:  # noqa: ANN401
        """As `value`, for a node whose inputs are known."""
        if node in self.origins:
            return self._read(self.origins[node])
        if not self._inputs(node) and node.target is operator.getitem:
            of, index = node.args
            assert isinstance(of, Node)
            return self._read(self.origins[of][index])
        args, kwargs = self.arguments(node)
        if getattr(node.target, "_overloadpacket", None) in IDENTITY:
            return args[0]
        assert callable(node.target)
        return self.add(aten.reshape.default if node.target in AS_RESHAPE else node.target, args, kwargs)


def _plain(arg: Any) -> Any:  # noqa: ANN401
    """Arguments in plain lists, tuples and dicts: those of a trace are classes of its own."""
    if isinstance(arg, dict):
        return {name: _plain(one) for name, one in arg.items()}
    if isinstance(arg, (list, tuple)):
        plain = [_plain(one) for one in arg]
        return tuple(plain) if isinstance(arg, tuple) else plain
    return arg
