"""The vector form of SelectPlace-v0: B episodes in lockstep, one Numba call a step, one simulation at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from placement_gym.envs.observation import (
    DYNAMIC_JOINT,
    DYNAMIC_PHASED,
    PLACE,
    SELECT,
    Observation,
    Sizes,
    observation_space,
    static_observation,
)
from placement_gym.envs.reward import Reward, check_reward, reference_s, settle
from placement_gym.envs.select_place import Action, Priority, check_action, evaluation_rule
from placement_gym.envs.select_place_episodes import SelectPlaceEpisodes
from placement_gym.errors import InvalidOption
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.simulator import compile_problem


class SelectPlaceVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`num_envs` episodes of `SelectPlaceEnv` on one problem, all at the same step and in the same phase.

    Observations, rewards and masks are those of `SelectPlaceEnv`, batched along axis 0. All episodes end together; the
    next step, whatever its actions, begins new ones (autoreset mode NEXT_STEP). Arrays in an observation are views
    that the next step overwrites; copy what you keep. `episodes` may be driven directly, which leaves out rewards and
    dictionaries.

    Args:
        num_envs: Episodes in lockstep.
        problem: As for `SelectPlaceEnv`, like the other arguments.
        rule: Simulator rule.
        reward: "terminal" or "dense".
        action: "phased" or "joint".
        priority: "none" or "selection".
        render_mode: None.

    Raises:
        InvalidOption: As `SelectPlaceEnv`, or `num_envs` below 1.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        problem: Problem,
        *,
        rule: str | Rule = "physical",
        reward: Reward = "terminal",
        action: Action = "phased",
        priority: Priority = "none",
        render_mode: None = None,
    ) -> None:
        check_reward(reward)
        check_action(action)
        if num_envs < 1:
            raise InvalidOption(f"num_envs is {num_envs}; expected >= 1")
        self.rule, self.reward, self.num_envs = evaluation_rule(rule, priority), reward, num_envs
        self.action, self.priority, self.render_mode, self.problem = action, priority, render_mode, problem
        sizes = Sizes(problem.n_ops, problem.graph.n_edges, problem.n_devices)
        self.single_observation_space = observation_space(sizes, DYNAMIC_JOINT if action == "joint" else DYNAMIC_PHASED)
        n, d = problem.n_ops, problem.n_devices
        self.single_action_space = spaces.MultiDiscrete([n, d]) if action == "joint" else spaces.Discrete(max(n, d))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.episodes = SelectPlaceEpisodes(
            compile_problem(problem, self.rule),
            num_envs,
            reference_s(problem),
            by_selection=priority == "selection",
            pairs=action == "joint",
        )
        self._static = {
            name: np.broadcast_to(value, (num_envs, *value.shape))
            for name, value in static_observation(problem, sizes).items()
        }
        # What stands in an observation while an op is to be chosen, and the phase then and afterwards.
        self._no_op = np.full((num_envs, 1), -1, np.int32)
        self._no_features = np.zeros(self.episodes.features.shape, np.float32)
        self._phase = {
            "select": np.full((num_envs, 1), SELECT, np.int8),
            "place": np.full((num_envs, 1), PLACE, np.int8),
        }

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins new episodes; nothing is random, so the seed only goes to gymnasium."""
        super().reset(seed=seed if not isinstance(seed, list) else None, options=options)
        self.episodes.reset()
        return self._observation(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Chooses an op in every episode, or places the chosen one (both if joint), or begins new episodes.

        `info` of the last step has `makespan_s` float64 [B], `op_device` int32 [B, n_ops], `overfull` bool [B],
        `order` int32 [B, n_ops].

        Raises:
            InvalidAction: An action that its episode does not allow (the first one is named); nothing changes.
        """
        episodes = self.episodes
        never = np.zeros(self.num_envs, dtype=np.bool_)
        if episodes.done:
            episodes.reset()
            return self._observation(), np.zeros(self.num_envs), never, never.copy(), {}
        before = episodes.reached_s.copy()
        episodes.act(actions, joint=self.action == "joint")
        rewards, info = settle(self.reward, before, episodes)
        if episodes.done:
            info["order"] = episodes.order.copy()
        return self._observation(), rewards, ~never if episodes.done else never, never.copy(), info

    def _observation(self) -> Observation:
        episodes, b = self.episodes, self.num_envs
        seen = {**self._static, "ready": episodes.ready.view(np.int8), "op_device": episodes.op_device}
        if self.action == "joint":
            return {
                **seen,
                "pair_features": episodes.pair_features.reshape(b, -1),
                "pair_mask": episodes.pair_mask.view(np.int8).reshape(b, -1),
                "action_mask": episodes.product_mask.view(np.int8),
            }
        placing = episodes.phase == "place"
        return {
            **seen,
            "phase": self._phase[episodes.phase],
            "op": episodes.op[:, None] if placing else self._no_op,
            "device_features": (episodes.features if placing else self._no_features).reshape(b, -1),
            "action_mask": episodes.action_mask.view(np.int8),
        }
