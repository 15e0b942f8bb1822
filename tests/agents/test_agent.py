"""What all learners share: how a budget is spent, and what an environment must be like."""

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import pytest

import placement_gym as pg
from agents.agent import native_env, spent_share
from agents.dual_problem import native_select_place
from placement_gym.envs import Sizes
from placement_gym.errors import InvalidOption

TOY = pg.workloads.layered(n_ops=6, n_devices=2)


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"problems": [TOY, pg.workloads.layered(n_ops=5, n_devices=2)]}, "draws its problems"),
        ({"problems": lambda _: TOY, "sizes": Sizes.of([TOY])}, "draws its problems"),
        ({"groups": "colocation"}, "places groups"),
        ({"objective": "max_load"}, "has objective 'max_load'"),
        ({"noise": 0.1}, "has noise 0.1"),
        ({"observation": "flat"}, "has observation 'flat'"),
        ({"autoreset_mode": "SAME_STEP"}, "has autoreset_mode SAME_STEP"),
        ({"rule": pg.Rule(queue="priority")}, "has rule.queue 'priority'"),
    ],
)
def test_what_learners_cannot_deal_with_is_refused(options: dict[str, Any], said: str) -> None:
    """In one line, by learners of both environments."""
    if "problems" not in options:
        options = {"problem": TOY, **options}
    for name, take in (("Assign", native_env), ("SelectPlace", lambda env: native_select_place(env, "dual"))):
        env = gym.make_vec(f"placement_gym/{name}-v0", num_envs=2, **options)
        with pytest.raises(InvalidOption, match=f"vec_env {said}") as caught:
            take(env)
        assert "\n" not in str(caught.value)


def test_order_of_selection_ranks_ops() -> None:
    """A priority queue is all right where the policy selects the ops, and so is whatever becomes of illegal actions."""
    env = gym.make_vec("placement_gym/SelectPlace-v0", num_envs=2, problem=TOY, priority="selection", invalid="nearest")
    assert native_select_place(env, "dual").rule.queue == "priority"
