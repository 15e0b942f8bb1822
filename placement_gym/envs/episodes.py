"""Episodes: B episodes of one environment under way; the scalar form has one of them, the native vector form many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.actions import Invalid, first_wrong, nearest_allowed, whole_numbers
from placement_gym.envs.observation import BOUND, CONTEXT, Form, Observation, Sizes, flat_observation
from placement_gym.envs.problems import Problems
from placement_gym.envs.process import Process, Rows
from placement_gym.envs.reward import PENALTY, Reward, check_choice
from placement_gym.envs.stack import ProblemStack
from placement_gym.errors import InvalidAction, InvalidOption
from placement_gym.groups import Groups
from placement_gym.objectives import Objective, placement_objective_s
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.rule import Rule
from placement_gym.simulator import noise_factors

MakeProcess = Callable[[ProblemStack, int], Process]
# Placements that are evaluated on all cores; fewer are not worth starting threads for.
MANY = 64
NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is placed and how it is scored: the options that all environments share.

    Attributes:
        problems: Where problems come from.
        rule: Simulator rule.
        objective: What is minimised.
        reward: "terminal" or "dense".
        invalid: What an action outside the mask does.
        noise: Standard deviation of the logarithm of the factor on every duration.
        observation: "dict" or "flat".

    Raises:
        InvalidOption: An unknown choice, or noise that goes with another objective than the makespan.
    """

    problems: Problems
    rule: Rule
    objective: Objective
    reward: Reward
    invalid: Invalid
    noise: float
    observation: Form

    def __post_init__(self) -> None:
        for what, known in (("objective", Objective), ("reward", Reward), ("invalid", Invalid), ("observation", Form)):
            check_choice(what, getattr(self, what), known)
        if not 0 <= self.noise < np.inf:
            raise InvalidOption(f"noise is {self.noise}; expected a finite standard deviation >= 0")
        if self.noise > 0 and self.objective != "makespan":
            raise InvalidOption(f"noise is {self.noise}, objective is {self.objective!r}; only makespans are noisy")


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeState:
    """Where an episode stands, from `get_state`. Its arrays belong to it alone.

    Attributes:
        problem: What is placed.
        arrays: What the process knows.
        numbers: Its values in seconds, bytes over capacity, illegal actions, seed of its noise.
        generator: State of the episode's random generator.
        over: Whether the episode is over.
        process: Name of the process class.
        sizes: What observations are padded to.
    """

    problem: Problem
    arrays: tuple[NDArray[Any], ...]
    numbers: tuple[float, ...]
    generator: dict[str, Any]
    over: bool
    process: str
    sizes: Sizes


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

    Attributes:
        task: What all of them are about.
        process: What actions do.
        problems: The problem of each.
        generators: Of each; problems and noise are drawn from it.
        value_s: float64 [B], objective of what is placed so far.
        over: bool [B], which episodes have ended and not begun anew.
        n_over: How many.
    """

    def __init__(self, task: Task, make_process: MakeProcess, n_rows: int) -> None:
        self.task, self.n_rows = task, n_rows
        n_places = len(task.problems.known) or n_rows
        by_group = task.problems.groups is not None
        self._stack = ProblemStack(task.rule, task.problems.sizes, n_places + n_rows, by_group=by_group)
        self.process = make_process(self._stack, n_rows)
        self.problems: list[Problem] = []
        self.generators = [np.random.default_rng(row) for row in range(n_rows)]
        self.value_s, self._first_s = np.zeros(n_rows), np.zeros(n_rows)
        self._reference_s, self._worst_s = np.ones(n_rows), np.ones(n_rows)
        self._n_steps = np.ones(n_rows)
        self._n_invalid, self._noise_seed = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
        self._makespan_s, self._objective_s, self._excess_bytes = (np.zeros(n_rows) for _ in range(3))
        self.over, self.n_over = np.zeros(n_rows, np.bool_), 0
        self._given = np.full(n_rows, None, dtype=object)
        self._static: Observation = {}
        self._static_is_shared = False
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
        drawn = [self._draw(row, self._given[row] if given is None else given) for row in rows.tolist()]
        if given is not None:
            self._given[rows] = given
        changed = False
        for row, choice in zip(rows.tolist(), drawn, strict=True):
            changed |= self._take(row, *choice)
        self.process.fit()
        self.process.steps[rows] = 0
        self.process.done[rows] = False
        self.process.begin(rows, self.generators)
        self.n_over -= int(self.over[rows].sum())
        self.over[rows] = False
        self._n_invalid[rows] = 0
        if changed:
            self._write_static(rows)
        if self.task.noise > 0:
            self._noise_seed[rows] = [self.generators[row].integers(2**53) for row in rows.tolist()]
        self.value_s[rows] = 0.0
        if self.process.complete:
            self._evaluate(rows)
        self._first_s[rows] = self.value_s[rows]

    def _draw(self, row: int, given: Problem | None) -> tuple[int, Problem, Groups | None]:
        """(place in the stack, problem, its groups if it is not there yet) of a row's next episode."""
        number, problem = (-1, given) if given is not None else self.task.problems.next(self.generators[row])
        place = number if number >= 0 else len(self.task.problems.known) + row
        entry = self._stack.entries[place]
        if entry is not None and entry.problem is problem:
            return place, problem, None
        self.task.problems.check(problem)
        return place, problem, self.task.problems.groups_of(problem)

    def _take(self, row: int, place: int, problem: Problem, groups: Groups | None) -> bool:
        """Sets the problem of a row's next episode to what `_draw` chose; returns whether it is another one."""
        if len(self.problems) > row and self.problems[row] is problem:
            return False
        if groups is not None:
            self._stack.put(place, problem, groups)
            self.process.new_problem(place)
        if len(self.problems) > row:
            self.problems[row] = problem
        else:
            self.problems.append(problem)
        entry = self._stack.entry(place)
        self.process.place[row] = place
        self._reference_s[row], self._worst_s[row] = entry.reference_s, entry.worst_s
        self._n_steps[row] = self.process.n_steps(place)
        return True

    def _write_static(self, rows: Rows) -> None:
        """Writes the STATIC keys of rows with another problem; arrays that were handed out stay as they are."""
        places = self.process.place
        first = self._stack.entry(int(places[0])).static
        if bool((places == places[0]).all()):
            self._static = {key: np.broadcast_to(value, (self.n_rows, *value.shape)) for key, value in first.items()}
            self._static_is_shared = True
            return
        if self._static_is_shared or not self._static:
            rows = self._rows
        for key, value in first.items():
            array = np.empty((self.n_rows, *value.shape), value.dtype)
            if len(rows) < self.n_rows:
                array[:] = self._static[key]
            for row in rows.tolist():
                array[row] = self._stack.entry(int(places[row])).static[key]
            array.flags.writeable = False
            self._static[key] = array
        self._static, self._static_is_shared = dict(self._static), False

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
            self._evaluate(np.flatnonzero(active))
        elif n_ended:
            self._evaluate(ended)
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

    # Evaluation.

    def _evaluate(self, rows: Rows) -> None:
        """Writes value, makespan, objective and bytes over capacity of rows, int64 [any], whose placement is whole.

        A placement that is overfull has the worst value of the problem and a reference beside.
        """
        for place in np.unique(self.process.place[rows]).tolist():
            of_it = rows[self.process.place[rows] == place]
            entry = self._stack.entry(place)
            problem, compiled = entry.problem, entry.compiled
            op_device = np.ascontiguousarray(self.process.op_device[of_it, : problem.n_ops])
            priorities = self.priorities(of_it)
            threads = None if len(of_it) >= MANY else 1
            self._makespan_s[of_it], self._excess_bytes[of_it] = compiled.weigh(op_device, priorities, threads)
            worst = np.full(len(of_it), entry.worst_s)
            if self.task.noise > 0:
                for i, row in enumerate(of_it.tolist()):
                    rng = np.random.default_rng(self._noise_seed[row])
                    self._makespan_s[row], most = self._noisy(row, op_device[i], rng)
                    worst[i] *= max(1.0, most)  # what the rule holds after an op is not noisy
            objective = self._makespan_s[of_it]
            if self.task.objective != "makespan":
                objective = np.array([placement_objective_s(self.task.objective, problem, one) for one in op_device])
            self._objective_s[of_it] = objective
            overfull = self._excess_bytes[of_it] > 0
            self.value_s[of_it] = np.where(overfull, worst + entry.reference_s, objective)
            self.process.evaluated(of_it, self._makespan_s[of_it], objective, overfull)

    def priorities(self, rows: Rows) -> FloatArray | None:
        """float64 [len(rows), n_ops] or [n_ops]: ranks of ops of rows that share a problem; None if none are asked for.

        They are b-levels where the process chooses none.
        """
        if self.task.rule.queue != "priority":
            return None
        chosen = self.process.priorities(rows)
        if chosen is not None:
            return chosen
        problem = self.problems[int(rows[0])]
        return b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))

    def _noisy(self, row: int, op_device: IntArray, rng: np.random.Generator) -> tuple[float, float]:
        """(makespan in seconds under one draw of noise, largest factor of the draw) of a whole placement."""
        entry = self._stack.entry(int(self.process.place[row]))
        op_factor, edge_factor = noise_factors(entry.problem, self.task.noise, rng)
        ranks = self.priorities(np.array([row]))
        ranks = np.zeros(entry.problem.n_ops) if ranks is None else ranks.reshape(entry.problem.n_ops)
        trace = entry.compiled.trace(op_device, ranks, op_factor, edge_factor)
        end = trace.last_event_s if self.task.rule.makespan == "last_event" else np.nanmax(trace.op_finish_s)
        return float(end), float(max(op_factor.max(), edge_factor.max(initial=0.0)))

    def draws_s(self, row: int, n_draws: int) -> FloatArray:
        """float64 [n_draws]: makespans of a row's whole placement under other draws of noise, always the same ones."""
        op_device = self.whole_placement(row)
        rng = np.random.default_rng(0)
        return np.array([self._noisy(row, op_device, rng)[0] for _ in range(n_draws)])

    def whole_placement(self, row: int) -> IntArray:
        """int32 [n_ops]: the placement of a row; ops not placed yet where their group is, or first could be."""
        entry = self._stack.entry(int(self.process.place[row]))
        so_far = self.process.op_device[row, : entry.problem.n_ops]
        home = self.process.partial.group_device[row, : entry.groups.n_groups]
        first = entry.groups.allowed.argmax(axis=1).astype(np.int32)
        default = entry.groups.op_device(np.where(home >= 0, home, first))
        return np.where(so_far >= 0, so_far, default).astype(np.int32)

    def info(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """What the last info of these rows says, axis 0 is the row; `op_device` is -1 behind the last op."""
        said: dict[str, NDArray[Any]] = {
            "makespan_s": self._makespan_s[rows],
            "objective_s": self._objective_s[rows],
            "excess_bytes": self._excess_bytes[rows],
            "overfull": self._excess_bytes[rows] > 0,
            "op_device": self.process.op_device[rows],
            **self.process.info(rows),
        }
        if self.task.invalid != "raise":
            said["invalid_actions"] = self._n_invalid[rows]
        return said

    # What learners see.

    def observation(self, *, copy: bool) -> Observation:
        """All keys with the row as axis 0; DYNAMIC ones are fresh arrays, or read-only views that steps overwrite."""
        _write_context(self.process.steps, self._n_steps, self.value_s, self._reference_s, self._context)
        dynamic = self._dynamic()
        if self.task.observation == "flat":
            return {"flat": flat_observation({**self._static, **dynamic})}
        if copy:
            dynamic = {key: value.copy() for key, value in dynamic.items()}
        return {**self._static, **dynamic}

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
        values = (self.value_s, self._first_s, self._makespan_s, self._objective_s, self._excess_bytes)
        return (*values, self._n_invalid, self._noise_seed)

    @property
    def _like(self) -> tuple[str, Sizes]:
        """What environments that share states have in common."""
        return type(self.process).__name__, self.task.problems.sizes

    def get_state(self, row: int) -> EpisodeState:
        """Where a row's episode stands."""
        numbers = tuple(float(array[row]) for array in self._numbers)
        generator = dict(self.generators[row].bit_generator.state)
        arrays = self.process.save_row(row)
        problem, over = self.problems[row], bool(self.over[row])
        return EpisodeState(problem, arrays, numbers, generator, over, *self._like)

    def set_state(self, row: int, state: EpisodeState) -> None:
        """Goes on in a row from where `get_state` was called, in this or another row or environment alike.

        Raises:
            InvalidOption: `state` is no such state, or that of an environment with other actions or sizes.
        """
        if not isinstance(state, EpisodeState):
            raise InvalidOption(f"state is a {type(state).__name__}; expected what get_state returned")
        if (state.process, state.sizes) != self._like:
            raise InvalidOption(
                f"state is of a {state.process} padded to {state.sizes}; expected a {self._like[0]} and {self._like[1]}"
            )
        if self._take(row, *self._draw(row, state.problem)):
            self.process.fit()
            self._write_static(np.array([row]))
        self.process.load_row(row, state.arrays)
        for array, number in zip(self._numbers, state.numbers, strict=True):
            array[row] = number
        self.generators[row].bit_generator.state = state.generator
        self.n_over += int(state.over) - int(self.over[row])
        self.over[row] = state.over
