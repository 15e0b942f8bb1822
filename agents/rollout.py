"""Rollout: B episodes of a vector environment that are all at the same step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from placement_gym.envs import AssignVectorEnv
from placement_gym.envs.observation import ACTION_FEATURES, table


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """What a batch of episodes saw and did.

    Attributes:
        ops: int64 [T], op of each step.
        features: float32 [T, B, n_devices, n_features], of the devices.
        masks: bool [T, B, n_devices].
        actions: int64 [T, B].
        makespans_s: float64 [B].
        feasible: bool [B], within memory.
        op_device: int32 [B, n_ops].
        returns: float64 [B], sum of rewards.
    """

    ops: Tensor
    features: Tensor
    masks: Tensor
    actions: Tensor
    makespans_s: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    op_device: NDArray[np.int32]
    returns: NDArray[np.float64]


# (op number, features of devices [B, D, F], masks [B, D]) -> actions int64 [B]
Policy = Callable[[int, Tensor, Tensor], Tensor]


def roll_out(env: AssignVectorEnv, act: Policy) -> Rollout:
    """Runs one batch of episodes to the end.

    Args:
        env: The vector environment (see `agent.native_env`); its observations may be views.
        act: The policy.
    """
    problem = env.problem
    (n, d), b, f = (problem.n_ops, problem.n_devices), env.num_envs, len(ACTION_FEATURES)
    ops, actions = torch.empty(n, dtype=torch.int64), torch.empty(n, b, dtype=torch.int64)
    features, masks = torch.empty(n, b, d, f), torch.empty(n, b, d, dtype=torch.bool)
    returns = np.zeros(b)
    info: dict[str, Any] = {}
    observation, _ = env.reset()
    for t in range(n):
        ops[t] = int(observation["op"][0, 0])
        # Written through arrays, because torch wants no tensors of read-only views.
        features[t].numpy()[:] = table("action_features", observation["action_features"])[:, :d]
        masks[t].numpy()[:] = observation["action_mask"][:, :d]
        actions[t] = act(int(ops[t]), features[t], masks[t])
        observation, rewards, _, _, info = env.step(actions[t].numpy())
        returns += rewards
    op_device = info["op_device"][:, :n]
    return Rollout(ops, features, masks, actions, info["makespan_s"], ~info["overfull"], op_device, returns)
