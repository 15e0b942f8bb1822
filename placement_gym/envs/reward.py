"""Rewards: a makespan over a reference, at the end or as it grows; both add up to the same return."""

from typing import Any, Literal, get_args

import numpy as np

from placement_gym.arrays import FloatArray
from placement_gym.envs.episodes import Episodes
from placement_gym.errors import InvalidOption, unknown_name
from placement_gym.problem import Problem
from placement_gym.ranks import fastest_op_time_s

Reward = Literal["terminal", "dense"]
# An episode whose placement does not fit into memory returns this: worse than any placement of practical interest.
OVERFULL_RETURN = -10.0


def check_reward(reward: str) -> None:
    """Raises InvalidOption, listing the known ones, if `reward` is none of them."""
    if reward not in get_args(Reward):
        raise InvalidOption(unknown_name("reward", reward, get_args(Reward)))


def reference_s(problem: Problem) -> float:
    """What makespans are measured by: all ops one after the other, each on its fastest device (1 s if that is 0)."""
    return float(fastest_op_time_s(problem).sum()) or 1.0


def settle(reward: Reward, before_s: FloatArray, episodes: Episodes) -> tuple[FloatArray, dict[str, Any]]:
    """(rewards float64 [B], info) of the step that was just made; info is empty but for the last step.

    Args:
        reward: "terminal" or "dense".
        before_s: float64 [B], a copy of `episodes.reached_s` from before the step.
        episodes: After the step.

    Returns:
        Dense rewards are minus what the clock grew by. The last step brings what is missing from the return: minus
        makespan over reference, or OVERFULL_RETURN. Its info has `makespan_s` float64 [B], `op_device` int32
        [B, n_ops], `overfull` bool [B].
    """
    reference, b = episodes.reference_s, episodes.n_episodes
    if not episodes.done:
        return (before_s - episodes.reached_s) / reference if reward == "dense" else np.zeros(b), {}
    makespans_s, excess_bytes = episodes.weigh()
    overfull = excess_bytes > 0
    returns = np.where(overfull, OVERFULL_RETURN, -makespans_s / reference)
    rewards = returns + before_s / reference if reward == "dense" else returns
    return rewards, {"makespan_s": makespans_s, "op_device": episodes.op_device.copy(), "overfull": overfull}


def of_one(rewards: FloatArray, info: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """What `settle` says of a single episode, in plain numbers and rows."""
    one = {name: values[0] if values.ndim > 1 else values[0].item() for name, values in info.items()}
    return float(rewards[0]), one
