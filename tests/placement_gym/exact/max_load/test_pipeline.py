"""dp: equal to trying every pipeline, to the published optima, and clear where it must give up."""

import functools
import itertools
import json
import time
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import random_pipeline_problem

import placement_gym as pg
from placement_gym.errors import InfeasiblePlacement, InvalidOption, InvalidProblem
from placement_gym.exact import dp, pipeline_split
from placement_gym.exact.max_load import pipeline
from placement_gym.exact.max_load.pipeline import _Programme
from placement_gym.objectives import max_load_s
from placement_gym.placement import infeasibility


def order_of_ops(problem: pg.Problem) -> nx.DiGraph:
    """What a pipeline must keep: forward edges; backward ones turned round where an end has no forward op at hand."""
    graph, group = problem.graph, problem.graph.op_colocation
    order = nx.DiGraph()
    order.add_nodes_from(range(problem.n_ops))

    def has_forward(op: int) -> bool:
        same = group == group[op] if group[op] >= 0 else np.arange(problem.n_ops) == op
        return bool((~graph.op_is_backward[same]).any())

    for a, b in zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), strict=True):
        if not graph.op_is_backward[a] and not graph.op_is_backward[b]:
            order.add_edge(a, b)
        elif graph.op_is_backward[a] and graph.op_is_backward[b] and not (has_forward(a) and has_forward(b)):
            order.add_edge(b, a)
    return order


@functools.cache
def in_a_row(edges: frozenset[tuple[int, int]]) -> bool:
    """Whether devices with these edges between them can be put in a row."""
    return bool(nx.is_directed_acyclic_graph(nx.DiGraph(list(edges))))


def best_pipeline_s(problem: pg.Problem) -> float:
    """Every placement whose devices can be put in a row; inf if none is feasible."""
    edges, best = list(order_of_ops(problem).edges), np.inf
    for placement in itertools.product(range(problem.n_devices), repeat=problem.n_ops):
        between = frozenset((placement[a], placement[b]) for a, b in edges if placement[a] != placement[b])
        if in_a_row(between) and infeasibility(problem, placement) is None:
            best = min(best, max_load_s(problem, np.array(placement)))
    return best


@settings(max_examples=60, deadline=None)  # the first call may compile
@given(st.integers(0, 2**32 - 1))
def test_equals_the_best_of_all_pipelines(seed: int) -> None:
    """Any mix of devices, memory, support, training graphs, orphans, groups, ops without work."""
    problem = random_pipeline_problem(np.random.default_rng(seed))
    if problem.n_devices**problem.n_ops > 3000:
        return
    expected = best_pipeline_s(problem)
    if expected == np.inf:
        with pytest.raises(InfeasiblePlacement):
            dp(problem)
        return
    result = dp(problem)
    assert result.status == "optimal"
    assert result.objective_name == "max_load"
    assert result.objective == max_load_s(problem, result.placement.op_device)
    assert result.objective == pytest.approx(expected, rel=1e-9, abs=1e-12)
    try:
        assert pipeline_split(problem).objective >= expected * (1 - 1e-9)
    except InfeasiblePlacement:
        assert np.isfinite(problem.device_memory_bytes).any() or not np.isfinite(problem.op_time_s).all()


def test_by_hand() -> None:
    """Of a, b -> c two accelerators best hold a and b, c together: c reads 2 bytes of b in place and 1 byte of a."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 2, 1.0), (1, 2, 2.0)])
    problem = pg.Problem.from_times(
        graph, np.array([[4.0], [2.0], [1.0]]) @ np.ones((1, 2)), link_bytes_per_s=1.0, device_kinds=["accelerator"] * 2
    )
    result = dp(problem)
    # {a}: 4 of work, 1 out. {b, c}: 3 of work, 1 in.
    assert result.objective == 5.0
    assert result.placement.op_device.tolist() == [0, 1, 1]


def test_published_optima(shared_data: Path) -> None:
    """Every optimum of the authors' own program, to 1e-9, and no peer's split below it that is a pipeline."""
    known = json.loads((shared_data.parent / "reference/dnn_partitioning.json").read_text())["instances"]
    checked = 0
    for path in sorted((shared_data / "dnn_partitioning").glob("*-inputs/*/*.json")):
        name = path.relative_to(shared_data / "dnn_partitioning").with_suffix("").as_posix()
        published = known.get(name, {}).get("max_load", {})
        result = dp(pg.workloads.read_dnn_partitioning(path))
        assert result.status == "optimal", name
        if "optimum_chain_of_ideals" in published:
            assert result.objective * 1e3 == pytest.approx(published["optimum_chain_of_ideals"], rel=1e-9), name
            checked += 1
        if "pipedream" in published:
            assert result.objective * 1e3 <= published["pipedream"] * (1 + 1e-9)
    assert checked >= 18


def wide(n_ops: int) -> pg.Problem:
    """Ops without edges: 2 ** n_ops ideals."""
    return pg.Problem.from_times(
        pg.OpGraph.build([f"op{i}" for i in range(n_ops)], []),
        np.random.default_rng(0).exponential(1.0, (n_ops, 1)) @ np.ones((1, 3)),
        device_kinds=["accelerator"] * 3,
    )


@pytest.mark.parametrize("limit", [{"max_ideals": 1000}, {"time_limit_s": 1e-6}])
def test_a_limit_leaves_a_pipeline_and_a_bound(limit: dict[str, float]) -> None:
    """2 ** 30 ideals are not listed: the status says so, the best split in one order and a bound are there."""
    result = dp(wide(30), **{"max_ideals": 100_000, **limit})  # type: ignore[arg-type]
    assert result.status == "limit_reached"
    assert 0 < result.lower_bound < result.objective
    assert result.objective <= pipeline_split(wide(30)).objective


@pytest.mark.parametrize("time_limit_s", [0.5, 1.0])
def test_the_time_limit_holds_while_ideals_are_listed(time_limit_s: float) -> None:
    """Listing two million ideals of 4,000 ops would take ten times as long."""
    dp(wide(3))  # compiles
    rng = np.random.default_rng(0)
    n = 4000
    edges = sorted({(int(a), b, 1.0) for b in range(1, n) for a in rng.integers(max(0, b - 50), b, 3)})
    problem = pg.Problem.from_times(
        pg.OpGraph.build([f"op{i}" for i in range(n)], edges),
        rng.uniform(0.1, 1.0, (n, 1)) * np.ones((1, 6)),
        link_bytes_per_s=10.0,
        device_kinds=["accelerator"] * 6,
    )
    began = time.process_time()
    result = dp(problem, time_limit_s=time_limit_s)
    assert time.process_time() - began < time_limit_s + 1.0
    assert result.status == "limit_reached"


def test_limits_without_a_pipeline_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for the first order of the ops; no order that fits, and too many ideals for all; a proof."""

    def holding(capacity: float) -> pg.Problem:
        graph = pg.OpGraph.build([f"op{i}" for i in range(5)], [], parameter_bytes=4.0)
        return pg.Problem.from_times(
            graph, np.ones((5, 2)), device_kinds=["accelerator"] * 2, device_memory_bytes=capacity
        )

    assert dp(holding(12.0)).status == "optimal"
    with pytest.raises(InfeasiblePlacement, match=r"no pipeline of 'problem' fits into its devices$"):
        dp(holding(11.0))
    with pytest.raises(InfeasiblePlacement, match=r"no pipeline .* limits of 600.0 s and 5 ideals; there may be one"):
        dp(holding(11.0), max_ideals=5)
    monkeypatch.setattr(pipeline, "GRACE_S", 0.0)
    with pytest.raises(
        InfeasiblePlacement, match=r"no pipeline .* limits of 1e-06 s and 2000000 ideals; there may be one"
    ):
        dp(holding(12.0), time_limit_s=1e-6)


def test_an_interruption_leaves_the_best_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """During the listing of ideals the pipelines of the orders are known; before them nothing is."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Programme, "ideals", interrupted)
    result = dp(wide(6))
    assert result.status == "limit_reached"
    assert 0 < result.lower_bound < result.objective
    monkeypatch.setattr(_Programme, "prefixes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dp(wide(6))


def test_what_cannot_be_placed_is_said() -> None:
    """Memory of all; ops that a pipeline must keep together and that no device can hold or run."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 0.0)], parameter_bytes=[4.0, 4.0, 4.0])
    kinds = ["accelerator"] * 2
    with pytest.raises(InfeasiblePlacement, match="no pipeline of 'problem' fits"):
        dp(pg.Problem.from_times(graph, np.ones((3, 2)), device_kinds=kinds, device_memory_bytes=7.0))
    knot = pg.OpGraph.build(
        ["a", "b", "c", "d"], [(0, 1, 0.0), (2, 3, 0.0)], parameter_bytes=2.0, colocation=[0, 1, 1, 0]
    )
    with pytest.raises(InfeasiblePlacement, match=r"4 ops that a contiguous .*first 'a', 8 bytes"):
        dp(pg.Problem.from_times(knot, np.ones((4, 2)), device_kinds=kinds, device_memory_bytes=7.0))
    times = [[1.0, np.inf], [np.inf, 1.0], [np.inf, 1.0], [1.0, np.inf]]
    with pytest.raises(InfeasiblePlacement, match="fit no device that can run them"):
        dp(pg.Problem.from_times(knot, times, device_kinds=kinds))


def test_a_cycle_of_groups_is_one_block() -> None:
    """Groups {a, d} and {b, c} wait for each other, so a pipeline keeps all four together."""
    graph = pg.OpGraph.build(["a", "b", "c", "d"], [(0, 1, 0.0), (2, 3, 0.0)], colocation=[0, 1, 1, 0])
    problem = pg.Problem.from_times(graph, np.ones((4, 2)), device_kinds=["accelerator"] * 2)
    result = dp(problem)
    assert result.objective == 4.0
    assert len(set(result.placement.op_device.tolist())) == 1


def test_links_and_options_are_checked() -> None:
    """Links that differ from pair to pair and senseless limits are errors."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 1.0)])
    speed = np.array([[1.0, 1.0], [2.0, 1.0]])
    problem = pg.Problem.from_times(graph, np.ones((2, 2)), link_bytes_per_s=speed, device_kinds=["accelerator"] * 2)
    with pytest.raises(InvalidProblem, match="differ from pair to pair"):
        dp(problem)
    with pytest.raises(InvalidOption, match="max_ideals is 0"):
        dp(wide(3), max_ideals=0)
