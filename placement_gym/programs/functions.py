"""The functions that programs may name: kind, arguments, FLOPs, and which are joined how when they are split.

`placement_gym.pytorch.functions` holds the torch code of each.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["parameter", "input", "contraction", "elementwise", "reduction", "gather", "window"]
KINDS: tuple[str, ...] = get_args(Kind)
Join = Literal["add", "max"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that an op may compute.

    Attributes:
        kind: Which kind of op.
        n_inputs: How many arguments.
        flops: FLOPs per index of the op's index space (all its labels, those summed over included).
        options: Names of the options that it needs.
        join: How the partial results of a split sum (or maximum) are joined.
    """

    kind: Kind
    n_inputs: int
    flops: float
    options: tuple[str, ...] = ()
    join: Join = "add"


def _elementwise(n_inputs: int, flops: float, *options: str) -> Function:
    return Function("elementwise", n_inputs, flops, options)


# A transcendental function counts as 8 FLOPs, a division or square root as 4: rough figures of vector units; such ops
# are bound by memory anyhow.
FUNCTIONS: dict[str, Function] = {
    # Sums of products. A contracted label that is split leaves partial sums.
    "einsum": Function("contraction", 2, 2),
    "conv2d": Function("contraction", 2, 2, ("stride", "padding")),
    "conv2d_input_gradient": Function("contraction", 2, 2, ("stride", "padding")),  # (dy, w) -> dx
    "conv2d_weight_gradient": Function("contraction", 2, 2, ("stride", "padding")),  # (x, dy) -> dw
    # Per element, inputs broadcast by label.
    "affine": _elementwise(1, 2, "factor", "shift"),  # factor * x + shift
    "exp": _elementwise(1, 8),
    "log": _elementwise(1, 8),
    "relu": _elementwise(1, 1),
    "gelu": _elementwise(1, 16),
    "silu": _elementwise(1, 12),
    "tanh": _elementwise(1, 8),
    "square": _elementwise(1, 1),
    "rsqrt": _elementwise(1, 4),
    "expand": _elementwise(1, 0),  # repeated along new labels
    "add": _elementwise(2, 1),
    "sub": _elementwise(2, 1),
    "mul": _elementwise(2, 1),
    "div": _elementwise(2, 4),
    "gelu_gradient": _elementwise(2, 24),  # (dy, x) -> dx
    "silu_gradient": _elementwise(2, 16),  # (dy, x) -> dx
    "relu_gradient": _elementwise(2, 1),  # (dy, y) -> dx
    "tanh_gradient": _elementwise(2, 3),  # (dy, y) -> dx
    "rsqrt_gradient": _elementwise(2, 4),  # (dy, y) -> dx
    "sgd": _elementwise(2, 2, "learning_rate"),  # (w, dw) -> w - learning_rate * dw
    # Rotary embedding (Su et al., 2021) over a label of size 2, the two halves of a head: (x, cos, sin).
    "rotary": _elementwise(3, 3),
    "rotary_inverse": _elementwise(3, 3),
    # Over labels that the output lacks.
    "sum": Function("reduction", 1, 1),
    "max": Function("reduction", 1, 1, join="max"),
    # Rows by number.
    "embedding": Function("gather", 2, 0),  # (table, ids)
    "embedding_gradient": Function("gather", 2, 1),  # (ids, dy) -> d table: a sum over the labels of ids
    "select": Function("gather", 1, 0, ("axis", "index")),  # one index of an axis
    "select_gradient": Function("gather", 1, 0, ("axis", "index")),  # zeros but for that index
    # Sliding windows.
    "max_pool2d": Function("window", 1, 1, ("window", "stride", "padding")),
    "max_pool2d_gradient": Function("window", 2, 1, ("window", "stride", "padding")),  # (dy, x) -> dx
}
