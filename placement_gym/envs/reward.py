"""Rewards: an objective over a reference, at the end or as it grows; both add up to the same return."""

from typing import Literal

Reward = Literal["terminal", "dense"]
# What an illegal action costs under invalid="penalty", in units of the reference.
PENALTY = 0.1
