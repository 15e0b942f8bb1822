"""Synthetic problems and toys."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InvalidProblem
from placement_gym.placement import infeasibility

GENERATORS = [
    pg.workloads.layered, pg.workloads.random_dag, pg.workloads.fork_join, pg.workloads.series_parallel,
]  # fmt: skip


@pytest.mark.parametrize("generate", GENERATORS)
def test_same_seed_same_problem(generate: Callable[..., pg.Problem]) -> None:
    """One seed gives one problem, another seed another; sizes are as asked; unlike devices are unlike."""
    problem = generate(n_ops=57, n_devices=3, seed=1)
    assert problem.fingerprint == generate(n_ops=57, n_devices=3, seed=1).fingerprint
    assert problem.fingerprint != generate(n_ops=57, n_devices=3, seed=2).fingerprint
    assert (problem.n_ops, problem.n_devices) == (57, 3)
    assert (problem.op_time_s[:, 0] == problem.op_time_s[:, 1]).all()
    assert (np.diff(generate(n_ops=57, n_devices=3, seed=1, spread=1.0).op_time_s, axis=1) != 0).all()
    assert generate(n_ops=1, n_devices=1).n_ops == 1
    with pytest.raises(InvalidProblem, match="n_ops is 0"):
        generate(n_ops=0)


@pytest.mark.parametrize("name", sorted(pg.workloads.TOYS))
def test_toy_optimum(name: str) -> None:
    """The optimum written beside each toy is the best of all its feasible placements."""
    toy = pg.workloads.TOYS[name]()
    every = itertools.product(range(toy.problem.n_devices), repeat=toy.problem.n_ops)
    feasible = [p for p in every if infeasibility(toy.problem, p) is None]
    assert pg.simulate_batch(toy.problem, feasible, rule=toy.rule).min() == toy.optimum_s
