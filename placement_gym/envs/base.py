"""PlacementEnv: what the scalar forms of all environments share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray
from placement_gym.envs.actions import AllowedDiscrete
from placement_gym.envs.episodes import Episodes, EpisodeState, MakeProcess
from placement_gym.envs.observation import Sizes, flat_space, observation_space
from placement_gym.envs.pictures import picture, schedule_so_far, window
from placement_gym.envs.problems import loaded
from placement_gym.envs.task import Task
from placement_gym.errors import InvalidAction, InvalidOption, unknown_name
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.schedule import Schedule

RENDER_MODES = ("rgb_array", "human")


def refuse_unknown(options: dict[str, Any] | None, known: Sequence[str]) -> dict[str, Any]:
    """The options of a reset; raises InvalidOption, listing the known ones, if one is none of them."""
    if options is not None and not isinstance(options, dict):
        raise InvalidOption(f"options is a {type(options).__name__}; expected a dict")
    for name in options or {}:
        if name not in known:
            raise InvalidOption(unknown_name("reset option", str(name), known))
    return options or {}


def given_problem(options: dict[str, Any]) -> Problem | None:
    """The problem among the options of a reset, if there is one."""
    return loaded("options['problem']", options["problem"]) if "problem" in options else None


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
        self._window = window() if render_mode == "human" else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy's action space samples what the copy allows."""
        self.__dict__.update(state)
        self.action_space = AllowedDiscrete(len(self.action_masks()), self.action_masks)
        self.action_space._np_random = state["action_space"]._np_random

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
        problem = given_problem(refuse_unknown(options, ("problem",)))
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
                info[name] = values[0].copy()
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
        return schedule_so_far(self.episodes, 0)

    def noisy_makespans_s(self, n_draws: int = 64) -> FloatArray:
        """float64 [n_draws]: makespans of `schedule()` under draws of the environment's noise, the same ones each time.

        Report their mean and their 95th percentile.
        """
        return self.episodes.evaluation.draws_s(0, n_draws)

    def render(self) -> NDArray[np.uint8] | None:
        """uint8 [height, width, 3]: Gantt chart of what is placed so far, if the render mode is "rgb_array".

        While ops are missing it shows the clock's times; then the simulator's schedule.
        """
        return picture(self.episodes, 0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Closes the window of render mode "human"."""
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        """Draws what is placed so far in the window, if there is one."""
        if self._window is not None and self._window.is_shown:
            self._window.show(picture(self.episodes, 0))

    def _observation(self) -> Any:  # noqa: ANN401
        seen = {key: value[0].copy() for key, value in self.episodes.observation().items()}
        return seen["flat"] if self.task.observation == "flat" else seen
