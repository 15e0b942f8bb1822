"""Array types, and read-only copies for frozen nouns."""

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
