"""Action spaces that know the environment's mask: `sample()` draws an action that is allowed now."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Mask = Callable[[], NDArray[np.bool_]]


class AllowedDiscrete(spaces.Discrete):
    """Discrete whose samples are in the mask, bool [n], that `allowed` returns."""

    def __init__(self, n: int, allowed: Mask) -> None:
        super().__init__(n)
        self._allowed = allowed

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:  # noqa: ANN401
        """An action, drawn evenly among the allowed ones unless the caller brings a mask or probabilities."""
        if probability is not None:
            return super().sample(mask, probability)
        return super().sample(self._allowed().astype(np.int8) if mask is None else mask)


class AllowedMultiDiscrete(spaces.MultiDiscrete):
    """MultiDiscrete whose samples are in the mask, bool [sum(nvec)], that `allowed` returns, one part after another."""

    def __init__(self, nvec: list[int], allowed: Mask) -> None:
        super().__init__(nvec)
        self._allowed = allowed

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.int64]:  # noqa: ANN401
        """An action, each part drawn evenly among the allowed ones unless the caller brings masks or probabilities."""
        if probability is not None:
            drawn: NDArray[np.int64] = super().sample(mask, probability)
            return drawn
        if mask is None:
            mask = tuple(np.split(self._allowed().astype(np.int8), np.cumsum(self.nvec)[:-1]))
        drawn = super().sample(mask)
        return drawn
