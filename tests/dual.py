"""Small dual policies and what tests ask of them."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

import placement_gym as pg
from agents.agent import Update
from agents.dual_config import DualPolicyConfig
from agents.dual_policy import DualPolicyAgent
from agents.dual_rollout import DualRollout

SMALL = DualPolicyConfig(width=16, n_layers=1, imitation_updates=3, n_elite=2, batches=2)
GRAPH = pg.workloads.layered(n_ops=16, n_devices=3, seed=1, ccr=1.0)


def vec(problem: pg.Problem, num_envs: int = 8, **options: Any) -> Any:
    """The native vector environment."""
    return gym.make_vec("placement_gym/SelectPlace-v0", num_envs=num_envs, problem=problem, **options)


def make(problem: pg.Problem, seed: int = 0, config: DualPolicyConfig = SMALL, **options: Any) -> DualPolicyAgent:
    """A small learner."""
    if config.policy == "joint":
        options["action"] = "joint"
    return DualPolicyAgent(vec(problem, **options), config, seed=seed, torch_device="cpu")


def last(agent: DualPolicyAgent, simulator_calls: int) -> Update:
    """The last update of a training."""
    *_, update = agent.train(simulator_calls=simulator_calls)
    return update


def free_batch(agent: DualPolicyAgent, n_greedy: int = 0) -> DualRollout:
    """Episodes that follow no guide."""
    return agent.player.play(agent.player.snapshot(), np.random.default_rng(0), n_greedy=n_greedy)


def weights(agent: DualPolicyAgent) -> list[torch.Tensor]:
    """All weights of the policy."""
    return [p.detach().clone() for p in agent.policy.parameters()]
