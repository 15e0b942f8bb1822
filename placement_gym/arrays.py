"""Array types, and read-only copies for frozen nouns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]


def read_only(values: ArrayLike, dtype: Any) -> NDArray[Any]:  # noqa: ANN401  (any numpy dtype)
    """A private, contiguous, read-only copy of `values`."""
    array = np.array(values, dtype=dtype, order="C", copy=True)
    array.setflags(write=False)
    return array


def span(values: NDArray[Any]) -> str:
    """The smallest and the largest of some numbers, for people."""
    if values.size == 0:
        return "no"
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
