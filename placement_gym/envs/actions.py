"""Actions: spaces that know what is allowed now, and what becomes of an action that is not."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numba import njit
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray
from placement_gym.errors import InvalidAction

Invalid = Literal["raise", "nearest", "penalty"]


def _plain(kind: Any, size: Any, generator: np.random.Generator | None) -> Any:  # noqa: ANN401
    """A space that knows no mask, whose samples go on with a generator."""
    space = kind(size)
    space._np_random = generator
    return space


class AllowedDiscrete(spaces.Discrete):
    """Discrete whose samples are in the mask, bool [n], that `allowed` returns; a copy or a pickle is plain."""

    def __init__(self, n: int, allowed: Callable[[], NDArray[np.bool_]]) -> None:
        super().__init__(n)
        self._allowed = allowed

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:  # noqa: ANN401
        """An action, drawn evenly among the allowed ones unless the caller brings a mask or probabilities."""
        if probability is not None:
            return super().sample(mask, probability)
        return super().sample(self._allowed().astype(np.int8) if mask is None else mask)

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain, (spaces.Discrete, self.n, self._np_random)


class AllowedBatch(spaces.MultiDiscrete):
    """The batch of `AllowedDiscrete`: int64 [B], samples from the masks, bool [B, n], that `allowed` returns."""

    def __init__(self, n_rows: int, n: int, allowed: Callable[[], NDArray[np.bool_]]) -> None:
        super().__init__(np.full(n_rows, n))
        self._allowed = allowed

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.int64]:  # noqa: ANN401
        """Actions, drawn evenly among the allowed ones unless the caller brings masks or probabilities."""
        if probability is not None or mask is not None:
            drawn: NDArray[np.int64] = super().sample(mask, probability)
            return drawn
        # The largest of random keys among the allowed ones is an even draw.
        allowed = self._allowed()
        keys = np.where(allowed, self.np_random.random(allowed.shape), -1.0)
        return np.asarray(keys.argmax(axis=1), np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain, (spaces.MultiDiscrete, self.nvec, self._np_random)


def whole_numbers(actions: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:  # noqa: ANN401
    """int64 array of that shape, a copy.

    Raises:
        InvalidAction: Another shape, or no whole numbers.
    """
    try:
        given = np.asarray(actions)
    except (ValueError, TypeError) as error:
        raise InvalidAction(f"the action is no array ({error}); expected whole numbers of shape {shape}") from error
    # NumPy makes a number of a bool among numbers.
    has_bool = isinstance(actions, list | tuple) and any(np.asarray(one).dtype == bool for one in actions)
    if given.shape != shape or given.dtype.kind not in "iu" or has_bool:
        raise InvalidAction(
            f"the action has shape {given.shape} and dtype {'bool' if has_bool else given.dtype}; expected whole "
            f"numbers of shape {shape}"
        )
    return given.astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def first_wrong(mask: np.ndarray, actions: np.ndarray, active: np.ndarray) -> int:
    """The first row where active whose action, int64 [B], is not in its mask, bool [B, n]; -1 if there is none."""
    for b in range(actions.size):
        if active[b] and not (0 <= actions[b] < mask.shape[1] and mask[b, actions[b]]):
            return b
    return -1


def nearest_allowed(mask: BoolArray, actions: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Replaces the actions of those rows by the allowed ones of nearest number, the lower of two."""
    for row in rows.tolist():
        allowed = np.flatnonzero(mask[row])
        actions[row] = allowed[np.argmin(np.abs(allowed - actions[row]))]
