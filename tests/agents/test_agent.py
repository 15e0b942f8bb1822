"""What all learners share: how a budget is spent."""

import math
from dataclasses import dataclass

import pytest

from agents.agent import spent_share
from placement_gym.errors import InvalidOption


@dataclass
class Spent:
    """What an agent has spent."""

    simulator_calls: int
    seconds: float


@pytest.mark.parametrize(
    ("simulator_calls", "seconds", "batch", "expected"),
    [
        (100, None, 0, 0.4),
        (None, 20.0, 0, 0.15),
        (100, 20.0, 0, 0.4),
        (100, 4.0, 0, 0.75),
        (40, None, 0, 1.0),
        (100, None, 60, 0.4),
        (100, None, 61, math.inf),
        (None, 20.0, 10**9, 0.15),
    ],
)
def test_the_share_that_is_spent(
    simulator_calls: int | None, seconds: float | None, batch: int, expected: float
) -> None:
    """Of 40 calls and 3 seconds, by hand; a batch that the calls do not allow ends the training."""
    assert spent_share(Spent(40, 3.0), simulator_calls, seconds, batch=batch) == expected


def test_a_budget_is_needed() -> None:
    """Without one, training would not end."""
    with pytest.raises(InvalidOption, match="simulator_calls or seconds"):
        spent_share(Spent(0, 0.0), None, None)
