"""The constraint programme for the makespan: equal to brute force, and its bound never above it."""

import numpy as np
import pytest
from strategies import ALL_RULES, random_problem

import placement_gym as pg
from placement_gym.baselines.makespan_program import Solved, solve_makespan
from placement_gym.baselines.result import Judge
from placement_gym.rule import PRESETS

pytest.importorskip("ortools")
# A priority queue needs priorities, which brute force has none of.
RULES = [rule for rule in ALL_RULES if rule.queue != "priority"]


def small_problem(seed: int) -> pg.Problem:
    """Up to 6 ops on 2 or 3 devices: whole numbers and not, unsupported ops, several slots."""
    rng = np.random.default_rng(seed)
    return random_problem(
        rng,
        n_ops=int(rng.integers(3, 7)),
        n_devices=int(rng.integers(2, 4)),
        edge_share=0.5,
        whole_numbers=seed % 2 == 0,
        unsupported=seed % 3 == 0,
    )


def check(problem: pg.Problem, rule: pg.Rule, time_limit_s: float = 5.0) -> Solved:
    """Solves, and compares with brute force."""
    optimum = pg.baselines.brute_force(problem, rule=rule).objective
    judge = Judge("makespan", problem, rule)
    solved = solve_makespan(judge, time_limit_s=time_limit_s, gap=0.0, workers=1, start=None)
    assert solved.lower_bound <= optimum * (1 + 1e-9)
    if solved.op_device is not None:
        pg.Placement(solved.op_device).check(problem)
        makespan = judge.makespans_s(solved.op_device[None, :])[0]
        assert makespan >= optimum
        if solved.proven:
            assert makespan == pytest.approx(optimum, rel=1e-6, abs=1e-12)
    return solved
