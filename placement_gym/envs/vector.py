"""PlacementVectorEnv: what the native vector forms of all environments share."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, cast

import numpy as np
from gymnasium import spaces
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray, FloatArray
from placement_gym.envs.actions import AllowedBatch
from placement_gym.envs.base import PlacementEnv, given_problem, refuse_unknown
from placement_gym.envs.episodes import NO_ROWS, Episodes, EpisodeState
from placement_gym.envs.observation import Observation, Sizes
from placement_gym.envs.pictures import picture, schedule_so_far
from placement_gym.envs.problems import Path
from placement_gym.envs.process import Rows
from placement_gym.errors import InvalidAction, InvalidOption, unknown_name
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.schedule import Schedule


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
        if not isinstance(num_envs, (int, np.integer)) or isinstance(num_envs, bool) or num_envs < 1:
            raise InvalidOption(f"num_envs is {num_envs!r}; expected a whole number >= 1")
        named = {name: mode for mode in AutoresetMode for name in (mode.name, mode.value, mode)}
        if not isinstance(autoreset_mode, (str, AutoresetMode)) or autoreset_mode not in named:
            raise InvalidOption(unknown_name("autoreset_mode", str(autoreset_mode), [m.name for m in AutoresetMode]))
        self.autoreset_mode, self.copy, self.num_envs = named[autoreset_mode], copy, num_envs
        self.metadata = {**self.form.metadata, "autoreset_mode": self.autoreset_mode}
        single = self.form(problem, **options)  # type: ignore[arg-type]
        self.task, self.render_mode, self.single = single.task, single.render_mode, single
        self.episodes = Episodes(single.task, single.make_process, num_envs, copy=copy)
        self.single_observation_space = single.observation_space
        self.single_action_space = spaces.Discrete(len(single.action_masks()))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = AllowedBatch(num_envs, len(single.action_masks()), self.action_masks)
        self._all: Rows = np.arange(num_envs)
        self._everyone = np.ones(num_envs, np.bool_)
        self._seeded, self._seeds = np.zeros(num_envs, np.bool_), list(range(num_envs))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's action space samples what the copy allows."""
        self.__dict__.update(state)
        self.action_space = AllowedBatch(self.num_envs, len(self.single.action_masks()), self.action_masks)
        self.action_space._np_random = state["action_space"]._np_random

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
            InvalidOption: An unknown option, a mask of another type or shape or without any row, or seeds that are no
                whole numbers, or not as many as rows.
            InvalidProblem: The problem is larger than the environment is padded to.
        """
        given = refuse_unknown(options, ("problem", "reset_mask"))
        rows = self._masked(given["reset_mask"]) if "reset_mask" in given else self._all
        problem = given_problem(given)
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
        if seed is None:
            seed = [None] * self.num_envs
        if not isinstance(seed, (list, tuple)) or not all(
            one is None or (isinstance(one, (int, np.integer)) and not isinstance(one, bool)) for one in seed
        ):
            raise InvalidOption(f"seed is {seed!r}; expected a whole number, or a list of them and None")
        if len(seed) != self.num_envs:
            raise InvalidOption(f"seed has {len(seed)} numbers; expected {self.num_envs}, one for each row")
        for row in rows.tolist():
            number = seed[row]
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

    def _row(self, row: int) -> int:
        """The number of a row; raises InvalidOption if there is none."""
        if not isinstance(row, (int, np.integer)) or not 0 <= row < self.num_envs:
            raise InvalidOption(f"row is {row!r}; expected 0 to {self.num_envs - 1}")
        return int(row)

    def get_state(self, row: int) -> EpisodeState:
        """Where a row's episode stands; `set_state` of any row of a like environment, of either form, goes on there."""
        return self.episodes.get_state(self._row(row))

    def set_state(self, row: int, state: EpisodeState) -> Any:  # noqa: ANN401
        """Makes a row go on where `get_state` was called; returns the observation of all rows."""
        self.episodes.set_state(self._row(row), state)
        self._seeded[row] = True
        return self._observation()

    def schedule(self, row: int) -> Schedule:
        """The schedule of a row's placement so far, as in the scalar form."""
        return schedule_so_far(self.episodes, self._row(row))

    def noisy_makespans_s(self, row: int, n_draws: int = 64) -> FloatArray:
        """float64 [n_draws]: makespans of a row's placement under draws of noise, as in the scalar form."""
        return self.episodes.evaluation.draws_s(self._row(row), n_draws)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A Gantt chart of each row, uint8 [height, width, 3], if the render mode is "rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return tuple(picture(self.episodes, row) for row in range(self.num_envs))

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
        if not isinstance(name, str) or name.startswith("_") or not hasattr(self.single, name):
            known = [n for n in dir(self.single) if not n.startswith("_")]
            raise InvalidOption(unknown_name("attribute", str(name), known))
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
