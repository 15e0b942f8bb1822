"""The environment of a dual policy, and what its networks read of the problem."""

from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from agents.dual_config import Kind
from agents.networks.dual import GraphTensors
from agents.networks.paths import jump_table, next_on_path
from placement_gym.envs import SelectPlaceVectorEnv
from placement_gym.envs.observation import OP_FEATURES, table
from placement_gym.errors import InvalidOption


def native_select_place(vec_env: "VectorEnv[Any, Any, Any]", policy: Kind) -> SelectPlaceVectorEnv:
    """The native vector environment inside `vec_env`.

    Raises:
        InvalidOption: `vec_env` holds none, has fewer than 2 episodes, or its action is not the policy's.
    """
    env = vec_env.unwrapped
    if not isinstance(env, SelectPlaceVectorEnv):
        raise InvalidOption(
            f"vec_env is a {type(env).__name__}; expected the native SelectPlaceVectorEnv (gym.make_vec)"
        )
    if env.num_envs < 2:
        raise InvalidOption(f"vec_env has {env.num_envs} episode; expected at least 2")
    action = "joint" if policy == "joint" else "phased"
    if env.action != action:
        raise InvalidOption(f"vec_env has action {env.action!r}; expected {action!r} for policy {policy!r}")
    return env


def graph_of(env: SelectPlaceVectorEnv, device: torch.device) -> GraphTensors:
    """The environment's problem as the tensors that the networks read."""
    observation, _ = env.reset()
    op_features, edge_index, edge_features = (
        np.array(table(key, observation[key][0])) for key in ("op_features", "edge_index", "edge_features")
    )
    n_edges = int(observation["n_edges"][0, 0])
    edge_index, edge_features = edge_index[:, :n_edges], edge_features[:n_edges]
    time, transfer = (
        op_features[:, OP_FEATURES.index("time")].astype(np.float64),
        edge_features[:, 0].astype(np.float64),
    )
    tables = [jump_table(next_on_path(time, edges, transfer)) for edges in (edge_index, edge_index[::-1])]
    parts = [torch.from_numpy(part) for part in (op_features, edge_index, edge_features)]
    return GraphTensors(*(part.to(device) for part in (*parts, *tables)))
