"""Tensor programs: labels, checks, FLOPs and bytes."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from placement_gym.errors import InvalidProgram
from placement_gym.programs import ProgramBuilder, TensorProgram
from placement_gym.programs.functions import FUNCTIONS, KINDS
from placement_gym.programs.program import parse_labels


def _product() -> TensorProgram:
    """A product of [2, 3] and [3, 4]."""
    p = ProgramBuilder("product")
    x, w = p.input("x", [2, 3]), p.parameter("w", [3, 4])
    return p.build(p.op("einsum", "ij,jk->ik", x, w, name="y"))


def test_labels_are_letters_or_words() -> None:
    """Letters without blanks, words with blanks; a scalar has no labels."""
    assert parse_labels("bsh,hnd->bsnd") == ((tuple("bsh"), tuple("hnd")), tuple("bsnd"))
    assert parse_labels("batch token, token -> batch") == ((("batch", "token"), ("token",)), ("batch",))
    assert parse_labels("ab,a->") == ((("a", "b"), ("a",)), ())


def test_an_op_knows_its_shape_equation_and_reduced_labels() -> None:
    """The output's shape and bytes, letters for every label, and the labels that leave partial sums when split."""
    p = ProgramBuilder("program", "float64")
    x, w = p.input("x", [2, 3, 5]), p.parameter("w", [5, 7])
    y = p.op("einsum", "batch token width, width hidden -> token batch hidden", x, w, whole=["token"])
    op = p.build(y).ops[y]
    assert (op.shape, op.n_bytes, op.equation) == ((3, 2, 7), 3 * 2 * 7 * 8, "bad,dc->abc")
    assert (op.reduced, op.all_labels, op.kind) == (("width",), ("token", "batch", "hidden", "width"), "contraction")
    assert p.build(y).sources == (0, 1)
    assert p.build(y).readers() == [[2], [2], []]
    assert p.build(y).parameter_bytes == 5 * 7 * 8


def test_names_are_unique_within_scopes() -> None:
    """Scopes are dotted; a name that is taken gets a number."""
    p = ProgramBuilder("program")
    x = p.input("x", [2])
    with p.scope("layer0"), p.scope("norm"):
        for _ in range(3):
            x = p.op("exp", "a->a", x)
        x = p.op("exp", "a->a", x, name="last")
    program = p.build(x)
    expected = ["x", "layer0.norm.exp", "layer0.norm.exp_1", "layer0.norm.exp_2", "layer0.norm.last"]
    assert [op.name for op in program.ops] == expected
    extended = ProgramBuilder.extending(program)
    extended.op("exp", "a->a", x, name="layer0.norm.exp")
    assert extended.ops[-1].name not in expected
    assert extended.build(x).ops[:5] == program.ops


def test_label_sizes_cannot_be_changed() -> None:
    """An op is immutable, its sizes included."""
    with pytest.raises(TypeError):
        _product().ops[2].label_sizes["i"] = 9  # type: ignore[index]


def test_cast_changes_real_numbers_only() -> None:
    """Every float tensor gets the format, ids stay whole numbers, bytes follow."""
    p = ProgramBuilder("rows")
    table, ids = p.parameter("table", [5, 3]), p.input("ids", [2], dtype="int64", n_values=5)
    program = p.build(p.op("embedding", "vw,b->bw", table, ids, whole="v"))
    assert [op.dtype for op in program.cast("bfloat16").ops] == ["bfloat16", "int64", "bfloat16"]
    assert program.cast("float64").parameter_bytes == 2 * program.parameter_bytes
    with pytest.raises(InvalidProgram, match=r"rows: unknown dtype of real numbers 'int64'; known: bfloat16, float16"):
        program.cast("int64")


def _flops(function: str, labels: str, *shapes: tuple[int, ...], **options: int) -> float:
    p = ProgramBuilder("program")
    inputs = [p.input(f"x{k}", shape) for k, shape in enumerate(shapes)]
    sizes = {"p": 4, "q": 5} if "p" in labels and "ncpq," not in labels and "nopq," not in labels else {}
    if function == "conv2d_input_gradient":
        sizes = {"h": 8, "w": 10}
    elif function == "conv2d_weight_gradient":
        sizes = {"i": 3, "j": 3}
    elif function == "embedding_gradient":
        sizes = {"v": 100}
    whole = "hwpqij" if "window" in options or "stride" in options else "v" if "embedding" in function else ""
    made = p.op(function, labels, *inputs, whole=[x for x in whole if x in labels], sizes=sizes, options=options)
    return p.build(made).flops


def test_flops_by_hand() -> None:
    """Two per product, one per element, window elements for pooling, output pixels for convolutions and gradients."""
    assert _product().flops == 2 * 2 * 3 * 4
    assert _flops("add", "ab,b->ab", (6, 7), (7,)) == 6 * 7
    assert _flops("exp", "ab->ba", (6, 7)) == 8 * 6 * 7
    assert _flops("sum", "ab->a", (6, 7)) == 6 * 7
    image, weight, result = (2, 3, 8, 10), (6, 3, 3, 3), (2, 6, 4, 5)
    products = 2 * 6 * 4 * 5 * 3 * 3 * 3
    assert _flops("conv2d", "nchw,ocij->nopq", image, weight, stride=2, padding=1) == 2 * products
    assert _flops("conv2d_input_gradient", "nopq,ocij->nchw", result, weight, stride=2, padding=1) == 2 * products
    assert _flops("conv2d_weight_gradient", "nchw,nopq->ocij", image, result, stride=2, padding=1) == 2 * products
    pooled = (2, 3, 4, 5)
    assert _flops("max_pool2d", "nchw->ncpq", image, window=3, stride=2, padding=1) == 2 * 3 * 4 * 5 * 9
    assert (
        _flops("max_pool2d_gradient", "ncpq,nchw->nchw", pooled, image, window=3, stride=2, padding=1)
        == 2 * 3 * 4 * 5 * 9
    )
    assert _flops("embedding", "vw,b->bw", (100, 3), (4,)) == 0
    assert _flops("embedding_gradient", "b,bw->vw", (4,), (4, 3)) == 4 * 3
    assert _product().ops[0].flops == 0


def _op(function: str, labels: str, *shapes: tuple[int, ...], whole: str = "", **options: int) -> Callable[[], object]:
    """A program of one op; capital letters of the output are labels of size 2 that no input has."""

    def build() -> TensorProgram:
        p = ProgramBuilder("bad")
        inputs = [p.input(f"x{k}", shape) for k, shape in enumerate(shapes)]
        sizes = {label: 2 for label in labels if label.isupper()}
        return p.build(p.op(function, labels, *inputs, whole=whole, sizes=sizes, options=options))

    return build


IMAGE, WEIGHT = (2, 3, 4, 4), (5, 3, 3, 3)
BUILT = [
    # Of the builder.
    (_op("nothing", "a->a", (2,)), "bad: unknown function 'nothing'; known: add, affine, "),
    (_op("exp", "a", (2,)), r"labels 'a' have no '->'; expected such as 'bsh,hnd->bsnd'"),
    (_op("exp", "ab->ab", (2,)), r"bad: exp 'ab->ab': input of shape \(2,\) has labels \('a', 'b'\)"),
    (_op("add", "a,a->a", (2,), (3,)), "bad: add 'a,a->a': label 'a' has sizes 2 and 3"),
    (_op("exp", "a->ab", (2,)), r"bad: exp 'a->ab': 1 inputs; labels of unknown size: \['b'\]"),
    (_op("add", "a,a->a", (2,)), r"bad: add 'a,a->a': 1 inputs; labels of unknown size: \[\]"),
    (lambda: ProgramBuilder("bad").op("exp", "a->a", 3), r"bad: there is no tensor 3; expected 0\.\.-1"),
    # Of the program.
    (_op("exp", "a->a", (2,), whole="z"), "bad: op 'exp': label 'z' has size None; expected >= 1"),
    (_op("exp", "a->a", (0,)), "bad: op 'x0': label 'axis0' has size 0; expected >= 1"),
    (_op("exp", "a->aa", (2,)), r"the output has a label twice: \('a', 'a'\)"),
    (_op("exp", "aa->a", (2, 2)), r"input 'x0' has shape \(2, 2\); labels \('a', 'a'\) say \(2, 2\), each label once"),
    (_op("exp", "a,a->a", (2,), (2,)), "bad: op 'exp': 2 inputs; 'exp' takes 1"),
    (_op("affine", "a->a", (2,), factor=2), r"options \['factor'\]; 'affine' needs \['factor', 'shift'\]"),
    # Of labels.
    (
        _op("einsum", "ab,bc->b", (2, 3), (3, 4)),
        r"labels \['a', 'c'\] are in one input and not in the output; sum over",
    ),
    (_op("einsum", "a,a->aZ", (2,), (2,)), r"labels \['Z'\] of the output are in no input"),
    (_op("add", "ab,b->b", (2, 3), (3,)), r"labels \['a'\] are not in the output; an elementwise op sums over nothing"),
    (_op("add", "a,a->aZ", (2,), (2,)), r"labels \['Z'\] of the output are in no input"),
    (_op("sum", "ab->ba", (2, 3)), r"a reduction's output has some of its input's labels; got \('b', 'a'\)"),
    (_op("max", "ab->aZ", (2, 3)), "a reduction's output has some of its input's labels"),
    # Of functions that know axes by position.
    (_op("rotary", "rd,d,d->rd", (2, 3), (3,), (3,)), "the label before the last must be of size 2, whole, and not in"),
    (_op("rotary", "rd,d,d->rd", (4, 3), (3,), (3,), whole="r"), "of size 2, whole, and not in the angles"),
    (_op("rotary", "d,d,d->d", (3,), (3,), (3,)), r"of size 2, whole, and not in the angles; got \('d',\)"),
    (_op("rotary", "rd,rd,d->rd", (2, 3), (2, 3), (3,), whole="r"), "of size 2, whole, and not in the angles"),
    (_op("rotary", "rd,sd,d->srd", (2, 3), (5, 3), (3,), whole="r"), "the result's labels must be those of what is"),
    (_op("max_pool2d", "ab->ab", (2, 2), window=1, stride=1, padding=0), "images and weights have 4 axes each; got"),
    (
        _op("conv2d", "nchw,oxij->noPQ", IMAGE, WEIGHT, whole="hwijPQ", stride=2, padding=1),
        "images and channels of 'conv2d' do not meet",
    ),
    (
        _op("max_pool2d", "nchw->cnPQ", IMAGE, whole="hwPQ", window=2, stride=2, padding=0),
        "images and channels of 'max_pool2d' do not meet",
    ),
    (
        _op("conv2d", "nchw,ocij->noPQ", IMAGE, WEIGHT, whole="hwij", stride=2, padding=1),
        r"labels \['P', 'Q'\] of rows and columns must be whole",
    ),
    (
        _op("conv2d", "nchw,ocij->noPQ", IMAGE, WEIGHT, whole="hwijPQ", stride=0, padding=1),
        "expected whole numbers, stride and window at least 1",
    ),
    (
        _op("conv2d", "nchw,ocij->noPQ", IMAGE, WEIGHT, whole="hwijPQ", stride=1, padding=1),
        r"4 rows or columns give 4; got 2 \('P'\)",
    ),
    (_op("embedding", "vw,b->wb", (5, 3), (4,), whole="v"), r"rows must be labelled \('b', 'w'\), those of the ids"),
    (_op("embedding", "vw,b->bw", (5, 3), (4,)), "label 'v' must be whole"),
    (_op("embedding_gradient", "b,bw->Vw", (4,), (4, 3)), "label 'V' must be whole"),
    (_op("select", "ab->b", (2, 3), whole="a", axis=2, index=0), r"axis is 2; expected one of the 2 of \('a', 'b'\)"),
    (_op("select", "ab->a", (2, 3), whole="a", axis=0, index=0), r"without axis 0, \('a', 'b'\) leaves no \('a',\)"),
    (_op("select", "ab->b", (2, 3), whole="a", axis=0, index=2), r"index is 2; expected 0\.\.1"),
    (_op("select", "ab->b", (2, 3), axis=0, index=0), "label 'a' must be whole"),
    (_op("select_gradient", "b->Ab", (3,), axis=0, index=0), "label 'A' must be whole"),
]


@pytest.mark.parametrize(("build", "message"), BUILT)
def test_what_a_builder_is_told_wrong_is_said(build: Callable[[], object], message: str) -> None:
    """Function, labels, shapes, options: one error that says what was got and expected, and where."""
    with pytest.raises(InvalidProgram, match=message):
        build()


def _changed(number: int, **changes: object) -> Callable[[], object]:
    def build() -> TensorProgram:
        ops = list(_product().ops)
        ops[number] = replace(ops[number], **changes)  # type: ignore[arg-type]
        return TensorProgram("bad", tuple(ops), (2,))

    return build


WRITTEN = [
    (_changed(1, name="x"), "bad: op name 'x' appears twice; expected unique names"),
    (_changed(1, kind="weight"), "bad: op 'w': unknown kind 'weight'; known: contraction, elementwise, gather, input"),
    (_changed(2, dtype="float8"), "bad: op 'y': unknown dtype 'float8'; known: bfloat16, bool, "),
    (_changed(1, function="exp"), "bad: op 'w': a source reads nothing and computes nothing"),
    (_changed(1, kind="gather"), "bad: op 'w': unknown function ''; known: add"),
    (_changed(2, kind="gather"), "bad: op 'y': kind is 'gather'; 'einsum' is a contraction"),
    (_changed(2, inputs=(0,)), "bad: op 'y': 1 inputs; 'einsum' takes 2"),
    (_changed(2, inputs=(0, 2)), r"bad: op 'y': it reads op 2; expected an earlier one, 0\.\.1"),
    (_changed(2, inputs=(1, 1)), r"input 'w' has shape \(3, 4\); labels \('i', 'j'\) say \(2, 3\), each label once"),
    (lambda: TensorProgram("bad", _product().ops, ()), r"bad: outputs are \(\); expected op numbers, at least one"),
    (lambda: TensorProgram("bad", _product().ops, (3,)), r"bad: outputs are \(3,\); expected op numbers"),
]


@pytest.mark.parametrize(("build", "message"), WRITTEN)
def test_a_program_that_contradicts_itself_is_refused(build: Callable[[], object], message: str) -> None:
    """Ops written without the builder are checked just so."""
    with pytest.raises(InvalidProgram, match=message):
        build()


def test_every_function_is_of_a_known_kind() -> None:
    """The table of functions names kinds that programs may have."""
    assert {function.kind for function in FUNCTIONS.values()} == set(KINDS) - {"parameter", "input"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda program: pickle.loads(pickle.dumps(program))])
def test_a_program_can_be_copied_and_pickled(copied: Callable[[TensorProgram], TensorProgram]) -> None:
    """A copy has equal ops."""
    assert copied(_product()).ops == _product().ops
