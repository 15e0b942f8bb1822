"""Searches under a `priority` queue: the order is searched, returned, and is what the makespan goes by."""

import itertools

import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from placement_gym.baselines import local_search, simulated_annealing
from placement_gym.exact import Solver, mip

ORDERED = pg.Rule(queue="priority")


@pytest.mark.parametrize("search", [local_search, simulated_annealing])
def test_an_order_comes_with_the_placement(search: object) -> None:
    """The makespan is that of placement and order together; first come, first served there is no order."""
    for seed in range(6):
        problem = random_problem(np.random.default_rng(seed), n_ops=12, n_devices=2)
        result = search(problem, rule=ORDERED, simulator_calls=400, seed=seed)  # type: ignore[operator]
        again = pg.simulate(problem, result.placement, rule=ORDERED, priority=result.priority)
        assert again.makespan_s == result.objective
        result.schedule.check()
        assert search(problem, simulator_calls=400).priority is None  # type: ignore[operator]


def test_an_order_is_found_that_b_levels_miss() -> None:
    """On five problems annealing ends within 1 % of the best of all placements and orders, below that of b-levels."""
    found, best_of_all, by_ranks = [], [], []
    for seed in range(5):
        problem = random_problem(np.random.default_rng(100 + seed), n_ops=5, n_devices=2)
        placements = np.array(list(itertools.product(range(2), repeat=5)), dtype=np.int32)
        values = [
            pg.simulate_batch(problem, placements, rule=ORDERED, priorities=np.array(order, float)).min()
            for order in itertools.permutations(range(5))
        ]
        best_of_all.append(min(values))
        by_ranks.append(pg.exact.brute_force(problem, rule=ORDERED).objective)
        found.append(simulated_annealing(problem, rule=ORDERED, simulator_calls=2000, restarts=2).objective)
    assert (np.array(found) >= np.array(best_of_all) * (1 - 1e-12)).all()
    assert np.sum(found) <= np.sum(by_ranks)
    assert np.sum(found) <= 1.01 * np.sum(best_of_all)


def test_mip_returns_its_order() -> None:
    """The makespan is that of placement and order; what is proved is about the orders that were tried."""
    problem = random_problem(np.random.default_rng(3), n_ops=9, n_devices=2)
    result = mip(problem, rule=ORDERED, solver=Solver(time_limit_s=5.0, workers=2))
    priority = (
        result.priority
        if result.priority is not None
        else pg.ranks.b_level_s(problem, pg.ranks.mean_op_time_s(problem), pg.ranks.mean_edge_time_s(problem))
    )
    assert pg.simulate(problem, result.placement, rule=ORDERED, priority=priority).makespan_s == result.objective
    assert result.restricted_to == "the orders tried"
    assert result.lower_bound <= result.objective <= pg.exact.brute_force(problem, rule=ORDERED).objective * (1 + 1e-6)
