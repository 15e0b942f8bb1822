"""Rollout: B episodes of a vector environment whose episodes run in lockstep."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from placement_gym.envs.observation import table


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """What a batch of episodes saw and did.

    Attributes:
        ops: int64 [T], op of each step.
        device_features: float32 [T, B, n_devices, n_features].
        masks: bool [T, B, n_devices].
        actions: int64 [T, B].
        makespans_s: float64 [B].
        feasible: bool [B], within memory.
        op_device: int32 [B, n_ops].
        returns: float64 [B], sum of rewards.
    """

    ops: Tensor
    device_features: Tensor
    masks: Tensor
    actions: Tensor
    makespans_s: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    op_device: NDArray[np.int32]
    returns: NDArray[np.float64]


# (op number, device features [B, D, F], masks [B, D]) -> actions int64 [B]
Policy = Callable[[int, Tensor, Tensor], Tensor]


def roll_out(
    env: "VectorEnv[dict[str, NDArray[np.generic]], NDArray[np.int64], NDArray[np.generic]]", act: Policy
) -> Rollout:
    """Runs one batch of episodes to the end.

    Args:
        env: A native vector environment of Assign-v0 (all episodes are at the same step).
        act: The policy.
    """
    observation, _ = env.reset()
    n_steps = int(observation["n_ops"][0, 0])
    b, d, f = table("device_features", observation["device_features"]).shape
    ops = torch.empty(n_steps, dtype=torch.int64)
    features, masks = torch.empty(n_steps, b, d, f), torch.empty(n_steps, b, d, dtype=torch.bool)
    actions = torch.empty(n_steps, b, dtype=torch.int64)
    returns = np.zeros(b)
    for t in range(n_steps):
        ops[t] = int(observation["op"][0, 0])
        features[t] = torch.from_numpy(table("device_features", observation["device_features"]))
        masks[t] = torch.from_numpy(observation["action_mask"]).bool()
        actions[t] = act(int(ops[t]), features[t], masks[t])
        observation, rewards, _, _, info = env.step(actions[t].numpy())
        returns += np.asarray(rewards, dtype=np.float64)
    return Rollout(ops, features, masks, actions, info["makespan_s"], ~info["overfull"], info["op_device"], returns)
