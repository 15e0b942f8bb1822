"""The baselines of the NeurIPS 2020 paper: greedy filling, local search on loads, METIS."""

import sys

import numpy as np
import pytest
from published import Published
from strategies import random_problem

import placement_gym as pg
from placement_gym.baselines import greedy_latency, load_local_search, metis
from placement_gym.baselines.load_moves import LoadArrays, descend
from placement_gym.errors import InfeasiblePlacement, InvalidOption, MissingDependency
from placement_gym.groups import Groups
from placement_gym.methods import METHODS
from placement_gym.objectives import contiguous_pieces, latency_s, max_load_s
from placement_gym.placement import infeasibility

Edges = list[tuple[int, int, float]]


def build(
    edges: Edges,
    accelerator_s: list[float],
    *,
    n_accelerators: int = 2,
    n_cpus: int = 1,
    memory_bytes: float = float("inf"),
    sizes: list[float] | None = None,
    colocation: list[int] | None = None,
) -> pg.Problem:
    """Ops whose CPU time is 10x their accelerator time, links of 1 byte/s, CPUs without memory limit."""
    n = len(accelerator_s)
    time = np.array(accelerator_s)[:, None] * ([1.0] * n_accelerators + [10.0] * n_cpus)
    return pg.Problem.from_times(
        pg.OpGraph.build([f"op{i}" for i in range(n)], edges, colocation=colocation or [-1] * n),
        time,
        link_bytes_per_s=1.0,
        device_kinds=["accelerator"] * n_accelerators + ["cpu"] * n_cpus,
        device_memory_bytes=[memory_bytes] * n_accelerators + [np.inf] * n_cpus,
        op_memory_bytes=sizes or [0.0] * n,
    )


def chain(n: int) -> Edges:
    """Edges of 1 byte from each op to the next."""
    return [(i, i + 1, 1.0) for i in range(n - 1)]


def random_with_cpu(seed: int) -> pg.Problem:
    """Three unlike accelerators and an unlike CPU; some colocation; memory that binds on odd seeds."""
    rng = np.random.default_rng(seed)
    base = random_problem(rng, n_ops=14, n_devices=4, whole_numbers=seed % 3 == 0)
    graph = base.graph
    groups = np.where(rng.random(14) < 0.4, rng.integers(0, 3, 14), -1)
    edges = list(zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), graph.edge_bytes.tolist(), strict=True))
    return pg.Problem.from_times(
        pg.OpGraph.build(graph.op_names, edges, colocation=groups, output_bytes=0.0),
        np.where((np.arange(4) < 3) & (rng.random((14, 1)) < 0.1), np.inf, base.op_time_s),
        link_latency_s=base.link_latency_s,
        link_bytes_per_s=base.link_bytes_per_s,
        device_kinds=["accelerator"] * 3 + ["cpu"],
        device_memory_bytes=[7e3 if seed % 2 else np.inf] * 3 + [np.inf],
        op_memory_bytes=np.full(14, 1e3),
        name=f"random_{seed}",
    )


def test_greedy_fills_accelerators_in_order() -> None:
    """By hand: two ops of 2 bytes fit on each accelerator of 4; the rest of the chain is the CPU's."""
    problem = build(chain(6), [1.0] * 6, memory_bytes=4.0, sizes=[2.0] * 6)
    result = greedy_latency(problem)
    assert result.placement.op_device.tolist() == [0, 0, 1, 1, 2, 2]
    # Accelerator 0: 1 + 1 + 1 sent. Accelerator 1: 1 fetched + 1 + 1 + 1 sent. CPU: 10 + 10.
    assert result.objective == pytest.approx(3.0 + 4.0 + 20.0)
    assert result.objective_name == "latency"
    assert result.lower_bound == pytest.approx(6.0)


def test_greedy_sends_a_large_block_to_the_cpu_and_goes_on() -> None:
    """By hand: op 2 fits nowhere; accelerator 0 is closed by it though it has room, else it would not be contiguous."""
    problem = build(chain(5), [1.0] * 5, memory_bytes=4.0, sizes=[1.0, 1.0, 5.0, 2.0, 2.0])
    result = greedy_latency(problem)
    assert result.placement.op_device.tolist() == [0, 0, 2, 1, 1]
    assert result.objective == pytest.approx(3.0 + 10.0 + 3.0)


def test_greedy_keeps_circles_between_groups_together() -> None:
    """Ops 0 and 2 are colocated and op 1 stands between them: the three are one block, too large for an accelerator."""
    problem = build(chain(4), [1.0] * 4, memory_bytes=2.0, sizes=[1.0] * 4, colocation=[0, -1, 0, -1])
    assert greedy_latency(problem).placement.op_device.tolist() == [2, 2, 2, 0]


def test_greedy_goes_depth_first() -> None:
    """Of two chains the one that became ready last is placed whole before the other."""
    problem = build([(0, 1, 1.0), (1, 2, 1.0), (3, 4, 1.0)], [1.0] * 5, memory_bytes=2.0, sizes=[1.0] * 5)
    assert greedy_latency(problem).placement.op_device.tolist() == [1, 1, 2, 0, 0]


def test_greedy_heeds_support_and_several_cpus() -> None:
    """An op goes past accelerators that cannot run it, and to the first CPU that can where none is left."""
    time = np.array([[1.0, 1, 1, 9, 9], [np.inf, np.inf, 1, 9, 9], [np.inf, np.inf, np.inf, np.inf, 9]])
    problem = pg.Problem.from_times(
        pg.OpGraph.build(["a", "b", "c"], chain(3)),
        time,
        link_bytes_per_s=1.0,
        device_kinds=["accelerator"] * 3 + ["cpu"] * 2,
    )
    assert greedy_latency(problem).placement.op_device.tolist() == [0, 2, 4]


def test_greedy_gives_each_accelerator_one_contiguous_subgraph() -> None:
    """No path leaves an accelerator's ops and comes back, so the latency is that of one subgraph each."""
    full = 0
    for seed in range(1, 40, 2):
        problem = random_with_cpu(seed)
        op_device = greedy_latency(problem).placement.op_device
        assert (contiguous_pieces(problem, op_device)[op_device < 3] == 0).all()
        full += len(set(op_device.tolist())) >= 3
    assert full >= 5


def test_greedy_without_a_cpu_says_so() -> None:
    """What the accelerators cannot hold has nowhere to go."""
    problem = build(chain(3), [1.0] * 3, n_cpus=0, memory_bytes=3.0, sizes=[2.0] * 3)
    with pytest.raises(InfeasiblePlacement, match=r"'problem' leaves the block of op 'op2' \(2 bytes\).*of its 0 CPUs"):
        greedy_latency(problem)


def test_local_search_splits_evenly_and_joins_what_talks() -> None:
    """By hand: four equal ops part two and two; an edge of 10 s keeps its ops together beside the third."""
    assert load_local_search(build([], [1.0] * 4)).objective == 2.0
    result = load_local_search(build([(0, 1, 10.0)], [1.0] * 3))
    a, b, c = result.placement.op_device.tolist()
    assert a == b != c
    assert (result.objective, result.objective_name, result.seed) == (2.0, "max_load", 0)


@pytest.mark.parametrize("seed", range(16))
def test_local_search_ends_where_no_move_of_one_block_helps(seed: int) -> None:
    """No block on another device, CPUs included, lowers the load that the plain evaluator gives; the kernel's is it."""
    problem = random_with_cpu(seed)
    groups = Groups.of(problem)
    group_device = groups.random(problem, np.random.default_rng(seed))
    kernel_s = descend(LoadArrays.of(problem, groups), group_device, 1e-8)
    reached_s = max_load_s(problem, groups.op_device(group_device))
    assert kernel_s == pytest.approx(reached_s, rel=1e-12)
    tried = 0
    for u in range(groups.n_groups):
        for device in range(problem.n_devices):
            moved = group_device.copy()
            moved[u] = device
            op_device = groups.op_device(moved)
            if infeasibility(problem, op_device) is None:
                tried += 1
                assert max_load_s(problem, op_device) >= reached_s * (1 - 2e-8)
    assert tried > 2 * groups.n_groups


@pytest.mark.parametrize("seed", range(4))
def test_local_search_takes_the_best_move(seed: int) -> None:
    """From one start, the first step lowers the load by as much as the best of all moves that the evaluator knows."""
    problem = random_with_cpu(2 * seed)
    groups = Groups.of(problem)
    start = groups.random(problem, np.random.default_rng(seed))
    best_s = np.inf
    for u, device in np.argwhere(groups.allowed):
        moved = start.copy()
        moved[u] = device
        best_s = min(best_s, max_load_s(problem, groups.op_device(moved)))
    gain = 1 - best_s / max_load_s(problem, groups.op_device(start))
    assert gain > 0
    arrays = LoadArrays.of(problem, groups)
    refused, taken = start.copy(), start.copy()
    descend(arrays, refused, gain * (1 + 1e-9))
    descend(arrays, taken, gain * (1 - 1e-9))
    assert (refused == start).all()
    assert max_load_s(problem, groups.op_device(taken)) <= best_s * (1 + 1e-9)


def test_local_search_is_better_with_more_restarts_and_repeatable() -> None:
    """The first of ten starts is the only one of one; the seed decides all."""
    problem = pg.workloads.random_dag(n_ops=60, seed=5, spread=1.0)
    one, ten, again = (load_local_search(problem, restarts=n, seed=4) for n in (1, 10, 10))
    assert ten.objective < one.objective
    assert (ten.placement.op_device == again.placement.op_device).all()


@pytest.mark.parametrize("seed", range(40))
def test_local_search_starts_on_accelerators(seed: int) -> None:
    """Two ops that cannot part are never left on the CPU, where no move of one alone would take them away."""
    assert load_local_search(build([(0, 1, 100.0)], [1.0, 1.0]), restarts=1, seed=seed).objective == 2.0


def test_local_search_starts_on_all_devices_where_accelerators_are_too_small() -> None:
    """Three ops of one byte, two accelerators of one byte: the CPU holds the cheapest."""
    problem = build([], [3.0, 2.0, 0.1], memory_bytes=1.0, sizes=[1.0] * 3)
    result = load_local_search(problem)
    assert result.objective == pytest.approx(3.0)
    assert result.placement.op_device[2] == 2


def test_metis_cuts_between_cliques() -> None:
    """By hand: two cliques of four with heavy tensors inside and one light tensor between them are the two parts."""
    inside = [(a + base, b + base, 5.0) for base in (0, 4) for a in range(4) for b in range(a + 1, 4)]
    problem = build([*inside, (3, 4, 1.0)], [1.0] * 8)
    result = metis(problem)
    first, second = result.placement.op_device[:4], result.placement.op_device[4:]
    assert len(set(first.tolist())) == len(set(second.tolist())) == 1
    assert first[0] != second[0]
    assert result.objective == pytest.approx(4.0 + 1.0)
    assert result.objective_name == "max_load"


@pytest.mark.parametrize("first", [0, 1])
def test_metis_weighs_edges(first: int) -> None:
    """Of the two even cuts of a ring it takes the light one; several tensors between two ops add up."""
    a, b, c, d = [0, 1, 2, 3] if first == 0 else [1, 2, 3, 0]
    heavy = [(*sorted(pair), size) for pair in ((a, b), (c, d)) for size in (3.0, 3.1, 3.2)]
    light = [(*sorted(pair), 4.0) for pair in ((b, c), (a, d))]
    for seed in range(5):
        for edges in ([*heavy, *light], [*light, *heavy]):
            op_device = metis(build(edges, [1.0] * 4), seed=seed).placement.op_device
            assert op_device[a] == op_device[b] != op_device[c] == op_device[d]


def test_metis_finds_the_accelerators_wherever_they_are() -> None:
    """The CPU is device 0 and stays empty."""
    problem = pg.Problem.from_times(
        pg.OpGraph.build(["a", "b"], []), np.ones((2, 3)), device_kinds=["cpu", "accelerator", "accelerator"]
    )
    assert sorted(metis(problem).placement.op_device.tolist()) == [1, 2]


def test_metis_weighs_work_and_leaves_the_cpu_what_only_it_can_run() -> None:
    """One op of 3 s against three of 1 s; an op that only the CPU runs stays out of the parts."""
    problem = build([], [3.0, 1.0, 1.0, 1.0, 0.1])
    time = problem.op_time_s.copy()
    time[4, :2] = np.inf
    problem = pg.Problem.from_times(problem.graph, time, device_kinds=problem.device_kinds)
    result = metis(problem)
    assert result.objective == pytest.approx(3.0)
    assert result.placement.op_device[4] == 2


def test_metis_says_that_it_knows_no_memory() -> None:
    """A part too large for its accelerator comes with the status and the excess that say so."""
    problem = build([], [4.0, 1.0, 1.0, 1.0, 1.0], memory_bytes=3.0, sizes=[1.0] * 5)
    result = metis(problem)
    assert (result.status, result.excess_bytes) == ("no_feasible_found", 1.0)


def test_metis_is_missed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pymetis the error says what to install."""
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(MissingDependency, match=r"pip install placement-gym\[metis\]"):
        metis(build([], [1.0]))


@pytest.mark.parametrize("name", ["greedy_latency", "load_local_search", "metis"])
@pytest.mark.parametrize("seed", range(12))
def test_results_are_feasible_and_honest(name: str, seed: int) -> None:
    """On unlike devices with groups, memory and support: feasible, measured by the objective, above its bound."""
    # METIS heeds no memory, of which there is little where the seed is odd.
    problem = random_with_cpu(2 * seed if name == "metis" else seed)
    result = METHODS[name](problem)
    result.placement.check(problem)
    result.schedule.check()
    evaluate = {"latency": latency_s, "max_load": max_load_s}[result.objective_name]
    assert result.objective == evaluate(problem, result.placement.op_device)
    assert result.lower_bound <= result.objective
    assert (result.baseline, result.simulator_calls) == (name, 1)


def test_wrong_options_are_named() -> None:
    """Restarts below 1; ops that fit nowhere together."""
    problem = build([], [1.0] * 3, n_cpus=0, memory_bytes=3.0, sizes=[2.0] * 3)
    with pytest.raises(InvalidOption, match="restarts is 0; expected >= 1"):
        load_local_search(problem, restarts=0)
    result = load_local_search(problem)
    assert (result.status, result.excess_bytes) == ("no_feasible_found", 1.0)


def test_greedy_gives_the_published_latencies(published: Published) -> None:
    """Every digit of what the paper's program prints."""
    checked = 0
    for name, values in published.values.items():
        if "greedy" in values.get("latency_q1", {}):
            result = greedy_latency(published.problem(name))
            assert result.objective * 1e3 == pytest.approx(values["latency_q1"]["greedy"], rel=1e-9), name
            checked += 1
    assert checked == 6


def test_local_search_and_metis_are_as_good_as_published(published: Published) -> None:
    """Layer graphs: the search within 1 % of the paper's (random, too), METIS within 15 % of Scotch; all feasible."""
    checked = 0
    for name, values in published.values.items():
        if not name.startswith("throughput-inputs/LayerGraphs"):
            continue
        problem, loads = published.problem(name), values["max_load"]
        searched = load_local_search(problem).objective * 1e3
        assert searched <= loads.get("local_search_10_restarts_no_contiguity", loads["human_expert"]) * 1.01, name
        assert metis(problem).objective * 1e3 <= loads["scotch"] * 1.15, name
        checked += 1
    assert checked == 7
