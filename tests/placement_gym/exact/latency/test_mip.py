"""mip for the latency: equal to trying every placement, its bounds never above that."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from published import Published

import placement_gym as pg
from placement_gym.errors import InfeasiblePlacement, InvalidOption, InvalidProblem
from placement_gym.exact import Solver, mip
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.latency.bounds import Stagewise
from placement_gym.objectives import contiguous_pieces, latency_s, pays_for_transfers
from placement_gym.placement import infeasibility

pytest.importorskip("ortools")
QUICK = Solver(time_limit_s=20.0, workers=1)


def random_latency_problem(rng: np.random.Generator, *, max_ops: int = 6, alike: bool = True) -> pg.Problem:
    """Idle ops, colocation groups, large and small tensors; one to three accelerators, CPUs or none, memory or none."""
    n_ops, n_accelerators = int(rng.integers(1, max_ops + 1)), int(rng.integers(1, 4))
    n_cpus = int(rng.integers(0, 2))
    n_devices = n_accelerators + n_cpus
    size = rng.exponential(rng.choice([0.1, 1.0, 3.0]), n_ops)
    share = rng.choice([0.25, 0.5, 0.8])
    edges = [(a, b, size[a]) for a in range(n_ops) for b in range(a + 1, n_ops) if rng.random() < share]
    work = rng.exponential(1.0, n_ops) * (rng.random(n_ops) < 0.6)
    slower = np.concatenate([np.ones(n_accelerators), np.full(n_cpus, rng.choice([1.5, 4.0, 20.0]))])
    time_s = work[:, None] * slower[None, :]
    if not alike:
        time_s = time_s * rng.uniform(0.5, 2.0, time_s.shape)
    grouped = rng.random() < 0.6
    speed = np.ones((n_devices, n_devices)) if alike else rng.uniform(0.3, 2.0, (n_devices, n_devices))
    return pg.Problem.from_times(
        pg.OpGraph.build(
            [f"op{i}" for i in range(n_ops)],
            edges,
            colocation=np.where(rng.random(n_ops) < 0.6, rng.integers(0, 2, n_ops), -1) if grouped else -1,
        ),
        time_s,
        link_bytes_per_s=speed,
        op_memory_bytes=rng.integers(0, 3, n_ops),
        device_kinds=["accelerator"] * n_accelerators + ["cpu"] * n_cpus,
        device_memory_bytes=[float(rng.integers(3, 9))] * n_accelerators + [np.inf] * n_cpus,
    )


def least_latency_s(problem: pg.Problem, subgraphs: int) -> float:
    """Every placement into devices and subgraphs; inf if none is feasible."""
    pays = pays_for_transfers(problem)
    places = [(d, s) for d in range(problem.n_devices) for s in range(subgraphs if pays[d] else 1)]
    best = np.inf
    for chosen in itertools.product(places, repeat=problem.n_ops):
        devices = np.array([d for d, _ in chosen], dtype=np.int32)
        if infeasibility(problem, devices) is not None:
            continue
        pieces = np.array([s for _, s in chosen], dtype=np.int32)
        try:
            best = min(best, latency_s(problem, devices, pieces))
        except InfeasiblePlacement:
            continue
    return best


def made(seed: int, *, max_ops: int = 6, alike: bool = True) -> pg.Problem | None:
    """A random problem, None where a group fits nowhere."""
    try:
        return random_latency_problem(np.random.default_rng(seed), max_ops=max_ops, alike=alike)
    except InvalidProblem:
        return None


def check_bounds(problem: pg.Problem, optimum: float, subgraphs: int) -> None:
    """The dynamic programmes alone: bound <= optimum <= placement."""
    deadline = Deadline(60.0)
    relaxed, whole = Stagewise.relaxed(problem, subgraphs, deadline), Stagewise.whole(problem, deadline)
    assert relaxed is not None
    assert whole is not None
    assert relaxed.lower_bound_s(1e9, deadline) <= optimum * (1 + 1e-9)
    placement = whole.placement(1e9, deadline)
    if placement is not None:
        try:
            assert latency_s(problem, placement) >= optimum * (1 - 1e-9)
        except InfeasiblePlacement as error:
            # Each part fits; CPUs of little memory are not in these problems.
            raise AssertionError from error


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 1, 2]))
def test_dynamic_programmes_bound_every_placement(seed: int, subgraphs: int) -> None:
    """The lower bound is below the best of all placements, the placement found is not below it."""
    problem = made(seed, max_ops=6 if subgraphs == 1 else 4)
    if problem is None or (problem.n_devices * subgraphs) ** problem.n_ops > 5000:
        return
    optimum = least_latency_s(problem, subgraphs)
    if optimum < np.inf:
        check_bounds(problem, optimum, subgraphs)


@pytest.mark.parametrize("seed", range(24))
def test_equals_the_best_of_all_placements(seed: int) -> None:
    """One subgraph or two, devices and links alike or not: proven, and the least latency of all."""
    subgraphs, alike = 1 + seed % 3 // 2, seed % 4 > 0
    problem = made(1000 + seed, max_ops=5 if subgraphs == 1 else 4, alike=alike)
    if problem is None or (problem.n_devices * subgraphs) ** problem.n_ops > 20_000:
        return
    optimum = least_latency_s(problem, subgraphs)
    if optimum == np.inf:
        with pytest.raises(InfeasiblePlacement, match="no placement of 'problem' is feasible"):
            mip(problem, objective="latency", subgraphs=subgraphs, solver=QUICK)
        return
    result = mip(problem, objective="latency", subgraphs=subgraphs, solver=QUICK)
    assert result.status == "optimal"
    assert result.objective == pytest.approx(optimum, rel=2e-6, abs=1e-9)
    assert optimum * (1 - 2e-6) - 1e-9 <= result.class_lower_bound <= optimum * (1 + 1e-9)
    assert result.objective == latency_s(problem, result.placement.op_device, result.op_subgraph)
    if subgraphs == 1:
        on_accelerator = pays_for_transfers(problem)[result.placement.op_device]
        assert contiguous_pieces(problem, result.placement.op_device)[on_accelerator].max(initial=0) == 0


def test_what_one_subgraph_proves_is_said_to_hold_for_that_alone() -> None:
    """25 random problems: what is proved of one subgraph per accelerator, and the bound on any number of them."""
    checked = 0
    for seed in range(2000, 2400):
        problem = made(seed, max_ops=4)
        if problem is None or checked == 25:
            continue
        one = least_latency_s(problem, 1)
        if one == np.inf:
            continue
        result = mip(problem, objective="latency", solver=QUICK)
        assert result.lower_bound <= least_latency_s(problem, 2) * (1 + 1e-9)
        assert result.lower_bound <= result.class_lower_bound <= one * (1 + 1e-9)
        assert result.restricted_to == "one subgraph per accelerator"
        checked += 1
    assert checked == 25


def test_highs_solves_it_too() -> None:
    """The same rows with big-M."""
    problem = made(1001, max_ops=5)
    assert problem is not None
    result = mip(problem, objective="latency", solver=Solver("highs", time_limit_s=20.0, workers=1))
    assert result.objective == pytest.approx(least_latency_s(problem, 1), rel=2e-6)


def test_a_start_with_more_subgraphs_is_refused() -> None:
    """A and c on the accelerator with b between them on the CPU are two subgraphs."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 1.0), (1, 2, 1.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), link_bytes_per_s=1.0, device_kinds=["accelerator", "cpu"])
    start = np.array([0, 1, 0])
    with pytest.raises(InvalidOption, match="has 2 subgraphs on an accelerator, not 1"):
        mip(problem, objective="latency", start=start, solver=QUICK)
    assert mip(problem, objective="latency", start=start, subgraphs=2, solver=QUICK).objective == 3.0


PROVEN = {
    "latency-inputs/LayerGraphs/bert24_inference": 100.2185,
    "latency-inputs/LayerGraphs/resnet50_inference": 1156.88128125,
    "latency-inputs/OperatorGraphs/resnet50_inference": 651.1207589922,
}


@pytest.mark.parametrize("name", sorted(PROVEN))
def test_published_instances_that_the_dynamic_programmes_close(published: Published, name: str) -> None:
    """Three of six are proven without a solver; none is worse than the paper's greedy."""
    problem = published.problem(name)
    start: NDArray[np.int32] = pg.baselines.greedy_latency(problem).placement.op_device
    result = mip(problem, objective="latency", start=start, solver=Solver(time_limit_s=30.0, workers=1))
    assert result.status == "optimal"
    assert result.objective * 1e3 == pytest.approx(PROVEN[name], rel=1e-9)
    assert result.objective * 1e3 <= published.values[name]["latency_q1"]["greedy"] * (1 + 1e-9)


@pytest.mark.parametrize("seed", [33, 373])
def test_long_times_beside_short_transfers_are_proven(seed: int) -> None:
    """Times near 1,000 s with transfers of about one: CP-SAT once raised bounds unit by unit until the limit."""
    problem = made(seed, max_ops=4, alike=False)
    assert problem is not None
    problem = replace(problem, op_time_s=problem.op_time_s * 1e3)
    result = mip(problem, objective="latency", solver=QUICK)
    assert result.status == "optimal"
    assert result.objective == pytest.approx(least_latency_s(problem, 1), rel=2e-6)
