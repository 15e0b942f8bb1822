"""PlacementEnv and PlacementVectorEnv: what all environments share, in the scalar and in the native vector form."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray
from placement_gym.envs.actions import AllowedBatch, AllowedDiscrete, Invalid
from placement_gym.envs.episodes import NO_ROWS, Episodes, EpisodeState, MakeProcess
from placement_gym.envs.observation import Form, Observation, Sizes, flat_space, observation_space
from placement_gym.envs.problems import Draw, GroupName, Path, Problems, loaded
from placement_gym.envs.process import Rows
from placement_gym.envs.reward import Reward
from placement_gym.envs.task import Task
from placement_gym.errors import InvalidAction, InvalidOption, unknown_name
from placement_gym.objectives import Objective
from placement_gym.problem import Problem
from placement_gym.rule import Rule, resolve_rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import simulate

if TYPE_CHECKING:
    from placement_gym.render import Window

RENDER_MODES = ("rgb_array", "human")


def task_of(
    problem: Problem | Path | None,
    problems: Sequence[Problem | Path] | Draw | None,
    sizes: Sizes | None,
    groups: GroupName | ArrayLike | None,
    rule: str | Rule,
    objective: Objective,
    reward: Reward,
    invalid: Invalid,
    noise: float,
    observation: Form,
) -> Task:
    """The options that all environments share, checked; see `PlacementEnv`."""
    given = Problems(problem, problems, sizes, groups)
    return Task(given, resolve_rule(rule), objective, reward, invalid, noise, observation)


def _refuse_unknown(options: dict[str, Any] | None, known: Sequence[str]) -> dict[str, Any]:
    for name in options or {}:
        if name not in known:
            raise InvalidOption(unknown_name("reset option", str(name), known))
    return options or {}


def _given_problem(options: dict[str, Any]) -> Problem | None:
    """The problem among the options of a reset, if there is one."""
    return loaded("options['problem']", options["problem"]) if "problem" in options else None


def _schedule(episodes: Episodes, row: int) -> Schedule:
    """The schedule of a row's placement so far; ops not placed yet run on the first device that can run them."""
    priority = episodes.evaluation.priorities(np.array([row]))
    ranks = None if priority is None else priority.reshape(-1)
    problem, op_device = episodes.problems[row], episodes.evaluation.whole_placement(row)
    return simulate(problem, op_device, rule=episodes.task.rule, priority=ranks, memory="report")


def _picture(episodes: Episodes, row: int) -> NDArray[np.uint8]:
    """Gantt chart of a row's placement so far: the clock's times while ops are missing, then the schedule."""
    from placement_gym.render import gantt_of_ops, gantt_rgb, rgb  # matplotlib takes a second to import

    problem, clock = episodes.problems[row], episodes.process.partial.clock
    op_device = clock.op_device[row, : problem.n_ops]
    if bool((op_device >= 0).all()):
        return gantt_rgb(_schedule(episodes, row))
    finish_s = clock.finish[row, : problem.n_ops]
    start_s = finish_s - problem.op_time_s[np.arange(problem.n_ops), np.maximum(op_device, 0)]
    return rgb(gantt_of_ops(problem, op_device, start_s, finish_s))


def _window() -> Window:
    """A window; matplotlib is imported only here and in `_picture`."""
    from placement_gym.render import Window

    return Window()


class PlacementEnv(gym.Env[Any, np.int64]):
    """Base class of the scalar forms. A subclass says which process it is, and documents it as its page.

    Args:
        task: What is placed and how it is scored.
        make_process: Process of so many rows on a stack of problems.
        render_mode: None, "rgb_array" or "human" (Gantt chart).

    Attributes:
        task: What is placed and how it is scored.
        episodes: The one episode under way.

    Raises:
        InvalidOption: An unknown render mode.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # type: ignore[misc]

    def __init__(self, task: Task, make_process: MakeProcess, render_mode: str | None) -> None:
        if render_mode not in (None, *RENDER_MODES):
            raise InvalidOption(unknown_name("render_mode", render_mode, ("None", *RENDER_MODES)))
        self.task, self.make_process, self.render_mode = task, make_process, render_mode
        self.episodes = Episodes(task, make_process, 1, copy=False)
        n, described = self.episodes.process.mask.shape[1], self.episodes.process.features.shape[1]
        self.observation_space = (
            flat_space(n, described)
            if task.observation == "flat"
            else observation_space(task.problems.sizes, n, described)
        )
        self.action_space = AllowedDiscrete(n, self.action_masks)
        self._window = _window() if render_mode == "human" else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's action space samples what the copy allows."""
        self.__dict__.update(state)
        self.action_space = AllowedDiscrete(len(self.action_masks()), self.action_masks)

    @property
    def problem(self) -> Problem:
        """What the episode places."""
        return self.episodes.problems[0]

    @property
    def sizes(self) -> Sizes:
        """What observations are padded to."""
        return self.task.problems.sizes

    @property
    def rule(self) -> Rule:
        """The simulator's rule."""
        return self.task.rule

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode.

        Args:
            seed: Of problems and noise, from this episode on.
            options: `{"problem": problem}` makes a problem, or the path of one, that of this and later episodes.

        Raises:
            InvalidOption: An unknown option.
            InvalidProblem: The problem is larger than the environment is padded to.
        """
        problem = _given_problem(_refuse_unknown(options, ("problem",)))
        super().reset(seed=seed)
        self.episodes.generators[0] = self.np_random
        self.episodes.begin(np.zeros(1, np.int64), problem)
        self._show()
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Does one action.

        Raises:
            InvalidAction: No whole number, or one outside the action space; under invalid="raise" also one outside the
                action mask; or the episode is over. Nothing changes then.
        """
        episodes = self.episodes
        if episodes.over[0]:
            raise InvalidAction("the episode is over; call reset()")
        active = np.ones(1, np.bool_)
        actions, wrong = episodes.actions_of(action, (), active)
        rewards, ended = episodes.step(actions, wrong, active)
        info: dict[str, Any] = {}
        if len(ended):
            for name, values in episodes.info(ended).items():
                info[name] = values[0, : self.problem.n_ops].copy() if values.ndim > 1 else values[0]
        self._show()
        return self._observation(), float(rewards[0]), bool(len(ended)), False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool [n_actions], under the name that sb3-contrib looks for."""
        mask: NDArray[np.bool_] = self.episodes.process.mask[0].copy()
        return mask

    def get_state(self) -> EpisodeState:
        """Where the episode stands; `set_state` of this or a like environment, of either form, goes on from there."""
        return self.episodes.get_state(0)

    def set_state(self, state: EpisodeState) -> Any:  # noqa: ANN401
        """Goes on where `get_state` was called; returns the observation there."""
        self.episodes.set_state(0, state)
        self._np_random = self.episodes.generators[0]
        return self._observation()

    def schedule(self) -> Schedule:
        """The schedule of the placement so far; ops not placed yet run on the first device that can run them."""
        return _schedule(self.episodes, 0)

    def noisy_makespans_s(self, n_draws: int = 64) -> FloatArray:
        """float64 [n_draws]: makespans of `schedule()` under draws of the environment's noise, the same ones each time.

        Report their mean and their 95th percentile.
        """
        return self.episodes.evaluation.draws_s(0, n_draws)

    def render(self) -> NDArray[np.uint8] | None:
        """uint8 [height, width, 3]: Gantt chart of what is placed so far, if the render mode is "rgb_array".

        While ops are missing it shows the clock's times; then the simulator's schedule.
        """
        return _picture(self.episodes, 0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Closes the window of render mode "human"."""
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        """Draws what is placed so far in the window, if there is one."""
        if self._window is not None:
            self._window.show(_picture(self.episodes, 0))

    def _observation(self) -> Any:  # noqa: ANN401
        seen = {key: value[0].copy() for key, value in self.episodes.observation().items()}
        return seen["flat"] if self.task.observation == "flat" else seen


class PlacementVectorEnv(VectorEnv[Any, NDArray[np.int64], NDArray[Any]]):
    """Base class of the native vector forms: many episodes of `form`, one call a step. A subclass names the form.

    Observations, rewards, masks and infos are those of the scalar form, batched along axis 0 as Gymnasium does. Row i
    has the seed `seed + i`. Episodes end and begin one by one.

    Args:
        num_envs: Episodes side by side.
        problem: As for the scalar form.
        autoreset_mode: What follows the end of an episode, see `gymnasium.vector.AutoresetMode`, or its name: the next
            step begins a new one, whatever the action ("NEXT_STEP"); the same step does, and `info` has `final_obs` and
            `final_info` ("SAME_STEP"); or `reset(options={"reset_mask": ...})` does ("DISABLED").
        copy: Whether DYNAMIC keys are fresh arrays, or read-only views that the next step overwrites.
        options: The other arguments of the scalar form.

    Raises:
        InvalidOption: `num_envs` below 1, an unknown mode, or as the scalar form.
    """

    form: ClassVar[type[PlacementEnv]]

    def __init_subclass__(cls) -> None:
        own = list(inspect.signature(PlacementVectorEnv.__init__).parameters.values())[1:-1]
        named = {parameter.name for parameter in own}
        theirs = [p for p in inspect.signature(cls.form).parameters.values() if p.name not in named]
        cls.__signature__ = inspect.Signature([*own, *theirs])  # type: ignore[attr-defined]

    def __init__(
        self,
        num_envs: int = 1,
        problem: Problem | Path | None = None,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> None:
        if num_envs < 1:
            raise InvalidOption(f"num_envs is {num_envs}; expected >= 1")
        named = {name: mode for mode in AutoresetMode for name in (mode.name, mode.value, mode)}
        if autoreset_mode not in named:
            raise InvalidOption(unknown_name("autoreset_mode", str(autoreset_mode), [m.name for m in AutoresetMode]))
        self.autoreset_mode, self.copy, self.num_envs = named[autoreset_mode], copy, num_envs
        self.metadata = {**self.form.metadata, "autoreset_mode": self.autoreset_mode}
        single = self.form(problem, **options)  # type: ignore[arg-type]
        self.task, self.render_mode, self.single = single.task, single.render_mode, single
        self.episodes = Episodes(single.task, single.make_process, num_envs, copy=copy)
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = AllowedBatch(num_envs, len(single.action_masks()), self.action_masks)
        self._all: Rows = np.arange(num_envs)
        self._everyone = np.ones(num_envs, np.bool_)
        self._seeded, self._seeds = np.zeros(num_envs, np.bool_), list(range(num_envs))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's action space samples what the copy allows."""
        self.__dict__.update(state)
        self.action_space = AllowedBatch(self.num_envs, len(self.single.action_masks()), self.action_masks)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What each episode places."""
        return tuple(self.episodes.problems)

    @property
    def problem(self) -> Problem:
        """What the episodes place, if all place the same.

        Raises:
            InvalidOption: They place different problems; see `problems`.
        """
        first = self.episodes.problems[0]
        if any(problem is not first for problem in self.episodes.problems):
            raise InvalidOption("the episodes place different problems; see the attribute problems")
        return first

    @property
    def sizes(self) -> Sizes:
        """What observations are padded to."""
        return self.task.problems.sizes

    @property
    def rule(self) -> Rule:
        """The simulator's rule."""
        return self.task.rule

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each row, as in `SyncVectorEnv`."""
        return tuple(self.episodes.generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The last seed of each row, as in `SyncVectorEnv`."""
        return tuple(self._seeds)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins episodes.

        Args:
            seed: Row i has the seed `seed + i`, or `seed[i]`; None lets generators go on.
            options: `{"problem": problem}` makes a problem, or the path of one, that of these rows from now on;
                `{"reset_mask": bool [num_envs]}` says which rows begin anew (all, where it is missing).

        Raises:
            InvalidOption: An unknown option, a mask of another type or shape or without any row, or as many seeds as
                there are not rows.
            InvalidProblem: The problem is larger than the environment is padded to.
        """
        given = _refuse_unknown(options, ("problem", "reset_mask"))
        rows = self._masked(given["reset_mask"]) if "reset_mask" in given else self._all
        problem = _given_problem(given)
        self._seed(seed, rows)
        self.episodes.begin(rows, problem)
        return self._observation(), {}

    def _masked(self, mask: Any) -> Rows:  # noqa: ANN401
        """The rows of a reset mask."""
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise InvalidOption(f"reset_mask is {got}; expected a bool array of shape ({self.num_envs},)")
        if not mask.any():
            raise InvalidOption("reset_mask is False everywhere; expected at least one row to begin anew")
        return np.flatnonzero(mask)

    def _seed(self, seed: int | list[int | None] | None, rows: Rows) -> None:
        """Sets the generators of rows; rows without a seed go on, or have a random one the first time."""
        if isinstance(seed, (int, np.integer)):
            seed = [int(seed) + i for i in range(self.num_envs)]
        if seed is not None and len(seed) != self.num_envs:
            raise InvalidOption(f"seed has {len(seed)} numbers; expected {self.num_envs}, one for each row")
        for row in rows.tolist():
            number = None if seed is None else seed[row]
            if number is not None or not self._seeded[row]:
                self.episodes.generators[row], self._seeds[row] = np_random(None if number is None else int(number))
        self._seeded[rows] = True

    def step(self, actions: Any) -> tuple[Any, FloatArray, BoolArray, BoolArray, dict[str, Any]]:  # noqa: ANN401
        """Does one action in every episode; with NEXT_STEP, rows whose episode has ended begin a new one instead.

        Raises:
            InvalidAction: No whole numbers [num_envs], or an action as the scalar form refuses it (the first one is
                named); with DISABLED, a row whose episode has ended. Nothing changes then.
        """
        episodes = self.episodes
        active, begins = self._everyone, NO_ROWS
        if episodes.n_over:
            active, begins = ~episodes.over, np.flatnonzero(episodes.over)
        if len(begins) and self.autoreset_mode == AutoresetMode.DISABLED:
            raise InvalidAction(
                f"episode {begins[0]} is over; begin it anew with reset(options={{'reset_mask': ...}}) before a step"
            )
        given, wrong = episodes.actions_of(actions, (self.num_envs,), active)
        if len(begins):  # first, because a problem drawn may be refused
            episodes.begin(begins)
        if len(begins) < self.num_envs:
            rewards, ended = episodes.step(given, wrong, active)
        else:
            rewards, ended = np.zeros(self.num_envs), NO_ROWS
        info: dict[str, Any] = {}
        terminated = np.zeros(self.num_envs, np.bool_)
        if len(ended):
            terminated[ended] = True
            info = self._last_info(ended)
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                info = self._final(ended, info)
                episodes.begin(ended)
        return self._observation(), rewards, terminated, np.zeros(self.num_envs, np.bool_), info

    def _last_info(self, ended: Rows) -> dict[str, Any]:
        """The infos of episodes that have ended, as Gymnasium batches them: `name` [B, ...] and `_name` bool [B]."""
        info: dict[str, Any] = {}
        for name, values in self.episodes.info(ended).items():
            batch = np.zeros((self.num_envs, *values.shape[1:]), values.dtype)
            batch[ended] = values
            info[name], info[f"_{name}"] = batch, self._mask_of(ended)
        return info

    def _final(self, ended: Rows, info: dict[str, Any]) -> dict[str, Any]:
        """What SAME_STEP says of episodes that have ended: their last observations and infos."""
        seen = self.episodes.observation()
        final = np.full(self.num_envs, None, dtype=object)
        for row in ended.tolist():
            one = {key: value[row].copy() for key, value in seen.items()}
            final[row] = one["flat"] if self.task.observation == "flat" else one
        there = self._mask_of(ended)
        return {"final_obs": final, "_final_obs": there, "final_info": info, "_final_info": there.copy()}

    def _mask_of(self, rows: Rows) -> BoolArray:
        mask = np.zeros(self.num_envs, np.bool_)
        mask[rows] = True
        return mask

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool [num_envs, n_actions], what each episode may do next."""
        return self.episodes.process.mask.copy()

    def get_state(self, row: int) -> EpisodeState:
        """Where a row's episode stands; `set_state` of any row of a like environment, of either form, goes on there."""
        return self.episodes.get_state(row)

    def set_state(self, row: int, state: EpisodeState) -> Any:  # noqa: ANN401
        """Makes a row go on where `get_state` was called; returns the observation of all rows."""
        self.episodes.set_state(row, state)
        self._seeded[row] = True
        return self._observation()

    def schedule(self, row: int) -> Schedule:
        """The schedule of a row's placement so far, as in the scalar form."""
        return _schedule(self.episodes, row)

    def noisy_makespans_s(self, row: int, n_draws: int = 64) -> FloatArray:
        """float64 [n_draws]: makespans of a row's placement under draws of noise, as in the scalar form."""
        return self.episodes.evaluation.draws_s(row, n_draws)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A Gantt chart of each row, uint8 [height, width, 3], if the render mode is "rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return tuple(_picture(self.episodes, row) for row in range(self.num_envs))

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:  # noqa: ANN401
        """For each row, what the scalar form's method or attribute of that name gives.

        Raises:
            InvalidOption: There is none of that name.
        """
        return tuple(self._call_row(row, name, *args, **kwargs) for row in range(self.num_envs))

    def _call_row(self, row: int, name: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        by_row = {"problem": self.problems, "np_random": self.np_random, "np_random_seed": self.np_random_seed}
        if name in by_row:
            return by_row[name][row]
        if name in ("get_state", "set_state", "schedule", "noisy_makespans_s"):
            return getattr(self, name)(row, *args, **kwargs)
        if name == "action_masks":
            return self.episodes.process.mask[row].copy()
        if name.startswith("_") or not hasattr(self.single, name):
            known = [n for n in dir(self.single) if not n.startswith("_")]
            raise InvalidOption(unknown_name("attribute", name, known))
        if callable(getattr(self.single, name)):
            raise InvalidOption(f"{name}() acts on one episode; the native vector form has no such method for a row")
        return getattr(self.single, name)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """For each row, the scalar form's attribute of that name, as `call`."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:  # noqa: ANN401, ARG002
        """Not offered: options hold for all rows and do not change.

        Raises:
            InvalidOption: Always.
        """
        raise InvalidOption(f"{name!r} cannot be set; make another environment, or reset(options={{'problem': ...}})")

    def _observation(self) -> Any:  # noqa: ANN401
        seen = self.episodes.observation()
        return cast("Observation", seen["flat"]) if self.task.observation == "flat" else seen
