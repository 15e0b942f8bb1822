"""Small tensor programs of odd sizes, in float64, and random plans for them."""

from collections.abc import Callable, Mapping

from hypothesis import strategies as st

from placement_gym.programs import OpSplits, ProgramBuilder, Split, TensorProgram
from placement_gym.programs.split import splittable


def chain() -> TensorProgram:
    """(A x B) + (C x (D x E)), no dimension like another."""
    b = ProgramBuilder("chain", "float64")
    left = b.op("einsum", "ij,jk->ik", b.parameter("A", (7, 6)), b.parameter("B", (6, 5)))
    inner = b.op("einsum", "ij,jk->ik", b.parameter("D", (9, 8)), b.parameter("E", (8, 5)))
    right = b.op("einsum", "ij,jk->ik", b.parameter("C", (7, 9)), inner)
    return b.build(b.op("add", "ij,ij->ij", left, right))


def softmax(b: ProgramBuilder, x: int, labels: str) -> int:
    """Softmax over the last label, by its parts."""
    rows = labels[:-1]
    shifted = b.op("sub", f"{labels},{rows}->{labels}", x, b.op("max", f"{labels}->{rows}", x))
    e = b.op("exp", f"{labels}->{labels}", shifted)
    return b.op("div", f"{labels},{rows}->{labels}", e, b.op("sum", f"{labels}->{rows}", e))


def softmax_ffn() -> TensorProgram:
    """softmax(relu(x W1) W2)."""
    b = ProgramBuilder("softmax_ffn", "float64")
    h = b.op("einsum", "bd,dh->bh", b.input("x", (7, 5)), b.parameter("w1", (5, 9)))
    y = b.op("einsum", "bh,ho->bo", b.op("relu", "bh->bh", h), b.parameter("w2", (9, 6)))
    return b.build(softmax(b, y, "bo"))


def attention() -> TensorProgram:
    """Attention of 7 queries to 5 keys (of another tensor), rotated, between an RMS norm and a residual."""
    b = ProgramBuilder("attention", "float64")
    x, memory = b.input("x", (2, 7, 12)), b.input("memory", (2, 5, 12))
    power = b.op("sum", "bqm->bq", b.op("square", "bqm->bqm", x))
    scale = b.op("rsqrt", "bq->bq", b.op("affine", "bq->bq", power, options={"factor": 1 / 12, "shift": 1e-5}))
    n = b.op("mul", "bqm,m->bqm", b.op("mul", "bqm,bq->bqm", x, scale), b.parameter("gain", (12,)))
    q = b.op("einsum", "bqm,mhpd->bqhpd", n, b.parameter("wq", (12, 3, 2, 2)))
    q = b.op("rotary", "bqhpd,qd,qd->bqhpd", q, b.input("cos", (7, 2)), b.input("sin", (7, 2)), whole="p")
    k = b.op("einsum", "bkm,mhpd->bkhpd", memory, b.parameter("wk", (12, 3, 2, 2)))
    v = b.op("einsum", "bkm,mhd->bkhd", memory, b.parameter("wv", (12, 3, 4)))
    p = softmax(b, b.op("einsum", "bqhpd,bkhpd->bhqk", q, k), "bhqk")
    o = b.op("einsum", "bhqk,bkhd->bqhd", p, v)
    o = b.op("einsum", "bqhd,hdm->bqm", o, b.parameter("wo", (3, 4, 12)))
    return b.build(b.op("add", "bqm,bqm->bqm", x, o))


def embedding() -> TensorProgram:
    """A lookup, the last token and the third row of it, and gradients of the first two."""
    b = ProgramBuilder("embedding", "float64")
    table, ids = b.parameter("table", (11, 6)), b.input("ids", (3, 7), dtype="int64", n_values=11)
    rows = b.op("embedding", "vd,bs->bsd", table, ids, whole="v")
    last = b.op("select", "bsd->bd", rows, whole="s", options={"axis": 1, "index": 6})
    back = b.op("select_gradient", "bd->bsd", last, whole="s", sizes={"s": 7}, options={"axis": 1, "index": 6})
    both = b.op("add", "bsd,bsd->bsd", back, rows)
    third = b.op("select", "bsd->sd", rows, whole="b", options={"axis": 0, "index": 2})
    sizes = {"v": 11}
    dtable = b.op("embedding_gradient", "bs,bsd->vd", ids, both, whole="v", sizes=sizes, is_backward=True)
    new = b.op("sgd", "vd,vd->vd", table, dtable, options={"learning_rate": 0.5}, is_backward=True)
    return b.build(last, third, new)


def convolution() -> TensorProgram:
    """Convolution, max pooling, and the gradients of both."""
    b = ProgramBuilder("convolution", "float64")
    x, w = b.input("x", (3, 5, 8, 8)), b.parameter("w", (7, 5, 3, 3))
    same = {"stride": 1, "padding": 1}
    pool = {"window": 2, "stride": 2, "padding": 0}
    y = b.op("conv2d", "n c h w, o c i j -> n o k l", x, w, whole="hwijkl", sizes={"k": 8, "l": 8}, options=same)
    z = b.op("max_pool2d", "nchw->nckl", y, whole="hwkl", sizes={"k": 4, "l": 4}, options=pool)
    dy = b.op("max_pool2d_gradient", "nckl,nchw->nchw", z, y, whole="hwkl", options=pool)
    dx = b.op("conv2d_input_gradient", "nokl,ocij->nchw", dy, w, whole="hwijkl", sizes={"h": 8, "w": 8}, options=same)
    dw = b.op("conv2d_weight_gradient", "nchw,nokl->ocij", x, dy, whole="hwijkl", sizes={"i": 3, "j": 3}, options=same)
    return b.build(z, dx, dw)


def backward() -> TensorProgram:
    """Sums of products in all three directions, as in a backward pass; a mean that is expanded again."""
    b = ProgramBuilder("backward", "float64")
    x, w = b.input("x", (7, 5)), b.parameter("w", (5, 6))
    y = b.op("einsum", "bi,io->bo", x, w)
    dy = b.op("relu_gradient", "bo,bo->bo", b.op("affine", "bo->bo", y, options={"factor": 2.0, "shift": 1.0}), y)
    dw = b.op("einsum", "bi,bo->io", x, dy, is_backward=True)
    dx = b.op("einsum", "bo,io->bi", dy, w, is_backward=True)
    mean = b.op("affine", "b->b", b.op("sum", "bi->b", dx), options={"factor": 0.2, "shift": 0.0})
    wide = b.op("expand", "b->bio", mean, sizes={"i": 3, "o": 4})
    total = b.op("max", "bio->", wide)
    return b.build(b.op("sgd", "io,io->io", w, dw, options={"learning_rate": 0.1}), wide, total)


def same_tensor_twice() -> TensorProgram:
    """A tensor read twice by one op: by the same labels, by others, transposed; and a source among the outputs."""
    b = ProgramBuilder("same_tensor_twice", "float64")
    w = b.parameter("w", (7, 7))
    x = b.op("exp", "ij->ij", w)
    squared = b.op("mul", "ij,ij->ij", x, x)
    gram = b.op("einsum", "ij,kj->ik", squared, squared)
    symmetric = b.op("add", "ij,ji->ij", gram, b.op("sub", "ij,ji->ij", x, x))
    return b.build(symmetric, w, x)


PROGRAMS: Mapping[str, Callable[[], TensorProgram]] = {
    build.__name__: build
    for build in (chain, softmax_ffn, attention, embedding, convolution, backward, same_tensor_twice)
}


@st.composite
def plans(draw: st.DrawFn, program: TensorProgram) -> OpSplits:
    """Any splits: blocks need be no power of two, nor as many for every op."""
    splits = []
    for op in program.ops:
        label_blocks = [
            (label, draw(st.integers(1, min(op.label_sizes[label], 3))))
            for label in draw(st.permutations(splittable(op)))[:3]
        ]
        splits.append(Split(tuple(label_blocks)))
    return OpSplits(program, tuple(splits), "aligned")
