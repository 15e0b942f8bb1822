"""placement_gym/Improve-v0: a complete placement is changed step by step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.actions import Invalid
from placement_gym.envs.assign import Order, assignment_order
from placement_gym.envs.base import PlacementEnv
from placement_gym.envs.device_features import N_FEATURES
from placement_gym.envs.observation import PAIR, PLACE, SELECT, Form, Sizes
from placement_gym.envs.problems import Draw, GroupName, Path
from placement_gym.envs.process import Process, Rows
from placement_gym.envs.replay import complete_rows, describe_all, move_pairs, rebuild, visit_first, visit_next
from placement_gym.envs.reward import Reward
from placement_gym.envs.stack import ProblemStack, Stacked
from placement_gym.envs.task import task_of
from placement_gym.envs.vector import PlacementVectorEnv
from placement_gym.errors import InvalidOption, check_choice
from placement_gym.groups import Room
from placement_gym.objectives import Objective
from placement_gym.problem import Problem
from placement_gym.rule import Rule

Action = Literal["move", "rebuild"]
Visit = Literal["any", "once"]
Start = Literal["earliest_finish", "single_device", "random"]

NO_HOMES = np.zeros((0, 0, N_FEATURES), np.float32)


def check_visits(action: Action, visit: Visit, n_steps: int | None) -> None:
    """Raises InvalidOption, saying why, if these options do not go together."""
    check_choice("action", action, Action)
    check_choice("visit", visit, Visit)
    if visit == "once" and action == "rebuild":
        raise InvalidOption(
            "action is 'rebuild', visit is 'once': there would be nothing to choose; expected action='move' with it"
        )
    if visit == "once" and n_steps is not None:
        raise InvalidOption(f"n_steps is {n_steps}, visit is 'once', which has one step per op or group; expected None")
    whole = isinstance(n_steps, (int, np.integer)) and not isinstance(n_steps, bool)
    if n_steps is not None and (not whole or not 1 <= n_steps < 2**31):
        raise InvalidOption(f"n_steps is {n_steps!r}; expected a whole number >= 1, or None")


def single_device(entry: Stacked) -> IntArray:
    """int32 [n_groups]: groups on the device that can run most ops, the fastest of these; -1 where it has no room."""
    problem, groups = entry.problem, entry.groups
    able = np.isfinite(problem.op_time_s)
    time = np.where(able, problem.op_time_s, 0.0).sum(axis=0)
    device = int(np.lexsort((time, -able.sum(axis=0)))[0])
    room, group_device = Room(groups, problem), np.full(groups.n_groups, -1, np.int32)
    for group in range(groups.n_groups):
        if room.fits(group)[device]:
            room.put(group, device)
            group_device[group] = device
    return group_device


class ImproveProcess(Process):
    """Episodes that change complete placements; a subclass says what an action is.

    Attributes:
        best_makespan_s: float64 [B], of the best placement so far that is not overfull, NaN for none.
        best_objective_s: float64 [B], its objective.
        best_op_device: int32 [B, max_ops], the placement, -1 for none.
        loads: float64 [B, max_devices], seconds of all ops on each device.
        turn: What `phase` always is.
    """

    complete = True
    turn: ClassVar[int]

    def __init__(self, stack: ProblemStack, n_rows: int, *, order: Order, start: Start, length: int | None) -> None:
        super().__init__(stack, n_rows)
        self._order: Order = order
        self._start: Start = start
        self._length = length
        self.phase[:] = self.turn
        n, n_places = stack.sizes.n_ops, len(stack.entries)
        self.best_makespan_s, self.best_objective_s = np.full(n_rows, np.nan), np.full(n_rows, np.nan)
        self.best_op_device = np.full((n_rows, n), -1, np.int32)
        self.loads = np.zeros((n_rows, stack.sizes.n_devices))
        self.shared["order"] = np.zeros((n_places, n), np.int32)
        self.shared["leads"] = np.zeros((n_places, n), np.bool_)
        self.shared["start"] = np.full((n_places, n), -1, np.int32)
        self.shared["n_steps"] = np.zeros(n_places, np.int64)

    def new_problem(self, place: int) -> None:
        """Writes the order, which ops are the first of their group, and the first placement if all rows share it."""
        entry = self.stack.entry(place)
        order = assignment_order(entry.problem, self._order)
        _, first = np.unique(entry.groups.op_group[order], return_index=True)
        self.shared["order"][place, : len(order)] = order
        self.shared["leads"][place] = False
        self.shared["leads"][place, order[first]] = True
        self.shared["n_steps"][place] = self._length or entry.groups.n_groups
        self.shared["start"][place] = -1
        if self._start == "single_device":
            self.shared["start"][place, : entry.groups.n_groups] = single_device(entry)

    def n_steps(self, place: int) -> int:
        """One per group unless said otherwise."""
        return int(self.shared["n_steps"][place])

    def begin(self, rows: Rows, generators: Sequence[np.random.Generator]) -> None:
        """Makes first placements and describes what is allowed."""
        start = self.shared["start"][self.place[rows]]
        if self._start == "random":
            for i, row in enumerate(rows.tolist()):
                entry = self.stack.entry(int(self.place[row]))
                start[i, : entry.groups.n_groups] = entry.groups.random(entry.problem, generators[row])
        complete_rows(self.stack.arrays, self.partial, rows, self.place, self.shared["order"], start)
        self.best_makespan_s[rows] = self.best_objective_s[rows] = np.nan
        self.best_op_device[rows] = -1
        self.op[rows], self.mask[rows], self.features[rows] = -1, False, 0.0
        self._describe(rows)

    @abstractmethod
    def _describe(self, rows: Rows) -> None:
        """Writes features and mask of these rows, whose placement is complete."""

    def _end(self, active: BoolArray) -> Rows:
        """Ends the episodes whose last step this was; returns the active ones that go on."""
        self.done |= active & (self.steps + 1 >= self.shared["n_steps"][self.place])
        return np.flatnonzero(active & ~self.done)

    def evaluated(self, rows: Rows, makespan_s: FloatArray, objective_s: FloatArray, overfull: BoolArray) -> None:
        """Keeps what is better than the best so far."""
        better = ~overfull & np.isfinite(objective_s) & ~(objective_s >= self.best_objective_s[rows])
        these = rows[better]
        self.best_makespan_s[these], self.best_objective_s[these] = makespan_s[better], objective_s[better]
        self.best_op_device[these] = self.op_device[these]

    def info(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """The best placement that is not overfull."""
        names = ("best_makespan_s", "best_objective_s", "best_op_device")
        return {name: getattr(self, name)[rows] for name in names}


class VisitProcess(ImproveProcess):
    """Each op is visited once, an action is its device.

    Attributes:
        position: int64 [B], turn of the op that is visited.
    """

    turn = PLACE

    def __init__(self, stack: ProblemStack, n_rows: int, *, order: Order, start: Start, length: int | None) -> None:
        super().__init__(stack, n_rows, order=order, start=start, length=length)
        self.position = np.zeros(n_rows, np.int64)

    @classmethod
    def n_actions(cls, sizes: Sizes) -> int:
        """One per device."""
        return sizes.n_devices

    def _describe(self, rows: Rows) -> None:
        written = (self.loads, self.position, self.op, self.features, self.mask)
        visit_first(self.stack.arrays, self.partial, rows, self.place, self.shared["order"], *written)

    def step(self, actions: NDArray[np.int64], active: BoolArray) -> None:
        """Moves what is visited in each active episode; the next op in the order is visited then."""
        known = (self.place, self.shared["order"], self.shared["leads"])
        written = (self.loads, self.position, self.op, self.features, self.mask, self.done)
        visit_next(self.stack.arrays, self.partial, actions, active, *known, *written)


class PairProcess(ImproveProcess):
    """An action is an op and its device: op * max_devices + device."""

    turn = PAIR

    @classmethod
    def n_actions(cls, sizes: Sizes) -> int:
        """All pairs."""
        return sizes.n_ops * sizes.n_devices

    @classmethod
    def n_described(cls, sizes: Sizes) -> int:
        """All pairs."""
        return sizes.n_ops * sizes.n_devices

    def _describe(self, rows: Rows) -> None:
        n_rows, d = self.n_rows * self.stack.sizes.n_ops, self.stack.sizes.n_devices
        seen = (self.features.reshape(n_rows, d, -1), self.mask.reshape(n_rows, d), NO_HOMES)
        known = (self.place, self.shared["order"], self.shared["leads"], self.loads)
        describe_all(self.stack.arrays, self.partial, rows, *known, *seen)

    def step(self, actions: NDArray[np.int64], active: BoolArray) -> None:
        """Moves an op, or its group, in each active episode."""
        move_pairs(self.stack.arrays, self.partial, actions, active, self.place)
        self._describe(self._end(active))


class RebuildProcess(ImproveProcess):
    """An action is an op, which is rebuilt with all that an edge joins with it."""

    turn = SELECT

    def __init__(self, stack: ProblemStack, n_rows: int, *, order: Order, start: Start, length: int | None) -> None:
        super().__init__(stack, n_rows, order=order, start=start, length=length)
        d = stack.sizes.n_devices
        self._device_features = np.zeros((n_rows, d, self.features.shape[2]), np.float32)
        self._device_mask = np.zeros((n_rows, d), np.bool_)

    @classmethod
    def n_actions(cls, sizes: Sizes) -> int:
        """One per op."""
        return sizes.n_ops

    @classmethod
    def n_described(cls, sizes: Sizes) -> int:
        """One per op, on the device where it is."""
        return sizes.n_ops

    def _describe(self, rows: Rows) -> None:
        self.mask[rows] = self.shared["leads"][self.place[rows]]
        seen = (self._device_features, self._device_mask, self.features)
        known = (self.place, self.shared["order"], self.shared["leads"], self.loads)
        describe_all(self.stack.arrays, self.partial, rows, *known, *seen)

    def step(self, actions: NDArray[np.int64], active: BoolArray) -> None:
        """Rebuilds around an op in each active episode."""
        rebuild(self.stack.arrays, self.partial, actions, active, self.place, self.shared["order"])
        self._describe(self._end(active))


class ImproveEnv(PlacementEnv):
    """Changes a complete placement; the simulator evaluates it after every step.

    An episode begins with a complete placement. Each action re-places one op, or frees some ops and places them again.
    `action="move", visit="once"` is the decision process of Placeto (Addanki et al., 2019, arXiv 1906.08879):
    every op is visited once, in a fixed order.

    The ops of a colocation group move together, and so do those of a group of `groups`. Wherever this page says op, it
    means the group of the op, and the op is the first of its group in the order of `order`.

    ## Action Space

    * `action="move", visit="any"`: `Discrete(max_ops * max_devices)`, the number op * max_devices + device (`phase`
      PAIR): the op goes to the device.
    * `action="move", visit="once"`: `Discrete(max_devices)` (`phase` PLACE): where `op` goes. Ops are visited in the
      order of `order`.
    * `action="rebuild"`: `Discrete(max_ops)` (`phase` SELECT): an op. It, its inputs and its readers are taken off
      their devices, all other ops stay. Then all ops are put on the clock (`simulator.clock`) in the order of `order`,
      and each op without a device goes where it finishes first among the devices that can run it and have room for it,
      the first of equals; where there is no room, to the device that lacks least.

    `action_mask` allows the device where the op is, and those that can run it and have room for it when it has left. So
    a move never breaks support, colocation or memory as far as that is known before a run. A rebuild may end overfull,
    and so may a move under the memory rule "live". For rebuilding, all ops are allowed. With groups, the first op of
    each group is allowed, in place of all of them.

    ## Observation Space

    The `Dict` of `placement_gym.envs.observation`, or a `Box` under `observation="flat"`. `op_device` is the complete
    placement, `op` the op that is visited (-1 where ops are chosen), `context` has the objective of the placement over
    the reference. `action_features` has a row for each device of `op`; for each pair of op and device; or, where an
    op is chosen for rebuilding, for each op on the device where it is. Rows of ops that are not allowed are 0.

    A row says what it means to have the op on the device while all other ops stay:

    * `time`, of the op there.
    * `start`, `finish`, `start_behind`, `finish_behind`, `free`, `input_start`, `input_finish`: by the clock at the
      op's turn, when the ops before it in the order are placed as they are, and no other. So they say what they say in
      Assign-v0, and a rebuild takes the device of the least `finish`.
    * `load`, `memory_left` and `allowed`: all other ops counted, those before it and those behind. The op itself is not
      counted where it is, so that its device is described like any other.
    * `input_load`, of its inputs there; all of them are before it.

    The observation after the last step repeats the one before it, except for `op_device` and `context`.

    ## Rewards

    The return of an episode is the objective of the first placement less that of the last, over the reference: all ops
    one after the other, each on its fastest device. `reward="dense"` gives what each step improves (less than 0 where
    it makes things worse), `reward="terminal"` all at the last step. A placement over memory counts as the worst value
    that any placement of the problem can have, and one reference more.

    ## Episode End

    Terminates after `n_steps` steps, or when all ops are visited. `info` then says what it says in Assign-v0 of the
    last placement, and of the best placement of the episode that is not over memory, its first one included:
    `best_makespan_s` and `best_objective_s` (NaN if there is none) and `best_op_device` (-1).

    ## Arguments

    Those of Assign-v0, and:

    * `action`: "move" or "rebuild".
    * `visit`: "any" (the action says which op) or "once" (each op in turn; not with "rebuild").
    * `start`: the placement that an episode begins with: "earliest_finish" (a rebuild of all ops), "single_device"
      (the device that can run most ops, the fastest of these; what it cannot run or hold goes where it finishes
      first), or "random" (drawn for each episode; a device that can run the op and has room for it, if one is found).
    * `n_steps`: steps of an episode under `visit="any"`; one per op or group where not given.
    * `order`: "rank" (largest b-level first) or "topological".
    * `noise`: drawn once for each episode, so that all its placements are compared under the same durations.

    ## Version History

    * v0: initial version.
    """

    def __init__(
        self,
        problem: Problem | Path | None = None,
        *,
        problems: Sequence[Problem | Path] | Draw | None = None,
        sizes: Sizes | None = None,
        groups: GroupName | ArrayLike | None = None,
        rule: str | Rule = "physical",
        objective: Objective = "makespan",
        reward: Reward = "terminal",
        invalid: Invalid = "raise",
        noise: float = 0.0,
        observation: Form = "dict",
        action: Action = "move",
        visit: Visit = "any",
        start: Start = "earliest_finish",
        n_steps: int | None = None,
        order: Order = "rank",
        render_mode: str | None = None,
    ) -> None:
        check_visits(action, visit, n_steps)
        check_choice("start", start, Start)
        check_choice("order", order, Order)
        together = "colocation" if groups is None else groups
        task = task_of(problem, problems, sizes, together, rule, objective, reward, invalid, noise, observation)
        process = RebuildProcess if action == "rebuild" else PairProcess if visit == "any" else VisitProcess
        super().__init__(task, partial(process, order=order, start=start, length=n_steps), render_mode)
        self.action, self.visit, self.start, self.order = action, visit, start, order


class ImproveVectorEnv(PlacementVectorEnv):
    """The native vector form of `ImproveEnv`."""

    form = ImproveEnv
