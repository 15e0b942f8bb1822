"""StaticKeys: the STATIC keys of B observations, each of its episode's problem."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement_gym.envs.observation import Observation
from placement_gym.envs.stack import Stacked


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that may not be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


# Buffers that are looked at for one that is free; older ones belong to those who hold them.
MOST_BUFFERS = 3


class _Buffer:
    """One copy of the keys, handed out as read-only views, and the rows that are not up to date in it."""

    def __init__(self, like: Observation, n_rows: int) -> None:
        self.own = {key: np.empty((n_rows, *value.shape), value.dtype) for key, value in like.items()}
        self.shown = {key: _read_only(array) for key, array in self.own.items()}
        self.stale = set(range(n_rows))
        self._holders = self._count_holders()

    def _count_holders(self) -> list[int]:
        """How many hold each array; a view of one holds the array."""
        return [sys.getrefcount(array) for array in (*self.own.values(), *self.shown.values())]

    def is_free(self) -> bool:
        """Whether nobody else holds any of the arrays, or a view of one: as many do as when they were made."""
        return self._count_holders() == self._holders


class StaticKeys:
    """The STATIC keys with the row as axis 0. What was handed out stays as it is.

    Where all rows are of one problem, the arrays are views of that problem's. Else there are a few buffers: a row with
    another problem is written into one that nobody holds any more, and a new buffer is made only if there is none.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._buffers: list[_Buffer] = []
        self.keys: Observation = {}

    def __getstate__(self) -> dict[str, Any]:
        """Buffers are not copied: in a copy, `shown` would be arrays of its own, not views."""
        return {**vars(self), "_buffers": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for array in self.keys.values():
            array.flags.writeable = False

    def write(self, entries: list[Stacked], rows: NDArray[np.int64]) -> None:
        """Takes over the problems of all rows, of which those in `rows`, int64 [any], are others than before."""
        first = entries[0]
        for buffer in self._buffers:
            buffer.stale.update(rows.tolist())
        if all(entry is first for entry in entries):
            self.keys = {
                key: np.broadcast_to(value, (self._n_rows, *value.shape)) for key, value in first.static.items()
            }
            return
        self.keys = {}
        free = next((buffer for buffer in self._buffers if buffer.is_free()), None)
        if free is None:
            free = _Buffer(first.static, self._n_rows)
            self._buffers = [*self._buffers[1 - MOST_BUFFERS :], free]
        for row in free.stale:
            for key, value in entries[row].static.items():
                free.own[key][row] = value
        free.stale.clear()
        self.keys = dict(free.shown)
