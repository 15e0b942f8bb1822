"""mip: the makespan against brute force and the other baselines; what it refuses and how it ends early."""

import builtins
import itertools
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from placement_gym.errors import InfeasiblePlacement, InvalidOption, MissingDependency, PlacementGymError
from placement_gym.exact import brute_force, dp, mip, starts
from placement_gym.exact.makespan.program import Incumbent
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.objectives import latency_s

pytest.importorskip("ortools")
pytest.importorskip("highspy", exc_type=ModuleNotFoundError)
ONE = Solver(time_limit_s=30.0, workers=1)


def chain(n_ops: int = 6, n_devices: int = 2, **options: Any) -> pg.Problem:
    """Ops of 1 s in a row, tensors of 1 s."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(n_ops)], [(i, i + 1, 1.0) for i in range(n_ops - 1)])
    return pg.Problem.from_times(graph, np.ones((n_ops, n_devices)), link_bytes_per_s=1.0, **options)


def other_makespans_s(problem: pg.Problem, rule: str) -> dict[str, float]:
    """Of every other baseline that minimises the makespan."""
    found = {}
    for name in ("random_search", "local_search", "simulated_annealing"):
        found[name] = pg.METHODS[name](problem, rule=rule, simulator_calls=60, seed=1).objective
    for name in ("critical_path", "heft", "single_device"):
        try:
            found[name] = pg.METHODS[name](problem, rule=rule).objective
        except InfeasiblePlacement:
            assert name == "single_device"
    return found


@pytest.mark.parametrize("rule", ["giph", "link", "physical"])
@pytest.mark.parametrize("seed", range(3))
def test_makespan_equals_brute_force(rule: str, seed: int) -> None:
    """On small problems the makespan is brute force's, proven, and no other baseline's is lower."""
    problem = random_problem(
        np.random.default_rng(seed),
        n_ops=5,
        n_devices=3,
        edge_share=0.5,
        whole_numbers=seed == 0,
        unsupported=seed == 1,
    )
    optimum = brute_force(problem, rule=rule).objective
    result = mip(problem, objective="makespan", rule=rule, solver=ONE)
    assert (result.status, result.objective_name) == ("optimal", "makespan")
    assert result.objective == result.schedule.makespan_s
    assert result.objective == pytest.approx(optimum, rel=1e-6)
    assert result.lower_bound <= optimum * (1 + 1e-9)
    for name, makespan_s in other_makespans_s(problem, rule).items():
        assert result.objective <= makespan_s * (1 + 1e-6), name


def test_the_rule_counts() -> None:
    """By hand: one op feeds two others; where sendings wait for each other, more of them stay at home."""
    graph = pg.OpGraph.build(["a", "b", "c", "d"], [(0, 1, 2.0), (0, 2, 2.0), (0, 3, 2.0)])
    problem = pg.Problem.from_times(graph, np.full((4, 3), 3.0), link_bytes_per_s=1.0)
    # Free links: a, then two of the readers elsewhere after 2 s. Ports: the second sending ends after 4 s.
    free = mip(problem, objective="makespan", rule=pg.Rule(transfers="edge", contention="none"), solver=ONE)
    ports = mip(problem, objective="makespan", rule=pg.Rule(transfers="edge", contention="port"), solver=ONE)
    assert (free.objective, ports.objective) == (8.0, 9.0)


def test_the_schedule_is_that_of_the_rule_asked_for() -> None:
    """Whatever is minimised, the result's schedule is simulated under the rule."""
    for rule in ("giph", "physical"):
        result = mip(chain(), objective="max_load", rule=rule, solver=ONE)
        assert result.schedule.makespan_s == pg.simulate(chain(), result.placement, rule=rule).makespan_s
        assert result.objective_name == "max_load"
        # 3 of work and a tensor of 1 out or in.
        assert (result.objective, result.status) == (4.0, "optimal")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "speed"}, r"unknown objective 'speed'.*max_load"),
        (
            {"objective": "makespan", "contiguous": True},
            "contiguous is an option of max_load and gpipe_load, not of mak",
        ),
        (
            {"objective": "latency", "contiguous": True},
            "contiguous is an option of max_load and gpipe_load, not of lat",
        ),
        ({"subgraphs": 0}, "subgraphs is 0; expected >= 1, and 1 unless the objective is latency"),
        ({"subgraphs": 2}, "subgraphs is 2; expected >= 1, and 1 unless the objective is latency"),
        ({"objective": "latency", "subgraphs": 0}, "subgraphs is 0; expected >= 1"),
        ({"objective": "makespan", "solver": Solver(name="highs")}, "'highs' lacks; expected cp_sat"),
        (
            {"objective": "max_load", "contiguous": True, "start": [0, 1, 0, 0, 0, 0]},
            "the start is not contiguous: a path of forward edges",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    """What was got and what was expected."""
    with pytest.raises(InvalidOption, match=said):
        mip(chain(), **options)


def test_the_makespan_is_the_default() -> None:
    """As for the other baselines; results speak of `mip`."""
    result = mip(chain(), solver=ONE)
    assert (result.baseline, result.objective_name) == ("mip", "makespan")
    assert result.objective == result.schedule.makespan_s == mip(chain(), objective="makespan", solver=ONE).objective
    assert dp(chain()).baseline == "dp"


def test_a_start_that_is_infeasible_is_refused() -> None:
    """Of the wrong length, on a device that is not there, beyond memory, not of whole numbers."""
    problem = chain(op_memory_bytes=np.ones(6), device_memory_bytes=3.0)
    for start, said in (
        ([0] * 5, r"shape \(5,\); expected \(6,\)"),
        ([0, 0, 0, 1, 1, 2], "is on device 2; expected 0..1"),
        ([0] * 6, "would hold 6 bytes; its memory is 3 bytes"),
        ([0.5] * 6, "expected whole numbers"),
    ):
        with pytest.raises(InfeasiblePlacement, match=said):
            mip(problem, objective="max_load", start=start, solver=ONE)


def test_a_start_is_kept_where_there_is_no_time_and_bettered_where_there_is() -> None:
    """The start is where the search begins, for loads and for the makespan."""
    problem = pg.workloads.layered(n_ops=40, seed=0, n_devices=4)
    start = np.random.default_rng(0).integers(0, 4, 40)
    for options in ({"objective": "max_load"}, {"objective": "makespan"}):
        begun = mip(problem, start=start, solver=Solver(time_limit_s=1e-3, workers=1), **options)  # type: ignore[arg-type]
        later = mip(problem, start=start, solver=Solver(time_limit_s=0.5, workers=1), **options)  # type: ignore[arg-type]
        assert (begun.placement.op_device == start).all()
        assert begun.status == "limit_reached"
        assert later.objective < begun.objective
        assert begun.lower_bound <= later.objective


@pytest.mark.parametrize("objective", ["max_load", "gpipe_load", "makespan"])
@pytest.mark.parametrize("contiguous", [False, True])
def test_nothing_fits(objective: Any, contiguous: bool) -> None:
    """Memory of all ops together: no placement is feasible, and the message says so, not that time was short."""
    if objective == "makespan" and contiguous:
        return
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 1.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=[2.0, 2.0, 2.0])
    kind = r" \(contiguous\)$" if contiguous else "$"
    with pytest.raises(InfeasiblePlacement, match=f"no placement of 'problem' is feasible{kind}"):
        mip(problem, objective=objective, contiguous=contiguous, solver=ONE)


@pytest.mark.parametrize("contiguous", [False, True])
def test_a_short_limit_leaves_a_placement_and_a_bound(contiguous: bool) -> None:
    """Within a millisecond nothing is proven, but the heuristics' placement and a bound are there."""
    problem = pg.workloads.layered(n_ops=60, seed=1, n_devices=4)
    # First of all, so that no kernel is compiled while the clock runs.
    best = mip(problem, objective="max_load", contiguous=contiguous, solver=Solver(time_limit_s=0.5, workers=1))
    began = time.process_time()
    result = mip(problem, objective="max_load", contiguous=contiguous, solver=Solver(time_limit_s=1e-3, workers=1))
    assert time.process_time() - began < 2.0
    assert result.status == "limit_reached"
    assert 0 < result.lower_bound <= best.objective <= result.objective * (1 + 1e-9)


def test_a_short_limit_without_a_start_is_said() -> None:
    """Links that differ leave the contiguous programme without a pipeline, memory without a device for all ops.

    What is left is one device, with the bytes that it lacks.
    """
    base = pg.workloads.layered(n_ops=200, seed=1, n_devices=4)
    speed = np.array(base.link_bytes_per_s)
    speed[0, 1] /= 2
    problem = pg.Problem.from_times(
        base.graph,
        base.op_time_s,
        link_bytes_per_s=speed,
        name="unlike",
        op_memory_bytes=np.ones(200),
        device_memory_bytes=60.0,
    )
    result = mip(problem, objective="max_load", contiguous=True, solver=Solver(time_limit_s=1e-3, workers=1))
    assert (result.status, result.excess_bytes) == ("no_feasible_found", 140.0)


def test_loads_are_ordered_on_a_larger_problem() -> None:
    """Free <= contiguous <= pipelines, with bounds below; the seed changes no proven optimum."""
    problem = pg.workloads.series_parallel(n_ops=16, seed=3, n_devices=3)
    free, other = (
        mip(problem, objective="max_load", solver=Solver(time_limit_s=20.0, workers=2, seed=seed)) for seed in (0, 1)
    )
    kept = mip(problem, objective="max_load", contiguous=True, solver=Solver(time_limit_s=20.0, workers=2))
    assert free.lower_bound <= kept.objective
    assert free.objective <= kept.objective * (1 + 1e-6)
    assert kept.objective <= dp(problem).objective * (1 + 1e-9)
    if free.status == other.status == "optimal":
        assert free.objective == pytest.approx(other.objective, rel=2e-6)


def test_missing_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the solver's package no heuristic is started: the error names the extra."""
    real = builtins.__import__

    def without(module: str, *arguments: Any, **named: Any) -> Any:
        if module.split(".")[0] in ("ortools", "highspy"):
            raise ModuleNotFoundError(f"No module named {module!r}")
        return real(module, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    for solver in (None, Solver(name="highs")):
        with pytest.raises(MissingDependency, match=r"pip install placement-gym\[exact\]"):
            mip(chain(), objective="max_load", solver=solver)
    assert issubclass(MissingDependency, PlacementGymError)


def test_a_result_says_what_it_is_restricted_to() -> None:
    """Of pipelines, contiguous placements and few subgraphs; of all placements it says nothing."""
    problem = pg.Problem.from_times(
        pg.OpGraph.build(["a", "b", "c"], [(0, 1, 0.0), (1, 2, 0.0)]),
        [[1.0, 5.0], [9.0, 2.0], [1.0, 5.0]],
        link_bytes_per_s=1.0,
        device_kinds=["accelerator", "cpu"],
    )
    kept = mip(problem, objective="max_load", contiguous=True, solver=ONE)
    assert (kept.objective, kept.status, kept.restricted_to) == (7.0, "optimal", "contiguous")
    free = mip(problem, objective="max_load", solver=ONE)
    assert (free.objective, free.status, free.restricted_to) == (2.0, "optimal", None)
    assert dp(problem).restricted_to == "pipelines"
    one, two = (mip(problem, objective="latency", subgraphs=n, solver=ONE) for n in (1, 2))
    assert (one.objective, one.restricted_to) == (8.0, "one subgraph per accelerator")
    # With two subgraphs another placement goes below what is a bound for one, not below what is a bound for all.
    assert one.lower_bound <= latency_s(problem, np.array([0, 1, 0])) < one.class_lower_bound == 8.0
    assert kept.lower_bound <= 2.0 < kept.class_lower_bound == 7.0
    assert (kept.class_gap, free.class_gap) == (0.0, free.gap)
    assert kept.gap >= 5 / 7
    assert (two.objective, two.restricted_to) == (4.0, "2 subgraphs per accelerator")
    assert mip(problem, objective="makespan", solver=ONE).restricted_to is None


def side_by_side(n_chains: int = 16, length: int = 4) -> pg.Problem:
    """Chains of which any device can take any, so that many devices are far faster than one."""
    edges = [(op, op + 1, 0.01) for op in range(n_chains * length) if (op + 1) % length]
    graph = pg.OpGraph.build([f"op{i}" for i in range(n_chains * length)], edges)
    work = np.random.default_rng(0).uniform(0.5, 1.5, (n_chains * length, 1))
    return pg.Problem.from_times(graph, work * np.ones((1, 4)), link_bytes_per_s=1.0)


def interrupt_when(monkeypatch: pytest.MonkeyPatch, condition: Callable[[], bool]) -> None:
    """Ctrl-C while a solver or kernel runs in another thread."""
    real = futures.wait

    def wait(*arguments: Any, **named: Any) -> Any:
        if condition():
            monkeypatch.setattr(futures, "wait", real)
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(futures, "wait", wait)


@pytest.mark.parametrize(
    ("objective", "name"),
    [("makespan", "cp_sat"), *itertools.product(["max_load", "gpipe_load", "latency"], ["cp_sat", "highs"])],
)
def test_an_interruption_leaves_what_the_solver_has_found(
    monkeypatch: pytest.MonkeyPatch, objective: Any, name: Any
) -> None:
    """Ctrl-C while the solver runs: its best placement, not the start, and no optimum; no search goes on."""
    monkeypatch.setattr(Incumbent, "polish", lambda *_: None)
    n_ops = 18 if objective == "makespan" else 30
    problem = side_by_side() if objective == "latency" else pg.workloads.layered(n_ops=n_ops, seed=0, n_devices=4)
    start = mip(problem, objective=objective, start=[0] * problem.n_ops, solver=Solver(name, time_limit_s=1e-3))
    solver = Solver(name, time_limit_s=600.0, workers=2)
    began, real, offered = time.process_time(), Incumbent.propose, list[Incumbent]()

    def propose(incumbent: Incumbent, *found: Any) -> None:
        real(incumbent, *found)
        offered.append(incumbent)

    def enough() -> bool:
        if objective == "makespan":
            return any(incumbent.makespan_s < start.objective for incumbent in offered)
        return time.process_time() - began > 0.6

    monkeypatch.setattr(Incumbent, "propose", propose)
    interrupt_when(monkeypatch, enough)
    result = mip(problem, objective=objective, start=[0] * problem.n_ops, solver=solver)
    assert time.process_time() - began < 60.0
    assert (result.status, result.interrupted) == ("limit_reached", True)
    assert result.lower_bound <= result.objective < start.objective


def test_an_interruption_of_the_heuristics_leaves_the_best_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in annealing: the best before it; in the first heuristic, with nothing found, it is raised."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    problem = pg.workloads.layered(n_ops=30, seed=0, n_devices=3)
    known = min(pg.METHODS[name](problem).objective for name in ("single_device", "critical_path"))
    monkeypatch.setattr(starts, "anneal", interrupted)
    result = mip(problem, solver=ONE)
    assert (result.objective, result.status) == (known, "limit_reached")
    monkeypatch.setattr(starts, "single_device", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mip(problem, solver=ONE)
    monkeypatch.setattr(starts, "best_pipeline", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mip(problem, objective="max_load", solver=ONE)


@pytest.mark.parametrize(
    ("objective", "n_ops"), [("makespan", 200), ("makespan", 1000), ("latency", 1000), ("max_load", 2000)]
)
def test_the_time_limit_counts_heuristics_and_models(objective: Any, n_ops: int) -> None:
    """Where the model alone takes far longer than the limit, the best heuristic's placement is there in time."""
    mip(pg.workloads.layered(n_ops=12, seed=1, n_devices=4), objective=objective, solver=ONE)
    problem = pg.workloads.layered(n_ops=n_ops, seed=0, n_devices=4)
    began = time.process_time()
    result = mip(problem, objective=objective, solver=Solver(time_limit_s=0.5, workers=1))
    assert time.process_time() - began < 2.0
    assert result.status == "limit_reached"
    assert 0 < result.lower_bound < result.objective
