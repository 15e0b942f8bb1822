"""Process: what the actions of one kind of environment do, for B episodes side by side."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.device_features import N_FEATURES, describe
from placement_gym.envs.observation import Sizes
from placement_gym.envs.stack import ProblemStack, StackArrays, corner_of, problem_at, write_corner
from placement_gym.simulator.partial import PartialPlacement, clear_row, put

# Numbers of episodes.
Rows = NDArray[np.int64]


@njit(cache=True, error_model="numpy", _nrt=False)
def _clear(stack: StackArrays, s: PartialPlacement, rows: np.ndarray, place: np.ndarray) -> None:
    for b in rows:
        clear_row(problem_at(stack, place[b]).partial, s, b)


@njit(cache=True, error_model="numpy", _nrt=False)
def _put(stack: StackArrays, s: PartialPlacement, place: int, row: int, op: int, device: int) -> None:
    put(problem_at(stack, place).partial, s, row, op, device)


@njit(cache=True, error_model="numpy", _nrt=False)
def _describe(
    stack: StackArrays, s: PartialPlacement, place: int, row: int, op: int, features: np.ndarray, mask: np.ndarray
) -> None:
    describe(problem_at(stack, place), s, row, op, row, features, mask)


class Process(ABC):
    """B episodes, each of a problem of a stack; an environment is a subclass of this and of `PlacementEnv`.

    All arrays among the attributes (not those in `shared`) have the episode as axis 0: `save_row` and `load_row` go by
    that. They are written in place, so that views of them stay good; `fit` is the exception.

    Attributes:
        shared: Arrays of the subclass that have the place of the stack as axis 0; `new_problem` writes them.
        complete: Whether placements are complete all the time, so that each step is evaluated.
        place: int64 [B], where the problem of each episode is in the stack.
        partial: The placements, with their clock.
        phase: int8 [B, 1], see `observation.SELECT`.
        op: int32 [B, 1], the op that is placed next, -1 for none.
        mask: bool [B, n_actions], what is allowed next.
        features: float32 [B, n_described, N_FEATURES], of the first actions.
        steps: int64 [B], steps since the episode began.
        done: bool [B], whether the episode is over; masks and features are then those of the last step.
    """

    complete: ClassVar[bool] = False

    def __init__(self, stack: ProblemStack, n_rows: int) -> None:
        self.stack, self.n_rows = stack, n_rows
        self.shared: dict[str, NDArray[Any]] = {}
        self.place = np.zeros(n_rows, np.int64)
        self.partial = PartialPlacement.empty(n_rows, stack.sizes.n_ops, stack.sizes.n_devices, 0, 0, 0, 0)
        self.phase = np.zeros((n_rows, 1), np.int8)
        self.op = np.full((n_rows, 1), -1, np.int32)
        self.mask = np.zeros((n_rows, self.n_actions(stack.sizes)), np.bool_)
        self.features = np.zeros((n_rows, self.n_described(stack.sizes), N_FEATURES), np.float32)
        self.steps = np.zeros(n_rows, np.int64)
        self.done = np.zeros(n_rows, np.bool_)

    @classmethod
    @abstractmethod
    def n_actions(cls, sizes: Sizes) -> int:
        """Actions of the space `Discrete(n_actions)`, for the largest problem."""

    @classmethod
    def n_described(cls, sizes: Sizes) -> int:
        """How many actions, from the first on, have a row in `features`: one per device unless said otherwise."""
        return sizes.n_devices

    @abstractmethod
    def begin(self, rows: Rows, generators: Sequence[np.random.Generator]) -> None:
        """Begins the episodes of these rows, int64 [any], whose `place` is set; writes all other arrays.

        generators[b] is that of episode b, for what its beginning draws.
        """

    @abstractmethod
    def step(self, actions: NDArray[np.int64], active: BoolArray) -> None:
        """Does actions[b], which `mask` allows, in each episode where active, bool [B]; writes all arrays."""

    def widen(self, n_places: int) -> None:
        """Makes room for so many places in `shared`."""
        for key, array in self.shared.items():
            if len(array) < n_places:
                self.shared[key] = np.zeros((n_places, *array.shape[1:]), array.dtype)
                self.shared[key][: len(array)] = array

    @abstractmethod
    def n_steps(self, place: int) -> int:
        """The most steps of an episode of the problem at that place of the stack."""

    def n_decisions(self, place: int) -> int:
        """Ops of the problem at that place of the stack; its groups, where an action places a group."""
        entry = self.stack.entry(place)
        return entry.groups.n_groups if self.stack.by_group else entry.problem.n_ops

    def new_problem(self, place: int) -> None:  # noqa: B027
        """Called after a problem was put on a place of the stack: compute what holds for the whole problem."""

    def evaluated(self, rows: Rows, makespan_s: FloatArray, objective_s: FloatArray, overfull: BoolArray) -> None:  # noqa: B027
        """Called with what the whole placements of these rows were found to be; arrays [len(rows)]."""

    def priorities(self, rows: Rows) -> FloatArray | None:  # noqa: ARG002
        """float64 [len(rows), n_ops], ranks of ops of those episodes, all of one problem; None if they choose none."""
        return None

    def info(self, rows: Rows) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        """What the last info of those episodes says beside the usual; axis 0 is the row."""
        return {}

    # For processes that are written without Numba; others call the same kernels for all rows at once.

    def clear(self, rows: Rows) -> None:
        """Takes everything off the devices of these rows, int64 [any]."""
        _clear(self.stack.arrays, self.partial, rows, self.place)

    def put(self, row: int, op: int, device: int) -> None:
        """Puts an op, whose inputs are placed, on a device that `mask` allowed, after all that was put there before."""
        _put(self.stack.arrays, self.partial, int(self.place[row]), row, int(op), int(device))

    def home(self, row: int, op: int) -> int:
        """The device of an op whose group has one, where an action places a group; -1 if an action has to choose it."""
        if not self.stack.by_group:
            return -1
        return int(self.partial.group_device[row, self.stack.entry(int(self.place[row])).groups.op_group[op]])

    def describe(self, row: int, op: int) -> None:
        """Writes features and mask of a row for the placement of an op, whose inputs are placed: a column a device."""
        place, op = int(self.place[row]), int(op)
        self.mask[row], self.features[row] = False, 0.0
        _describe(self.stack.arrays, self.partial, place, row, op, self.features, self.mask)

    @property
    def op_device(self) -> IntArray:
        """int32 [B, max_ops], device of each op, -1 for none."""
        return self.partial.clock.op_device

    def fit(self) -> None:
        """Makes room in `partial` for the largest problem of the stack."""
        arrays, sizes, old = self.stack.arrays, self.stack.sizes, self.partial
        assert arrays is not None
        wanted = (
            arrays.group_memory.shape[1],
            int(arrays.slots.max()),
            int(arrays.tensor.max(initial=-1)) + 1 if arrays.copies.any() else 0,
            int(arrays.channels.max(initial=-1)) + 1,
        )
        has = (old.group_device.shape[1], old.slot_free.shape[2], *(a.shape[1] for a in old.clock[2:]))
        if all(a >= b for a, b in zip(has, wanted, strict=True)):
            return
        room = [max(a, b) for a, b in zip(has, wanted, strict=True)]
        self.partial = PartialPlacement.empty(self.n_rows, sizes.n_ops, sizes.n_devices, *room)
        for new, kept in zip((*self.partial.clock, *self.partial[1:]), (*old.clock, *old[1:]), strict=True):
            new[...] = 0
            write_corner(new, kept)
        self.partial.slot_free[:, :, old.slot_free.shape[2] :] = np.inf

    def _row_arrays(self) -> list[NDArray[Any]]:
        """All arrays that have the episode as axis 0, but for `place`."""
        own = [value for name, value in sorted(vars(self).items()) if isinstance(value, np.ndarray) and name != "place"]
        return [*self.partial.clock, *self.partial[1:], *own]

    def save_row(self, row: int) -> tuple[NDArray[Any], ...]:
        """Copies of all that is known of an episode but its problem."""
        return tuple(array[row].copy() for array in self._row_arrays())

    def load_row(self, row: int, saved: tuple[NDArray[Any], ...]) -> None:
        """Goes on where `save_row` was called, perhaps of another row or another object; `place` is set already."""
        self.partial.slot_free[row] = np.inf  # of all that may be missing in a smaller state, only slots are looked at
        for array, kept in zip(self._row_arrays(), saved, strict=True):
            width = tuple(min(a, b) for a, b in zip(array.shape[1:], kept.shape, strict=True))
            write_corner(array[row : row + 1], np.asarray(kept)[None][corner_of((1, *width))])
