"""Episodes: B episodes of one environment under way; the scalar form has one of them, the native vector form many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.actions import first_wrong, nearest_allowed, whole_numbers
from placement_gym.envs.evaluation import Evaluation
from placement_gym.envs.observation import BOUND, CONTEXT, Observation, flat_observation
from placement_gym.envs.process import Process, Rows
from placement_gym.envs.reward import PENALTY
from placement_gym.envs.stack import ProblemStack, Stacked
from placement_gym.envs.static import StaticKeys
from placement_gym.envs.task import Task
from placement_gym.errors import InvalidAction, InvalidOption
from placement_gym.groups import Groups
from placement_gym.problem import Problem

MakeProcess = Callable[[ProblemStack, int], Process]
NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeState:
    """Where an episode stands, from `get_state`. Its arrays belong to it alone.

    Attributes:
        problem: What is placed.
        arrays: What the process knows.
        numbers: Its values in seconds, bytes over capacity, illegal actions, seed of its noise.
        generator: State of the episode's random generator.
        over: Whether the episode is over.
        like: What environments that share states have in common: process, options, rule, objective, sizes.
        op_group: int32 [n_ops], ops that an action places together.
    """

    problem: Problem
    arrays: tuple[NDArray[Any], ...]
    numbers: tuple[float, ...]
    generator: dict[str, Any]
    over: bool
    like: tuple[object, ...]
    op_group: IntArray


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _count(active: np.ndarray, done: np.ndarray, steps: np.ndarray, so_far_s: np.ndarray, value_s: np.ndarray) -> int:
    """Counts a step of each active episode and takes over its value so far; returns how many of them are done."""
    n_ended = 0
    for b in range(active.size):
        if active[b]:
            steps[b] += 1
            value_s[b] = so_far_s[b]
            n_ended += done[b]
    return n_ended


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _write_context(
    steps: np.ndarray, n_steps: np.ndarray, value_s: np.ndarray, reference_s: np.ndarray, context: np.ndarray
) -> None:
    """Writes float32 [B, CONTEXT]."""
    for b in range(steps.size):
        context[b, 0] = steps[b] / n_steps[b]
        context[b, 1] = min(value_s[b] / reference_s[b], BOUND)


class Episodes:
    """B episodes under way, each with its own problem and random generator.

    Args:
        task: What all of them are about.
        make_process: Process of so many rows on a stack of problems.
        n_rows: How many.
        copy: Whether DYNAMIC keys are fresh arrays, or read-only views of what the next step overwrites.

    Attributes:
        task: What all of them are about.
        process: What actions do.
        problems: The problem of each.
        evaluation: What whole placements are worth.
        generators: Of each; problems and noise are drawn from it.
        value_s: float64 [B], objective of what is placed so far.
        over: bool [B], which episodes have ended and not begun anew.
        n_over: How many.
    """

    def __init__(self, task: Task, make_process: MakeProcess, n_rows: int, *, copy: bool = True) -> None:
        self.task, self.n_rows, self._copy = task, n_rows, copy
        given, by_group = task.problems, task.problems.groups is not None
        self._stack = ProblemStack(task.rule, given.sizes, by_group=by_group, kept=given.known)
        self._make_process = make_process
        self.process = make_process(self._stack, n_rows)
        self.problems: list[Problem] = []
        self.generators = [np.random.default_rng(row) for row in range(n_rows)]
        self.value_s, self._first_s = np.zeros(n_rows), np.zeros(n_rows)
        self.evaluation = Evaluation(task, self._stack, self.process)
        self._reference_s, self._n_steps = np.ones(n_rows), np.ones(n_rows)
        self._n_invalid = np.zeros(n_rows, np.int64)
        self.over, self.n_over = np.zeros(n_rows, np.bool_), 0
        self._given = np.full(n_rows, None, dtype=object)
        self._static = StaticKeys(n_rows)
        self._context = np.zeros((n_rows, len(CONTEXT)), np.float32)
        self._rows = np.arange(n_rows)
        self._views: Observation | None = None
        self.begin(self._rows)

    # Problems.

    def begin(self, rows: Rows, given: Problem | None = None) -> None:
        """Begins episodes in these rows, int64 [any], each with a problem of its own draw.

        Args:
            rows: The rows.
            given: What these rows place from now on, instead of what is drawn.

        Raises:
            InvalidProblem: A problem is larger than `sizes`; nothing but random generators has changed then.
        """
        new: dict[int, Groups] = {}
        drawn = [self._draw(row, self._given[row] if given is None else given, new) for row in rows.tolist()]
        if given is not None:
            self._given[rows] = given
        changed = False
        for row, problem in zip(rows.tolist(), drawn, strict=True):
            changed |= self._take(row, problem, new)
        self.process.fit()
        self.process.steps[rows] = 0
        self.process.done[rows] = False
        self.process.begin(rows, self.generators)
        self.n_over -= int(self.over[rows].sum())
        self.over[rows] = False
        self._n_invalid[rows] = 0
        if changed:
            self._static.write(self._entries(), rows)
        if self.task.noise > 0:
            self.evaluation.noise_seed[rows] = [self.generators[row].integers(2**53) for row in rows.tolist()]
        self.value_s[rows] = 0.0
        if self.process.complete:
            self.evaluation.weigh(rows, self.value_s)
        self._first_s[rows] = self.value_s[rows]

    def _draw(self, row: int, given: Problem | None, new: dict[int, Groups]) -> Problem:
        """The problem of a row's next episode; `new` takes up the groups of problems that are not in the stack."""
        problem = self.task.problems.next(self.generators[row]) if given is None else given
        if self._stack.find(problem) is None and id(problem) not in new:
            self.task.problems.check(problem)
            new[id(problem)] = self.task.problems.groups_of(problem)
        return problem

    def _take(self, row: int, problem: Problem, new: dict[int, Groups]) -> bool:
        """Sets the problem of a row's next episode to what `_draw` chose; returns whether it is another one."""
        begun = len(self.problems) > row
        if begun and self.problems[row] is problem:
            return False
        place = self._stack.find(problem)
        if place is None:
            place = self._stack.put(problem, new.get(id(problem)) or self.task.problems.groups_of(problem))
            self.process.widen(len(self._stack.entries))
            self.process.new_problem(place)
        self._stack.use(place)
        if begun:
            self._stack.release(int(self.process.place[row]))
            self.problems[row] = problem
        else:
            self.problems.append(problem)
        self.process.place[row] = place
        self._reference_s[row], self._n_steps[row] = self._stack.entry(place).reference_s, self.process.n_steps(place)
        return True

    def _entries(self) -> list[Stacked]:
        return [self._stack.entry(place) for place in self.process.place.tolist()]

    # Steps.

    def actions_of(
        self, actions: ArrayLike, shape: tuple[int, ...], active: BoolArray
    ) -> tuple[NDArray[np.int64], Rows]:
        """(actions int64 [B] that are allowed, rows int64 [any] whose action was not).

        Raises:
            InvalidAction: Wrong type, shape or number; or outside the mask, under invalid="raise". Nothing changes.
        """
        given, mask = whole_numbers(actions, shape).reshape(self.n_rows), self.process.mask
        row, n = first_wrong(mask, given, active), mask.shape[1]
        if row < 0:
            return given, NO_ROWS
        outside = active & ((given < 0) | (given >= n))
        if self.task.invalid == "raise" or outside.any():
            row = int(np.flatnonzero(outside)[0]) if outside.any() else row
            raise self._refusal(row, int(given[row]))
        wrong = np.flatnonzero(active & ~mask[self._rows, np.where(active, given, 0)])
        nearest_allowed(mask, given, wrong)
        return given, wrong

    def _refusal(self, row: int, action: int) -> InvalidAction:
        process, problem = self.process, self.problems[row]
        allowed = np.flatnonzero(process.mask[row]).tolist()
        shown = f"{allowed}" if len(allowed) <= 20 else f"{allowed[:20]} and {len(allowed) - 20} more"
        about = f" for op {problem.graph.op_names[int(process.op[row, 0])]!r}" if process.op[row, 0] >= 0 else ""
        where = f"episode {row}: " if self.n_rows > 1 else ""
        return InvalidAction(f"{where}action {action}{about} is not in the action mask, which allows {shown}")

    def step(self, actions: NDArray[np.int64], wrong: Rows, active: BoolArray) -> tuple[FloatArray, Rows]:
        """(rewards float64 [B], 0 where not active; rows int64 [any] whose episode ended); arguments are checked."""
        process, task = self.process, self.task
        before = self.value_s.copy() if task.reward == "dense" else self.value_s
        process.step(actions, active)
        so_far = process.partial.reached if self._by_clock else process.partial.load.max(axis=1)
        n_ended = _count(active, process.done, process.steps, so_far, self.value_s)
        ended = np.flatnonzero(process.done & active) if n_ended else NO_ROWS
        if process.complete:
            self.evaluation.weigh(np.flatnonzero(active), self.value_s)
        elif n_ended:
            self.evaluation.weigh(ended, self.value_s)
        rewards = np.zeros(self.n_rows)
        if task.reward == "dense":
            np.divide(before - self.value_s, self._reference_s, out=rewards, where=active)
        elif len(ended):
            rewards[ended] = (self._first_s[ended] - self.value_s[ended]) / self._reference_s[ended]
        self.over[ended] = True
        self.n_over += len(ended)
        if len(wrong):
            self._n_invalid[wrong] += 1
            if task.invalid == "penalty":
                rewards[wrong] -= PENALTY
        return rewards, ended

    @property
    def _by_clock(self) -> bool:
        return self.task.objective in ("makespan", "latency")

    # What learners see.

    def info(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """What the last info of these rows says, axis 0 is the row; `op_device` is -1 behind the last op."""
        said: dict[str, NDArray[Any]] = {
            "makespan_s": self.evaluation.makespan_s[rows],
            "objective_s": self.evaluation.objective_s[rows],
            "excess_bytes": self.evaluation.excess_bytes[rows],
            "overfull": self.evaluation.excess_bytes[rows] > 0,
            "op_device": self.process.op_device[rows],
            **self.process.info(rows),
        }
        if self.task.invalid != "raise":
            said["invalid_actions"] = self._n_invalid[rows]
        return said

    def observation(self) -> Observation:
        """All keys with the row as axis 0; DYNAMIC ones are fresh arrays, or read-only views."""
        _write_context(self.process.steps, self._n_steps, self.value_s, self._reference_s, self._context)
        dynamic = self._dynamic()
        if self.task.observation == "flat":
            return {"flat": flat_observation({**self._static.keys, **dynamic})}
        if self._copy:
            dynamic = {key: value.copy() for key, value in dynamic.items()}
        return {**self._static.keys, **dynamic}

    def _dynamic(self) -> Observation:
        """The DYNAMIC keys as read-only views."""
        process = self.process
        if self._views is None or self._views["op_device"].base is not process.op_device:
            self._views = {
                "phase": process.phase.view(),
                "op": process.op.view(),
                "op_device": process.op_device.view(),
                "action_features": process.features.reshape(self.n_rows, -1),
                "action_mask": process.mask.view(np.int8),
                "context": self._context.view(),
            }
            for view in self._views.values():
                view.flags.writeable = False
        return self._views

    # States.

    @property
    def _numbers(self) -> tuple[NDArray[Any], ...]:
        """What `EpisodeState.numbers` holds, of all rows."""
        found = self.evaluation
        values = (self.value_s, self._first_s, found.makespan_s, found.objective_s, found.excess_bytes)
        return (*values, self._n_invalid, found.noise_seed)

    @property
    def _like(self) -> tuple[object, ...]:
        """What environments that share states have in common."""
        keywords = sorted(getattr(self._make_process, "keywords", {}).items())
        return type(self.process).__name__, *keywords, self.task.rule, self.task.objective, self.task.problems.sizes

    def get_state(self, row: int) -> EpisodeState:
        """Where a row's episode stands."""
        numbers = tuple(float(array[row]) for array in self._numbers)
        generator = dict(self.generators[row].bit_generator.state)
        arrays = self.process.save_row(row)
        entry = self._stack.entry(int(self.process.place[row]))
        over, groups = bool(self.over[row]), entry.groups.op_group
        return EpisodeState(entry.problem, arrays, numbers, generator, over, self._like, groups)

    def set_state(self, row: int, state: EpisodeState) -> None:
        """Goes on in a row from where `get_state` was called, in this or another row or environment alike.

        Raises:
            InvalidOption: `state` is no such state, or that of an environment with other options.
        """
        if not isinstance(state, EpisodeState):
            raise InvalidOption(f"state is a {type(state).__name__}; expected what get_state returned")
        if state.like != self._like:
            other = [(a, b) for a, b in zip(state.like, self._like, strict=False) if a != b]
            raise InvalidOption(f"state is of another environment: it has {other[0][0]}; expected {other[0][1]}")
        place = self._stack.find(state.problem)
        groups = self.task.problems.groups_of(state.problem) if place is None else self._stack.entry(place).groups
        if not np.array_equal(groups.op_group, state.op_group):
            raise InvalidOption("state is of an environment with other groups")
        new: dict[int, Groups] = {}
        if self._take(row, self._draw(row, state.problem, new), new):
            self.process.fit()
            self._static.write(self._entries(), np.array([row]))
        self.process.load_row(row, state.arrays)
        for array, number in zip(self._numbers, state.numbers, strict=True):
            array[row] = number
        self.generators[row].bit_generator.state = state.generator
        self.n_over += int(state.over) - int(self.over[row])
        self.over[row] = state.over
