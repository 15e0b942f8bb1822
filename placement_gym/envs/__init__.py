"""Environments: placement as Markov decision processes."""

import gymnasium as gym

from placement_gym.envs.assign import AssignEnv
from placement_gym.envs.vector import AssignVectorEnv

gym.register(
    id="placement_gym/Assign-v0",
    entry_point="placement_gym.envs.assign:AssignEnv",
    vector_entry_point="placement_gym.envs.vector:AssignVectorEnv",
)

__all__ = ["AssignEnv", "AssignVectorEnv"]
