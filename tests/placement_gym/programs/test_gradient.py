"""Backward passes against torch's autograd of plain torch expressions, in double precision."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TINY, tiny
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.testing import assert_close

from placement_gym.errors import InvalidOption, InvalidProgram
from placement_gym.op_kernel import Option
from placement_gym.programs import ProgramBuilder, TensorProgram, training
from placement_gym.programs.functions import FUNCTIONS
from placement_gym.programs.rules import CONSTANT, RULES
from placement_gym.pytorch.programs import random_sources, run_program

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def _values(program: TensorProgram) -> dict[str, Tensor]:
    return random_sources(program.named_sources, seed=1)


def _parameters(program: TensorProgram) -> list[str]:
    return [op.name for op in program.ops if op.kind == "parameter"]


def _outputs(program: TensorProgram, values: Mapping[str, Tensor]) -> list[Tensor]:
    """One tensor per output; one op may be several."""
    made = run_program(program, values)
    return [made[program.ops[number].name] for number in program.outputs]


def _check(program: TensorProgram, plain: Callable[..., Tensor]) -> None:
    """One output: equal to `plain` of the sources, its parameters' gradients equal to autograd's of `plain`."""
    trained = training(program)
    values = _values(trained)
    names = _parameters(program)
    leaves = {name: values[name].clone().requires_grad_(name in names) for name in program.named_sources}
    expected = plain(*leaves.values())
    (output,) = program.outputs
    name = program.ops[output].name
    gradients = torch.autograd.grad(expected, [leaves[name] for name in names], values[f"gradient.{name}"])
    made = _outputs(trained, values)
    assert_close(made[0], expected.detach(), **EXACT)
    for one, gradient in zip(made[1:], gradients, strict=True):
        assert_close(one, gradient, **EXACT)
        assert one.is_contiguous()


@dataclass(frozen=True)
class Case:
    """One function: labels, shapes of its arguments, and the same in plain torch."""

    function: str
    labels: str
    shapes: Sequence[tuple[int, ...]]
    plain: Callable[..., Tensor]
    whole: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    n_parameters: int = 2
    positive: bool = False

    def program(self, summed: str = "") -> TensorProgram:
        """Parameters, the function, and a sum over some of the result's labels."""
        p = ProgramBuilder("case", "float64")
        inputs = [
            (p.parameter if k < self.n_parameters else p.input)(f"x{k}", shape) for k, shape in enumerate(self.shapes)
        ]
        if self.positive:
            axes = [tuple("abcd"[: len(shape)]) for shape in self.shapes]
            inputs = [p.op("exp", ([labels], labels), x) for x, labels in zip(inputs, axes, strict=True)]
        y = p.op(self.function, self.labels, *inputs, whole=self.whole, sizes=self.sizes, options=self.options)
        made = self.labels.partition("->")[2]
        if summed:
            y = p.op("sum", f"{made}->{made.replace(summed, '')}", y)
        return p.build(y)

    def expected(self, *values: Tensor, summed: str = "") -> Tensor:
        """In plain torch."""
        y = self.plain(*(value.exp() for value in values)) if self.positive else self.plain(*values)
        return y.sum(self.labels.partition("->")[2].index(summed)) if summed else y


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[s, n, 2, d] by angles of [s, d]: as complex numbers."""
    number = torch.complex(x[..., 0, :], x[..., 1, :]) * torch.complex(cos, sin)[:, None]
    return torch.stack([number.real, number.imag], -2)


AB = [(3, 5)]
UNARY = {
    "exp": torch.exp,
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * torch.special.ndtr(x),
    "silu": lambda x: x * torch.sigmoid(x),
    "tanh": lambda x: 2 * torch.sigmoid(2 * x) - 1,
    "square": lambda x: x * x,
}
CASES = {
    **{name: Case(name, "ab->ab", AB, plain) for name, plain in UNARY.items()},
    **{f"{name} turned": Case(name, "ab->ba", AB, lambda x, plain=plain: plain(x).T) for name, plain in UNARY.items()},
    "log": Case("log", "ab->ab", AB, torch.log, positive=True),
    "log turned": Case("log", "ab->ba", AB, lambda x: x.log().T, positive=True),
    "rsqrt": Case("rsqrt", "ab->ab", AB, lambda x: x**-0.5, positive=True),
    "rsqrt turned": Case("rsqrt", "ab->ba", AB, lambda x: x.T**-0.5, positive=True),
    "affine": Case("affine", "ab->ab", AB, lambda x: 3 * x - 2, options={"factor": 3.0, "shift": -2.0}),
    "affine turned": Case("affine", "ab->ba", AB, lambda x: x.T + 1, options={"factor": 1.0, "shift": 1.0}),
    "expand": Case("expand", "ab->cbda", AB, lambda x: x.T[None, :, None].expand(2, 5, 4, 3), sizes={"c": 2, "d": 4}),
    "add": Case("add", "ab,ab->ab", [(3, 5), (3, 5)], lambda x, y: x + y),
    "add repeated": Case("add", "ab,ca->abc", [(3, 5), (2, 3)], lambda x, y: x[:, :, None] + y.T[:, None]),
    "sub": Case("sub", "ab,ba->ab", [(3, 5), (5, 3)], lambda x, y: x - y.T),
    "sub repeated": Case("sub", "a,ab->ba", [(3,), (3, 5)], lambda x, y: x - y.T),
    "mul": Case("mul", "ab,ab->ba", [(3, 5), (3, 5)], lambda x, y: (x * y).T),
    "mul repeated": Case("mul", "abc,c->abc", [(3, 5, 2), (2,)], lambda x, y: x * y),
    "mul outer": Case("mul", "ab,c->cab", [(3, 5), (2,)], lambda x, y: x * y[:, None, None]),
    "div": Case("div", "ab,ab->ab", [(3, 5), (3, 5)], lambda x, y: x / y, positive=True),
    "div repeated": Case("div", "abc,ac->abc", [(3, 5, 2), (3, 2)], lambda x, y: x / y[:, None], positive=True),
    "div outer": Case("div", "b,ca->abc", [(5,), (2, 3)], lambda x, y: x[:, None] / y.T[:, None], positive=True),
    "einsum": Case("einsum", "ab,bc->ac", [(3, 5), (5, 2)], lambda x, y: x @ y),
    "einsum batched": Case("einsum", "bqnd,bknd->bnqk", [(2, 3, 4, 5), (2, 6, 4, 5)],
                           lambda x, y: x.transpose(1, 2) @ y.transpose(1, 2).mT),
    "einsum all": Case("einsum", "ab,ba->", [(3, 5), (5, 3)], lambda x, y: (x * y.T).sum()),
    "einsum none": Case("einsum", "a,b->ba", [(3,), (5,)], lambda x, y: y[:, None] * x),
    "conv2d": Case("conv2d", "nchw,ocij->nopq", [(2, 3, 7, 9), (4, 3, 3, 3)],
                   lambda x, w: F.conv2d(x, w, stride=2, padding=1),
                   "hwijpq", {"p": 4, "q": 5}, {"stride": 2, "padding": 1}),
    "conv2d uneven": Case("conv2d", "nchw,ocij->nopq", [(2, 3, 8, 6), (4, 3, 3, 1)],
                          lambda x, w: F.conv2d(x, w, stride=3),
                          "hwijpq", {"p": 2, "q": 2}, {"stride": 3, "padding": 0}),
    "rotary": Case("rotary", "snrd,sd,sd->snrd", [(3, 4, 2, 5), (3, 5), (3, 5)], _rotated, "r", n_parameters=1),
    "rotary turned": Case("rotary", "nsrd,sd,sd->snrd", [(4, 3, 2, 5), (3, 5), (3, 5)],
                          lambda x, c, s: _rotated(x.transpose(0, 1), c, s), "r", n_parameters=1),
    "rotary_inverse": Case("rotary_inverse", "snrd,sd,sd->snrd", [(3, 4, 2, 5), (3, 5), (3, 5)],
                           lambda x, c, s: _rotated(x, c, -s), "r", n_parameters=1),
    "sum": Case("sum", "abc->b", [(3, 5, 2)], lambda x: x.sum((0, 2))),
    "sum turned": Case("sum", "abc->ca", [(3, 5, 2)], lambda x: x.sum(1).T),
    "select": Case("select", "abc->ac", [(3, 5, 2)], lambda x: x[:, 4], "b", options={"axis": 1, "index": 4}),
    "max_pool2d": Case("max_pool2d", "nchw->ncpq", [(2, 3, 7, 9)], lambda x: F.max_pool2d(x, 3, 2, 1),
                       "hwpq", {"p": 4, "q": 5}, {"window": 3, "stride": 2, "padding": 1}),
}  # fmt: skip


def _runs() -> list[tuple[str, str]]:
    """Every case alone, then with its result summed over each of its labels, so that dy lacks that label."""
    return [(name, summed) for name, case in CASES.items() for summed in ("", *case.labels.partition("->")[2])]


@pytest.mark.parametrize(("name", "summed"), _runs())
def test_every_rule_gives_autograds_gradient(name: str, summed: str) -> None:
    """Forward code and gradients of all arguments equal plain torch's, whichever labels of dy are missing."""
    case = CASES[name]
    _check(case.program(summed), lambda *x: case.expected(*x, summed=summed))


def test_every_function_has_a_case_or_no_rule() -> None:
    """Functions without a rule are those of backward passes, and `max`, which counts as a constant."""
    assert set(RULES) == {case.function for case in CASES.values()} | {"embedding"}
    others = set(FUNCTIONS) - set(RULES) - CONSTANT
    assert {name for name in others if not name.endswith("_gradient")} == {"sgd"}


def test_embedding_adds_the_rows_of_an_id_that_appears_twice() -> None:
    """A table's gradient is the sum over the ids that name a row, whole or after a sum."""
    for summed in (False, True):
        p = ProgramBuilder("rows", "float64")
        table, ids = p.parameter("table", [4, 3]), p.input("ids", [2, 5], dtype="int64", n_values=4)
        y = p.op("embedding", "vw,bs->bsw", table, ids, whole="v")
        program = p.build(p.op("sum", "bsw->bw", y) if summed else y)
        _check(program, lambda table, ids: table[ids].sum(1) if summed else table[ids])  # noqa: B023


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """Labels of two arguments, of a result in any order, and which of them are summed over afterwards."""
    a = draw(st.permutations("abcd").map("".join)).replace(draw(st.sampled_from("abcd")), "")
    b = "".join(draw(st.permutations("abcd")))[: draw(st.integers(0, 4))]
    made = "".join(draw(st.permutations(sorted({*a, *b}))))
    lost = draw(st.sets(st.sampled_from(made), max_size=len(made)))
    return a, b, made, "".join(sorted(lost))


@settings(max_examples=60, deadline=None)
@given(labels=_pairs(), function=st.sampled_from(["add", "sub", "mul", "div"]), power=st.booleans())
def test_repeated_arguments_in_any_order_of_labels(
    labels: tuple[str, str, str, str], function: str, power: bool
) -> None:
    """Any labels of two arguments, any labels missing from dy, a result that is read twice: autograd's gradients."""
    first, second, made, lost = labels
    size = {"a": 2, "b": 3, "c": 1, "d": 4}
    p = ProgramBuilder("pair", "float64")
    x = p.parameter("x", [size[label] for label in first])
    y = p.parameter("y", [size[label] for label in second])
    positive = p.op("exp", ([tuple(second)], tuple(second)), y)
    z = p.op(function, ([tuple(first), tuple(second)], tuple(made)), x, positive)
    left = "".join(label for label in made if label not in lost)
    total = p.op("sum", f"{made}->{left}", z) if lost else z
    if power:
        # The result has two readers, one of which gives a gradient that lacks labels.
        total = p.op("mul", ([tuple(made), tuple(left)], tuple(made)), z, total)

    def plain(x: Tensor, y: Tensor) -> Tensor:
        def laid_out(tensor: Tensor, own: str) -> Tensor:
            order = [own.index(label) for label in made if label in own]
            return tensor.permute(order).reshape([size[label] if label in own else 1 for label in made])

        operator: Callable[[Tensor, Tensor], Tensor] = getattr(torch, function)
        z = operator(laid_out(x, first), laid_out(y.exp(), second))
        axes = [made.index(label) for label in lost]
        if power:
            return z * (z.sum(axes, keepdim=True) if axes else z)
        return z.sum(axes) if axes else z

    _check(p.build(total), plain)


def test_gradients_of_several_readers_are_added() -> None:
    """A tensor read three times, one argument twice, has the sum of the parts; each addition is an op."""
    p = ProgramBuilder("readers", "float64")
    x = p.parameter("x", [3, 5])
    y = p.op("mul", "ab,ab->ab", x, x)
    program = p.build(p.op("add", "ab,a->ab", y, p.op("sum", "ab->a", x)))
    _check(program, lambda x: x * x + x.sum(1, keepdim=True))
    backward = [op for op in training(program).ops if op.is_backward]
    assert [op.function for op in backward].count("add") == 2


def test_what_lacks_labels_is_added_before_it_is_repeated() -> None:
    """Two sums of one tensor: their gradients are joined by one addition, which repeats neither beforehand."""
    p = ProgramBuilder("sums", "float64")
    x = p.parameter("x", [3, 5])
    program = p.build(p.op("add", "a,b->ab", p.op("sum", "ab->a", x), p.op("sum", "ab->b", x)))
    _check(program, lambda x: x.sum(1)[:, None] + x.sum(0))
    functions = [op.function for op in training(program).ops if op.is_backward]
    assert functions.count("add") == 1
    assert "expand" not in functions


def test_names_numbers_and_kinds_of_a_backward_pass() -> None:
    """Forward ops keep their numbers; backward ops carry the forward op's name; a gain's gradient is one einsum."""
    p = ProgramBuilder("norm")
    x, w, gain = p.input("x", [3, 5]), p.parameter("w", [5, 7]), p.parameter("gain", [7])
    with p.scope("layer"):
        y = p.op("mul", "bo,o->bo", p.op("einsum", "bi,io->bo", x, w), gain)
    program = p.build(y)
    trained = training(program)
    assert trained.ops[: len(program.ops)] == program.ops
    assert [(op.name, op.function) for op in trained.ops[len(program.ops) :]] == [
        ("gradient.layer.mul", ""),
        ("backward.layer.mul.mul", "mul"),
        ("backward.layer.mul.einsum", "einsum"),
        ("backward.layer.einsum.einsum", "einsum"),
    ]
    assert [op.is_backward for op in trained.ops if not op.is_source] == [False] * 2 + [True] * 3
    # The batch is the label that is summed over: splitting it leaves partial gradients.
    assert [trained.ops[i].reduced for i in trained.outputs[1:]] == [("b",), ("b",)]
    assert [trained.ops[i].shape for i in trained.outputs] == [(3, 7), (5, 7), (7,)]


def test_only_what_leads_to_a_parameter_has_a_gradient() -> None:
    """No gradient of an input, none through it, and no cotangent for an output that depends on no parameter."""
    program = tiny("vgg19")
    functions = [op.function for op in training(program).ops]
    assert functions.count("conv2d_weight_gradient") == functions.count("conv2d") == 16
    assert functions.count("conv2d_input_gradient") == 15
    p = ProgramBuilder("two")
    x, w = p.input("x", [3]), p.parameter("w", [3])
    trained = training(p.build(p.op("exp", "a->a", x), p.op("mul", "a,a->a", x, w)))
    assert [op.name for op in trained.ops if op.name.startswith("gradient.")] == ["gradient.mul"]


def test_a_parameter_that_is_an_output_has_its_cotangent() -> None:
    """The gradient of an output that nothing computes is what comes in."""
    p = ProgramBuilder("same", "float64")
    w = p.parameter("w", [3])
    program = training(p.build(w), learning_rate=0.5)
    values = _values(program)
    assert_close(run_program(program, values)["backward.w.sgd"], values["w"] - 0.5 * values["gradient.w"])


@pytest.mark.parametrize("model", [name for name in TINY if name != "chain_mm"])
def test_gradients_of_every_model_are_autograds(model: str) -> None:
    """All outputs' cotangents at once; every parameter's gradient has its shape and autograd's values."""
    program = tiny(model)
    trained = training(program)
    values = _values(trained)
    names = _parameters(program)
    leaves = {name: value.clone().requires_grad_(name in names) for name, value in values.items()}
    outputs = run_program(program, leaves)
    cotangents = [values[f"gradient.{name}"] for name in outputs]
    gradients = torch.autograd.grad(list(outputs.values()), [leaves[name] for name in names], cotangents)
    made = _outputs(trained, values)
    assert len(made) == len(outputs) + len(names)
    for name, one, expected in zip(names, made[len(outputs) :], gradients, strict=True):
        assert one.shape == values[name].shape
        # What is added to every key changes no softmax, and a shift may be undone by the next norm; all else matters.
        assert (float(expected.abs().max()) > 1e-6) != name.endswith("key.bias") or name.endswith("shift")
        scale = float(expected.abs().max())
        assert_close(
            one, expected, rtol=1e-9, atol=1e-10 * max(scale, 1.0), msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_step_of_gradient_descent() -> None:
    """With a learning rate the outputs are new parameters, w - rate * gradient; a larger one moves further."""
    program = tiny("ffnn")
    values = _values(training(program))
    plain = list(run_program(training(program), values).values())
    stepped = run_program(training(program, learning_rate=0.25), values)
    assert list(stepped)[1:] == ["backward.W1.sgd", "backward.W2.sgd"]
    for name, new, gradient in zip(("W1", "W2"), list(stepped.values())[1:], plain[1:], strict=True):
        assert_close(new, values[name] - 0.25 * gradient, **EXACT)


def test_a_backward_pass_costs_twice_the_forward() -> None:
    """Two products of the same size for each product, but for the input's gradient, which is not asked for."""
    p = ProgramBuilder("layers")
    x = p.input("x", [8, 8])
    for _ in range(3):
        x = p.op("einsum", "ij,jk->ik", x, p.parameter("w", [8, 8]))
    program = p.build(x)
    assert training(program).flops == program.flops * (3 + 3 + 2) / 3


def test_what_has_no_gradient_is_said() -> None:
    """No parameter, a parameter that leads nowhere, second derivatives, angles, a learning rate below zero."""
    with pytest.raises(InvalidProgram, match="chain_mm: there is no parameter to train"):
        training(tiny("chain_mm"))
    with pytest.raises(InvalidProgram, match=r"ffnn: op 'backward.+no rule for '\w+': there are no second derivatives"):
        training(training(tiny("ffnn"), learning_rate=0.1))
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidOption, match=f"learning_rate is {rate}; expected a positive number or None"):
            training(tiny("ffnn"), learning_rate=rate)
    p = ProgramBuilder("idle")
    x, w = p.parameter("x", [3, 2]), p.parameter("w", [3])
    y = p.op("sub", "ab,a->ab", x, p.op("max", "ab->a", p.op("mul", "ab,a->ab", x, w)))
    with pytest.raises(InvalidProgram, match="idle: parameter 'w' leads to no output; its gradient is zero"):
        training(p.build(y))
    p = ProgramBuilder("angles")
    x, cos, sin = p.input("x", [2, 3]), p.parameter("cos", [3]), p.input("sin", [3])
    with pytest.raises(
        InvalidProgram, match="op 'rotary': the angles of 'rotary' lead to a parameter; no rule for them"
    ):
        training(p.build(p.op("rotary", "rd,d,d->rd", x, cos, sin, whole="r")))
