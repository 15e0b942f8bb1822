"""Layers that models share, written with a `ProgramBuilder`.

Labels: b sequence, s q k token, w feature (width), n head, r half of a head, d feature of a head, f hidden feature.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from placement_gym.errors import InvalidOption
from placement_gym.programs import ProgramBuilder, TensorProgram, training
from placement_gym.programs.program import parse_labels

Tensor = int


def finished(builder: ProgramBuilder, *outputs: Tensor, with_training: bool) -> TensorProgram:
    """The program, or its training graph."""
    program = builder.build(*outputs)
    return training(program) if with_training else program


def check_sizes(model: str, **sizes: int) -> None:
    """Says which size of a model is below one.

    Raises:
        InvalidOption: One is.
    """
    for name, size in sizes.items():
        if size < 1:
            raise InvalidOption(f"{model}: {name} is {size}; expected at least 1")


def linear(
    p: ProgramBuilder, name: str, x: Tensor, labels: str, sizes: Mapping[str, int], *, bias: bool = False
) -> Tensor:
    """A product with a weight, and a bias along those labels of the weight that the result has.

    Args:
        p: Writes the program.
        name: Scope of its ops.
        x: The input.
        labels: Of input, weight and result ("bsw,wf->bsf").
        sizes: Of the labels of the weight that the input lacks.
        bias: Whether there is one.
    """
    (read, weight), made = parse_labels(labels)
    size = {**dict(zip(read, p.shape(x), strict=True)), **sizes}
    whole = [label for label in "r" if label in (*read, *weight)]
    with p.scope(name):
        y = p.op("einsum", labels, x, p.parameter("weight", [size[label] for label in weight]), whole=whole)
        if not bias:
            return y
        shift = tuple(label for label in weight if label in made)
        return p.op("add", ([made, shift], made), y, p.parameter("bias", [size[label] for label in shift]))


def softmax(p: ProgramBuilder, x: Tensor, labels: str, over: str) -> Tensor:
    """exp(x - max) / sum of exp(x - max), max and sum over the labels `over`."""
    kept = "".join(label for label in labels if label not in over)
    with p.scope("softmax"):
        largest = p.op("max", f"{labels}->{kept}", x)
        power = p.op("exp", f"{labels}->{labels}", p.op("sub", f"{labels},{kept}->{labels}", x, largest))
        total = p.op("sum", f"{labels}->{kept}", power)
        return p.op("div", f"{labels},{kept}->{labels}", power, total)


def _over_root(p: ProgramBuilder, x: Tensor, epsilon: float) -> Tensor:
    """X over the root of its mean square plus epsilon (over the features), times a gain."""
    width = p.shape(x)[-1]
    square = p.op("sum", "bsw->bs", p.op("square", "bsw->bsw", x))
    mean = p.op("affine", "bs->bs", square, options={"factor": 1 / width, "shift": epsilon})
    normal = p.op("mul", "bsw,bs->bsw", x, p.op("rsqrt", "bs->bs", mean))
    return p.op("mul", "bsw,w->bsw", normal, p.parameter("gain", [width]))


def rms_norm(p: ProgramBuilder, name: str, x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Root mean square normalisation (Zhang and Sennrich, 2019, eq. 4) over the features of x, "bsw"."""
    with p.scope(name):
        return _over_root(p, x, epsilon)


def layer_norm(p: ProgramBuilder, name: str, x: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Layer normalisation (Ba et al., 2016) over the features of x, "bsw"."""
    width = p.shape(x)[-1]
    with p.scope(name):
        mean = p.op("affine", "bs->bs", p.op("sum", "bsw->bs", x), options={"factor": 1 / width, "shift": 0.0})
        scaled = _over_root(p, p.op("sub", "bsw,bs->bsw", x, mean), epsilon)
        return p.op("add", "bsw,w->bsw", scaled, p.parameter("shift", [width]))


@dataclass(frozen=True, slots=True)
class Attention:
    """Which attention.

    Attributes:
        n_heads: Heads; they share the width.
        bias: Whether the four products have biases.
        scaled: Whether scores are divided by the root of the head's size.
        added: What is added to the scores: tensors and their labels, of "bnqk" (masks, position biases).
        rotary: Cosines and sines of the angles, [token, half a head].
    """

    n_heads: int
    bias: bool = False
    scaled: bool = True
    added: tuple[tuple[Tensor, str], ...] = ()
    rotary: tuple[Tensor, Tensor] | None = None


def _heads(p: ProgramBuilder, form: Attention, name: str, x: Tensor, token: str) -> Tensor:
    """Queries, keys or values, "b <token> n d"; with rotary, queries and keys are "b <token> n r d"."""
    size = p.shape(x)[-1] // form.n_heads
    if form.rotary is None or name == "value":
        labels, sizes = f"b{token}w,wnd->b{token}nd", {"n": form.n_heads, "d": size}
        return linear(p, name, x, labels, sizes, bias=form.bias)
    labels, sizes = f"b{token}w,wnrd->b{token}nrd", {"n": form.n_heads, "r": 2, "d": size // 2}
    y = linear(p, name, x, labels, sizes, bias=form.bias)
    made = f"b{token}nrd"
    return p.op("rotary", f"{made},{token}d,{token}d->{made}", y, *form.rotary, name=f"{name}.rotary", whole="r")


def attention(p: ProgramBuilder, name: str, x: Tensor, memory: Tensor, form: Attention) -> Tensor:
    """Multi-head attention (Vaswani et al., 2017, section 3.2): queries from x, keys and values from memory.

    Raises:
        InvalidOption: The width has no such number of heads (with rotary: of heads of even size).
    """
    width = p.shape(x)[-1]
    parts = form.n_heads * (1 if form.rotary is None else 2)
    if width % parts:
        raise InvalidOption(f"{p.name}: width is {width}; expected a multiple of {parts} with {form.n_heads} heads")
    with p.scope(name):
        query = _heads(p, form, "query", x, "q")
        key = _heads(p, form, "key", memory, "k")
        value = _heads(p, form, "value", memory, "k")
        head = "d" if form.rotary is None else "rd"
        scores = p.op("einsum", f"bqn{head},bkn{head}->bnqk", query, key, name="scores", whole=head[:-1])
        if form.scaled:
            factor = 1 / sqrt(width // form.n_heads)
            scores = p.op("affine", "bnqk->bnqk", scores, options={"factor": factor, "shift": 0.0}, name="scale")
        for tensor, labels in form.added:
            scores = p.op("add", f"bnqk,{labels}->bnqk", scores, tensor)
        mixed = p.op("einsum", "bnqk,bknd->bqnd", softmax(p, scores, "bnqk", "k"), value, name="mix")
        return linear(p, "output", mixed, "bqnd,ndw->bqw", {"w": width}, bias=form.bias)


def feed_forward(p: ProgramBuilder, name: str, x: Tensor, hidden: int, function: str, *, bias: bool = False) -> Tensor:
    """Two products with a function between them."""
    width = p.shape(x)[-1]
    with p.scope(name):
        up = linear(p, "up", x, "bsw,wf->bsf", {"f": hidden}, bias=bias)
        return linear(p, "down", p.op(function, "bsf->bsf", up), "bsf,fw->bsw", {"w": width}, bias=bias)


def gated_feed_forward(p: ProgramBuilder, name: str, x: Tensor, hidden: int) -> Tensor:
    """SwiGLU (Shazeer, 2020, eq. 6): (silu(x G) * x U) D."""
    width = p.shape(x)[-1]
    with p.scope(name):
        gate = p.op("silu", "bsf->bsf", linear(p, "gate", x, "bsw,wf->bsf", {"f": hidden}))
        up = linear(p, "up", x, "bsw,wf->bsf", {"f": hidden})
        return linear(p, "down", p.op("mul", "bsf,bsf->bsf", gate, up), "bsf,fw->bsw", {"w": width})


def add(p: ProgramBuilder, x: Tensor, y: Tensor, name: str = "residual") -> Tensor:
    """The sum of two sequences."""
    return p.op("add", "bsw,bsw->bsw", x, y, name=name)
