"""Rewards: a makespan over a reference, at the end or as it grows; both add up to the same return."""

from typing import Literal, get_args

import numpy as np

from placement_gym.arrays import FloatArray
from placement_gym.errors import InvalidOption, unknown_name
from placement_gym.problem import Problem
from placement_gym.ranks import fastest_op_time_s

Reward = Literal["terminal", "dense"]
# An episode that ends over memory returns minus this: worse than any placement of practical interest.
OVERFULL_RETURN = -10.0


def check_reward(reward: str) -> None:
    """Raises InvalidOption, listing the known ones, if `reward` is none of them."""
    if reward not in get_args(Reward):
        raise InvalidOption(unknown_name("reward", reward, get_args(Reward)))


def reference_s(problem: Problem) -> float:
    """What makespans are measured by: all ops one after the other, each on its fastest device (1 s if that is 0)."""
    return float(fastest_op_time_s(problem).sum()) or 1.0


def step_rewards(reward: Reward, before_s: FloatArray, after_s: FloatArray, reference: float) -> FloatArray:
    """float64 [B]: reward of a step that is not the last, from the clock before and after it."""
    return (before_s - after_s) / reference if reward == "dense" else np.zeros(len(before_s))


def last_rewards(
    reward: Reward, before_s: FloatArray, makespans_s: FloatArray, overfull: np.ndarray, reference: float
) -> FloatArray:
    """float64 [B]: reward of the last step: what is missing from the return, minus makespan over reference."""
    returns = np.where(overfull, OVERFULL_RETURN, -makespans_s / reference)
    return returns + before_s / reference if reward == "dense" else returns
