"""Array types, and read-only copies for frozen nouns."""

from __future__ import annotations

from collections.abc import Sequence
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


def filled(values: ArrayLike | Sequence[float | None] | None, derived: FloatArray) -> FloatArray:
    """The values, with what was derived where none (None) is given; a scalar holds for every entry."""
    if values is None:
        return derived
    if isinstance(values, list | tuple) and any(value is None for value in values):
        if len(values) != len(derived):
            raise ValueError(f"{len(values)} values; expected {len(derived)}")
        values = [own if value is None else value for value, own in zip(values, derived, strict=True)]
    return np.broadcast_to(np.asarray(values, dtype=np.float64), derived.shape)
