"""Environments: placement as Markov decision processes."""

import gymnasium as gym

from placement_gym.envs.assign import AssignEnv, AssignVectorEnv
from placement_gym.envs.base import PlacementEnv
from placement_gym.envs.improve import ImproveEnv, ImproveVectorEnv
from placement_gym.envs.observation import Sizes
from placement_gym.envs.observation_graph import to_pyg
from placement_gym.envs.select_place import SelectPlaceEnv, SelectPlaceVectorEnv
from placement_gym.envs.vector import PlacementVectorEnv

for _name, _module in (
    ("Assign", "assign"),
    ("SelectPlace", "select_place"),
    ("Improve", "improve"),
):
    gym.register(
        id=f"placement_gym/{_name}-v0",
        entry_point=f"placement_gym.envs.{_module}:{_name}Env",
        vector_entry_point=f"placement_gym.envs.{_module}:{_name}VectorEnv",
    )

__all__ = [
    "AssignEnv",
    "AssignVectorEnv",
    "ImproveEnv",
    "ImproveVectorEnv",
    "PlacementEnv",
    "PlacementVectorEnv",
    "SelectPlaceEnv",
    "SelectPlaceVectorEnv",
    "Sizes",
    "to_pyg",
]
