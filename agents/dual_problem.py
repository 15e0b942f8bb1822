"""The environment of a dual policy, and what its networks read of the problem."""

from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from agents.agent import check_task
from agents.dual_config import Kind
from agents.graph_input import EDGE_INPUTS, OP_INPUTS, GraphInput
from agents.networks.dual import GraphTensors
from agents.networks.paths import jump_table, next_on_path
from placement_gym.envs import SelectPlaceEnv, SelectPlaceVectorEnv
from placement_gym.errors import InvalidOption


def native_select_place(vec_env: "VectorEnv[Any, Any, Any]", policy: Kind) -> SelectPlaceVectorEnv:
    """The native vector environment inside `vec_env`.

    Raises:
        InvalidOption: `vec_env` holds none, has fewer than 2 episodes or another action than the policy, or as
            `check_task`.
    """
    env = vec_env.unwrapped
    if not isinstance(env, SelectPlaceVectorEnv):
        raise InvalidOption(
            f"vec_env is a {type(env).__name__}; expected the native SelectPlaceVectorEnv (gym.make_vec)"
        )
    if env.num_envs < 2:
        raise InvalidOption(f"vec_env has {env.num_envs} episode; expected at least 2")
    action = "joint" if policy == "joint" else "phased"
    assert isinstance(env.single, SelectPlaceEnv)
    if env.single.action != action:
        raise InvalidOption(f"vec_env has action {env.single.action!r}; expected {action!r} for policy {policy!r}")
    check_task(env)
    return env


def graph_of(env: SelectPlaceVectorEnv, device: torch.device) -> GraphTensors:
    """The environment's problem as the tensors that the networks read."""
    observation, _ = env.reset()
    op_features, edge_index, edge_features = parts = GraphInput.of(observation)
    time = op_features[:, OP_INPUTS.index("time")].astype(np.float64)
    transfer = edge_features[:, EDGE_INPUTS.index("time")].astype(np.float64)
    tables = [jump_table(next_on_path(time, edges, transfer)) for edges in (edge_index, edge_index[::-1])]
    return GraphTensors(*(part.to(device) for part in (*map(torch.from_numpy, parts), *tables)))
