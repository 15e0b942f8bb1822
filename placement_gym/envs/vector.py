"""The vector form of Assign-v0: B episodes in lockstep, one Numba call a step, one batched simulation at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from placement_gym.envs.assign import Order, assignment_order
from placement_gym.envs.episodes import AssignEpisodes
from placement_gym.envs.observation import Observation, Sizes, observation_space, static_observation
from placement_gym.envs.reward import Reward, check_reward, reference_s, settle
from placement_gym.errors import InvalidOption
from placement_gym.problem import Problem
from placement_gym.rule import Rule, resolve_rule
from placement_gym.simulator import compile_problem


class AssignVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`num_envs` episodes of `AssignEnv` on one problem, all at the same step.

    Observations, rewards and masks are those of `AssignEnv`, batched along axis 0. All episodes end together; the
    next step, whatever its actions, begins new ones (autoreset mode NEXT_STEP). Arrays in an observation are views
    that the next step overwrites; copy what you keep.

    Args:
        num_envs: Episodes in lockstep.
        problem: As for `AssignEnv`, like the other arguments.
        rule: Simulator rule.
        reward: "terminal" or "dense".
        order: "rank" or "topological".

    Raises:
        InvalidOption: As `AssignEnv`, or `num_envs` below 1.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        problem: Problem,
        *,
        rule: str | Rule = "physical",
        reward: Reward = "terminal",
        order: Order = "rank",
        render_mode: None = None,
    ) -> None:
        check_reward(reward)
        if num_envs < 1:
            raise InvalidOption(f"num_envs is {num_envs}; expected >= 1")
        self.rule, self.reward, self.order, self.num_envs = resolve_rule(rule), reward, order, num_envs
        if self.rule.queue == "priority":
            raise InvalidOption(
                "rule.queue is 'priority', which needs ranks; Assign-v0 places without: use fifo or lifo"
            )
        self.render_mode = render_mode
        self.problem = problem
        sizes = Sizes(problem.n_ops, problem.graph.n_edges, problem.n_devices)
        self.single_observation_space = observation_space(sizes)
        self.single_action_space = spaces.Discrete(problem.n_devices)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.episodes = AssignEpisodes(
            compile_problem(problem, self.rule), assignment_order(problem, order), num_envs, reference_s(problem)
        )
        self._op = np.zeros((num_envs, 1), np.int32)
        self._static = {
            name: np.broadcast_to(value, (num_envs, *value.shape))
            for name, value in static_observation(problem, sizes).items()
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
        """Places the next op of every episode, or begins new episodes after the last op.

        `info` of the last step has `makespan_s` float64 [B], `op_device` int32 [B, n_ops], `overfull` bool [B].

        Raises:
            InvalidAction: A device outside its episode's action mask (the first one is named); nothing changes.
        """
        episodes = self.episodes
        never = np.zeros(self.num_envs, dtype=np.bool_)
        if episodes.done:
            episodes.reset()
            return self._observation(), np.zeros(self.num_envs), never, never.copy(), {}
        before = episodes.reached_s.copy()
        episodes.step(actions)
        rewards, info = settle(self.reward, before, episodes)
        return self._observation(), rewards, ~never if episodes.done else never, never.copy(), info

    def _observation(self) -> Observation:
        episodes = self.episodes
        self._op.fill(episodes.op)
        return {
            **self._static,
            "op": self._op,
            "device_features": episodes.features.reshape(self.num_envs, -1),
            "op_device": episodes.op_device,
            "action_mask": episodes.mask.view(np.int8),
        }
