"""Environments: placement as Markov decision processes."""

import gymnasium as gym

from placement_gym.envs.assign import AssignEnv
from placement_gym.envs.select_place import SelectPlaceEnv
from placement_gym.envs.select_place_episodes import SelectPlaceEpisodes
from placement_gym.envs.select_place_vector import SelectPlaceVectorEnv
from placement_gym.envs.vector import AssignVectorEnv

gym.register(
    id="placement_gym/Assign-v0",
    entry_point="placement_gym.envs.assign:AssignEnv",
    vector_entry_point="placement_gym.envs.vector:AssignVectorEnv",
)
gym.register(
    id="placement_gym/SelectPlace-v0",
    entry_point="placement_gym.envs.select_place:SelectPlaceEnv",
    vector_entry_point="placement_gym.envs.select_place_vector:SelectPlaceVectorEnv",
)

__all__ = ["AssignEnv", "AssignVectorEnv", "SelectPlaceEnv", "SelectPlaceEpisodes", "SelectPlaceVectorEnv"]
