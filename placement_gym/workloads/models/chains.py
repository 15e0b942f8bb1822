"""Chains of matrix products: the small programs of DOPPLER (Yao et al., 2025, section 6)."""

from placement_gym.programs import ProgramBuilder, TensorProgram
from placement_gym.workloads.models.layers import check_sizes, finished, softmax


def chain_mm(size: int = 10000) -> TensorProgram:
    """(A x B) + (C x (D x E)), all [size, size], all inputs.

    Raises:
        InvalidOption: A size below 1.
    """
    check_sizes("chain_mm", size=size)
    p = ProgramBuilder("chain_mm")
    a, b, c, d, e = (p.input(name, [size, size]) for name in "ABCDE")
    left = p.op("einsum", "ij,jk->ik", a, b, name="AB")
    inner = p.op("einsum", "ij,jk->ik", d, e, name="DE")
    right = p.op("einsum", "ij,jk->ik", c, inner, name="CDE")
    return p.build(p.op("add", "ik,ik->ik", left, right, name="sum"))


def ffnn(*, batch: int = 32768, width: int = 32, hidden: int = 65536, training: bool = False) -> TensorProgram:
    """A network of one wide hidden layer: softmax(relu(X W1) W2).

    Args:
        batch: Rows of X.
        width: Columns of X and of the result.
        hidden: Columns of W1.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1.
    """
    check_sizes("ffnn", batch=batch, width=width, hidden=hidden)
    p = ProgramBuilder("ffnn")
    x = p.input("X", [batch, width])
    up = p.op("einsum", "bi,ih->bh", x, p.parameter("W1", [width, hidden]), name="up")
    down = p.op("einsum", "bh,ho->bo", p.op("relu", "bh->bh", up), p.parameter("W2", [hidden, width]), name="down")
    return finished(p, softmax(p, down, "bo", "o"), with_training=training)
