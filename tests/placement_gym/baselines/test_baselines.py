"""Every baseline: feasible, honest about its calls, never below the optimum or a bound."""

import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InfeasiblePlacement, InvalidOption
from placement_gym.methods import METHODS
from placement_gym.result import Result
from placement_gym.rule import PRESETS

# Those of another objective than the makespan; their own tests hold them to it.
OTHER_OBJECTIVES = {"dp", "pipeline_split", "mip", "greedy_latency", "load_local_search", "metis", "expert"}
FAST = sorted(set(METHODS) - {"brute_force"} - OTHER_OBJECTIVES)


def run(name: str, problem: pg.Problem, rule: str, seed: int = 0) -> Result:
    """The baseline with a small budget, and its seed if it takes one."""
    options: dict[str, int] = {}
    if name in ("random_search", "local_search", "simulated_annealing"):
        options = {"simulator_calls": 60, "seed": seed}
    elif name == "critical_path":
        options = {"n_tries": 5, "seed": seed}
    return METHODS[name](problem, rule=rule, **options)


@pytest.mark.parametrize("rule", sorted(PRESETS))
@pytest.mark.parametrize("seed", range(12))
def test_no_baseline_beats_brute_force_nor_a_bound(rule: str, seed: int) -> None:
    """On small unlike problems with unsupported devices: bound <= optimum <= every baseline, all feasible."""
    problem = random_problem(
        np.random.default_rng(seed), n_ops=5, n_devices=3, whole_numbers=seed % 2 == 0, unsupported=seed % 3 == 0
    )
    optimum = pg.exact.brute_force(problem, rule=rule)
    assert optimum.status == "optimal"
    assert lower_bound_s(problem) <= optimum.objective
    for name in FAST:
        try:
            result = run(name, problem, rule)
        except InfeasiblePlacement:
            assert name == "single_device"  # no device runs every op
            continue
        result.placement.check(problem)
        assert result.objective >= optimum.objective
        assert result.lower_bound <= result.objective
        assert result.objective == pg.simulate(problem, result.placement, rule=rule).makespan_s
        if result.status == "optimal":
            assert result.objective == pytest.approx(optimum.objective, rel=1e-9)


@pytest.mark.parametrize("name", sorted(pg.workloads.TOYS))
def test_searches_solve_the_toys(name: str) -> None:
    """Annealing, descent and random search find the optimum written beside each toy; brute force proves it."""
    toy = pg.workloads.TOYS[name]()
    assert pg.exact.brute_force(toy.problem, rule=toy.rule).objective == toy.optimum_s
    for search in (pg.baselines.simulated_annealing, pg.baselines.local_search, pg.baselines.random_search):
        assert search(toy.problem, rule=toy.rule, simulator_calls=300).objective == toy.optimum_s


@pytest.mark.parametrize("name", ["random_search", "local_search", "simulated_annealing"])
def test_budget_is_spent_and_not_overspent(name: str) -> None:
    """A search makes exactly as many calls as it is given, and the seed decides what it finds."""
    problem = pg.workloads.random_dag(n_ops=60, seed=1)
    results = [METHODS[name](problem, simulator_calls=500, seed=seed) for seed in (3, 3, 4)]
    assert [r.simulator_calls for r in results] == [500, 500, 500]
    assert (results[0].placement.op_device == results[1].placement.op_device).all()
    assert (results[0].placement.op_device != results[2].placement.op_device).any()
    assert results[0].status == "budget_exhausted"


def test_annealing_improves_on_its_start_and_on_descent() -> None:
    """On a layered graph: annealing beats its critical-path start; restarts share one budget."""
    problem = pg.workloads.layered(n_ops=80, seed=0, ccr=1.0)
    start = pg.baselines.critical_path(problem, n_tries=10)
    annealed = pg.baselines.simulated_annealing(problem, simulator_calls=3000)
    assert annealed.objective < start.objective
    assert pg.baselines.simulated_annealing(problem, simulator_calls=3000, restarts=3).simulator_calls == 3000


def test_more_list_schedules_are_never_worse() -> None:
    """The best of 50 tries is at most the first of them; ties are broken at random but by seed."""
    problem = pg.workloads.layered(n_ops=60, seed=2)
    one, many = (pg.baselines.critical_path(problem, n_tries=n, seed=5) for n in (1, 50))
    assert many.objective <= one.objective
    assert (one.simulator_calls, many.simulator_calls) == (1, 50)


def test_heft_uses_gaps() -> None:
    """HEFT by hand (device 1 is 10x slower, free links): a long first, then b's chain; the small op fills the gap."""
    # p (4 s on device 1 only) feeds q on device 0; r (2 s) has the lowest rank and fits before q on device 0.
    graph = pg.OpGraph.build(["p", "q", "r"], [(0, 1, 0.0)])
    problem = pg.Problem.from_times(graph, [[np.inf, 4.0], [3.0, np.inf], [2.0, np.inf]])
    assert pg.baselines.heft(problem).objective == 7.0


def test_memory_is_kept() -> None:
    """Where each device holds two ops of six, every baseline puts two on each, or says that it cannot."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(6)], [(i, i + 1, 1.0) for i in range(5)])
    problem = pg.Problem.from_times(
        graph, np.ones((6, 3)), link_bytes_per_s=1.0, device_memory_bytes=2.0, op_memory_bytes=np.ones(6)
    )
    for name in FAST:
        result = run(name, problem, "physical")
        if name == "single_device":
            assert (result.status, result.excess_bytes) == ("no_feasible_found", 4.0)
        else:
            assert np.bincount(result.placement.op_device).tolist() == [2, 2, 2]


def test_colocation_is_kept() -> None:
    """Ops of one group share a device in every baseline."""
    base = pg.workloads.layered(n_ops=40, seed=3)
    groups = np.where(np.arange(40) % 4 == 0, np.arange(40) // 8, -1)
    edges = list(
        zip(base.graph.edge_src.tolist(), base.graph.edge_dst.tolist(), base.graph.edge_bytes.tolist(), strict=True)
    )
    graph = pg.OpGraph.build(base.graph.op_names, edges, colocation=groups)
    problem = pg.Problem.from_times(graph, base.op_time_s, link_bytes_per_s=10e9)
    for name in FAST:
        run(name, problem, "giph").placement.check(problem)


def test_nothing_fits() -> None:
    """Where nothing fits, searches say so and return the least excess; methods that prove it raise."""
    graph = pg.OpGraph.build(["a", "b", "c"], [])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=np.full(3, 2.0))
    for name in sorted(set(METHODS) - {"expert"}):  # which needs a file
        if name in ("brute_force", "dp", "mip", "pipeline_split", "greedy_latency"):
            with pytest.raises(InfeasiblePlacement, match="problem"):
                run(name, problem, "physical")
        else:
            result = run(name, problem, "physical")
            least = 3.0 if name == "single_device" else 1.0
            assert (name, result.status, result.excess_bytes) == (name, "no_feasible_found", least)


def test_wrong_options_are_named() -> None:
    """Budgets and temperatures outside their range say what was got and expected."""
    problem = pg.workloads.layered(n_ops=10)
    with pytest.raises(InvalidOption, match="simulator_calls is 5; expected >= 20"):
        pg.baselines.simulated_annealing(problem, simulator_calls=5)
    with pytest.raises(InvalidOption, match=r"hot is 0.1 and cold 0.2"):
        pg.baselines.simulated_annealing(problem, hot=0.1, cold=0.2)
    with pytest.raises(InvalidOption, match="n_tries is 0"):
        pg.baselines.critical_path(problem, n_tries=0)
    with pytest.raises(InvalidOption, match="brute force is limited to 10"):
        pg.exact.brute_force(problem, limit=10)
