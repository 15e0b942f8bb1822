"""The one memory rule: bytes by hand, the same bytes everywhere, proofs, and what searches do about them."""

import itertools
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import placement_gym as pg
from placement_gym.baselines import critical_path, local_search, random_search, round_robin, simulated_annealing
from placement_gym.errors import InfeasiblePlacement, InvalidProblem, InvalidSchedule
from placement_gym.exact import Solver, mip
from placement_gym.memory import working_bytes
from placement_gym.methods import METHODS
from placement_gym.placement import device_memory_used_bytes
from placement_gym.rule import Rule
from placement_gym.simulator import compile_problem, simulate
from placement_gym.trace import transfer_heads


def fan(capacity: float) -> pg.Problem:
    """Op a (1 byte of parameters) sends its 4 bytes to b and c, which d reads; all take 1 s, so does each transfer."""
    graph = pg.OpGraph.build(
        ["a", "b", "c", "d"],
        [(0, 1, 4.0), (0, 2, 4.0), (1, 3, 4.0), (2, 3, 4.0)],
        parameter_bytes=[1.0, 0.0, 0.0, 2.0],
        output_bytes=[4.0, 4.0, 4.0, 4.0],
    )
    return pg.Problem.from_times(graph, np.ones((4, 2)), link_bytes_per_s=4.0, device_memory_bytes=capacity)


@pytest.mark.parametrize(("transfers", "second"), [("tensor", 8.0), ("multicast", 8.0), ("edge", 11.0)])
def test_live_bytes_by_hand(transfers: str, second: float) -> None:
    """Op a on the first device, the rest on the second, where outputs are of 1 byte and d has 2 bytes of parameters."""
    graph = pg.OpGraph.build(
        ["a", "b", "c", "d"],
        [(0, 1, 4.0), (0, 2, 4.0), (1, 3, 1.0), (2, 3, 1.0)],
        parameter_bytes=[1.0, 0.0, 0.0, 2.0],
    )
    problem = pg.Problem.from_times(graph, np.ones((4, 2)), link_bytes_per_s=4.0)
    schedule = simulate(problem, [0, 1, 1, 1], rule=Rule(transfers=transfers))  # type: ignore[arg-type]
    # One copy of a: while c runs there are the copy and the outputs of b and c. A copy for each edge: while b runs
    # there are both copies and the output of b.
    assert schedule.peak_memory_bytes.tolist() == [1.0 + 4.0, second]


def test_working_bytes_by_hand() -> None:
    """Output and distinct inputs; one that is read twice counts once, and by the smaller of output and copy."""
    graph = pg.OpGraph.build(
        ["a", "b", "c"],
        [(0, 1, 4.0), (0, 2, 4.0), (0, 2, 4.0), (0, 2, 3.0), (1, 2, 9.0)],
        output_bytes=[6.0, 5.0, 1.0],
        edge_tensor=[0, 0, 0, 1, 2],
    )
    assert working_bytes(graph, np.ones((3, 2)), 1.0).tolist() == [6.0, 5.0 + 4.0, 1.0 + 6.0 + 5.0]
    # What ends in the instant in which it began holds nothing.
    assert working_bytes(graph, np.array([[1.0], [0.0], [1e-20]]), 1.0).tolist() == [6.0, 0.0, 0.0]


def tight(seed: int, *, share: float, live: bool = True) -> pg.Problem | None:
    """A small random problem whose devices hold `share` of what it would need at once; None if a proof refuses it."""
    rng = np.random.default_rng(seed)
    n, d = 7, 2
    pairs = [(i, j, float(rng.integers(1, 6))) for i, j in itertools.combinations(range(n), 2) if rng.random() < 0.4]
    output, parameters = rng.integers(1, 8, n).astype(float), rng.integers(0, 6, n).astype(float)
    graph = pg.OpGraph.build([f"op{i}" for i in range(n)], pairs, parameter_bytes=parameters, output_bytes=output)
    capacity = np.ceil(share * (output.sum() + parameters.sum()) * rng.uniform(0.8, 1.2, d))
    try:
        return pg.Problem.from_times(
            graph,
            rng.integers(0 if seed % 5 == 0 else 1, 4, (n, d)).astype(float),
            link_bytes_per_s=2.0,
            device_memory_bytes=capacity,
            op_memory_bytes=None if live else output + parameters,
        )
    except InvalidProblem:
        return None


def peaks_by_definition(schedule: pg.Schedule) -> list[float]:
    """Bytes of each device at every instant at which something starts, by the rule's own words."""
    problem, graph, trace = schedule.problem, schedule.problem.graph, schedule.trace
    heads = transfer_heads(graph, schedule.op_device, schedule.rule)
    held = []
    for d in range(problem.n_devices):
        intervals = []
        for op in np.flatnonzero(schedule.op_device == d):
            until = [trace.op_finish_s[op]]
            for e in np.flatnonzero(graph.edge_src == op):
                until.append(
                    trace.transfer_arrival_s[heads[e]] if heads[e] >= 0 else trace.op_finish_s[graph.edge_dst[e]]
                )
            intervals.append((trace.op_start_s[op], max(until), graph.op_output_bytes[op]))
        arriving = [e for e in np.flatnonzero(heads >= 0) if schedule.op_device[graph.edge_dst[e]] == d]
        for head in sorted({int(heads[e]) for e in arriving}):
            readers = [graph.edge_dst[e] for e in arriving if heads[e] == head]
            until_s = max(trace.op_finish_s[v] for v in readers)
            intervals.append((trace.transfer_start_s[head], until_s, graph.edge_bytes[head]))
        instants = sorted({start for start, _, _ in intervals})
        parameters = float(problem.op_memory_bytes[schedule.op_device == d].sum())
        live = [sum(size for start, until, size in intervals if start <= t < until) for t in instants]
        held.append(parameters + max(live, default=0.0))
    return held


@pytest.mark.parametrize("transfers", ["edge", "tensor", "multicast"])
def test_the_same_bytes_everywhere(transfers: str) -> None:
    """Definition, schedule, batch of a search and least known before a run, on random placements."""
    seen = 0
    for seed in range(60):
        problem = tight(seed, share=0.4)
        if problem is None:
            continue
        rule = Rule(transfers=transfers, queue="lifo" if seed % 3 == 0 else "fifo")  # type: ignore[arg-type]
        placements = np.random.default_rng(seed).integers(0, 2, (8, problem.n_ops)).astype(np.int32)
        makespans_s, excess_bytes = compile_problem(problem, rule).weigh(placements)
        for placement, makespan_s, excess in zip(placements, makespans_s, excess_bytes, strict=True):
            schedule = simulate(problem, placement, rule=rule, memory="report")
            assert schedule.peak_memory_bytes.tolist() == peaks_by_definition(schedule)
            assert (schedule.makespan_s, schedule.excess_bytes) == (makespan_s, excess)
            assert (schedule.peak_memory_bytes >= device_memory_used_bytes(problem, placement)).all()
            if excess > 0:
                seen += 1
                with pytest.raises(
                    (InvalidSchedule, InfeasiblePlacement), match=r"device 'device.' (would hold|holds)"
                ):
                    schedule.check()
                with pytest.raises(InfeasiblePlacement, match=r"device 'device.' (would hold|holds)"):
                    simulate(problem, placement, rule=rule)
            else:
                schedule.check()
    assert seen > 50


def test_proofs_are_true_and_say_what_lacks() -> None:
    """What is refused before any simulation fits in no placement; messages have numbers."""
    refused = 0
    for seed in range(150):
        if tight(seed, share=0.3) is not None:
            continue
        refused += 1
        free = tight(seed, share=100.0)
        assert free is not None
        capacity = np.ceil(free.device_memory_bytes * 0.003)
        every = np.array(list(itertools.product(range(2), repeat=free.n_ops)), dtype=np.int32)
        for placement in every[:: 1 if refused < 4 else 16]:
            schedule = simulate(free, placement)
            assert (schedule.peak_memory_bytes > capacity - 1).any()
    assert refused > 10
    with pytest.raises(
        InvalidProblem,
        match=r"op 'd' needs 14 bytes \(2 held throughout, 12 for inputs and output\); 'device0', the largest device "
        r"that can run it, has 13 \(largest ops: 'd' 14, 'b' 8, 'c' 8",
    ):
        fan(13.0)
    graph = pg.OpGraph.build(["a", "b", "c"], [])
    with pytest.raises(InvalidProblem, match=r"the ops together hold 6 bytes throughout; the devices together have 5"):
        pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=2.5, op_memory_bytes=[2.0, 2.0, 2.0])


SEARCHES = {
    "random_search": lambda p: random_search(p, simulator_calls=100),
    "local_search": lambda p: local_search(p, simulator_calls=300),
    "simulated_annealing": lambda p: simulated_annealing(p, simulator_calls=300),
    "critical_path": lambda p: critical_path(p, n_tries=10),
    "round_robin": lambda p: round_robin(p),
}


@pytest.mark.parametrize("live", [True, False])
def test_searches_return_what_fits_or_say_that_they_found_nothing(live: bool) -> None:
    """Never a placement that `check` refuses without the status; never a raise; annealing finds nearly all there is."""
    possible, found = 0, dict.fromkeys(SEARCHES, 0)
    for seed in range(18):
        problem = tight(seed, share=0.42 if live else 0.55, live=live)
        if problem is None:
            continue
        every = np.array(list(itertools.product(range(2), repeat=problem.n_ops)), dtype=np.int32)
        fits = compile_problem(problem, "physical").weigh(every)[1] == 0
        possible += bool(fits.any())
        for name, search in SEARCHES.items():
            result = search(problem)
            if result.status == "no_feasible_found":
                assert result.excess_bytes > 0
                with pytest.raises((InvalidSchedule, InfeasiblePlacement)):
                    result.schedule.check()
            else:
                assert fits.any()
                assert result.excess_bytes == 0
                result.schedule.check()
                found[name] += 1
    assert possible > 5
    assert found["simulated_annealing"] >= 0.9 * possible
    assert found["local_search"] >= 0.9 * possible


def test_a_search_ends_at_the_least_excess() -> None:
    """Three ops of 2 bytes on two devices of 3: one device holds two of them, 1 byte too many."""
    graph = pg.OpGraph.build(["a", "b", "c"], [])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=np.full(3, 2.0))
    for search in SEARCHES.values():
        result = search(problem)
        assert (result.status, result.excess_bytes) == ("no_feasible_found", 1.0)
        assert "no_feasible_found\n  does not fit: device 'device" in repr(result)
        assert "1 bytes over memory in all" in repr(result)
        assert np.isnan(result.gap)


def test_the_rule_is_part_of_files_and_fingerprints(tmp_path: Path) -> None:
    """Live and claims of the same bytes are different problems; both survive a file."""
    live = fan(50.0)
    claims = pg.Problem.from_times(
        live.graph,
        live.op_time_s,
        link_bytes_per_s=4.0,
        device_memory_bytes=50.0,
        op_memory_bytes=live.graph.op_parameter_bytes,
    )
    assert (live.memory_rule, claims.memory_rule) == ("live", "claims")
    assert live.fingerprint != claims.fingerprint
    for problem in (live, claims):
        problem.save(tmp_path / "p.npz")
        loaded = pg.Problem.load(tmp_path / "p.npz")
        assert (loaded.memory_rule, loaded.fingerprint) == (problem.memory_rule, problem.fingerprint)
    assert simulate(claims, [0, 1, 1, 1]).peak_memory_bytes.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("method", ["etf", "m_etf", "dls", "heft", "peft", "cpop", "enumerative"])
def test_a_group_that_fits_nowhere_stays_together(method: str) -> None:
    """Four ops of 2 bytes on two devices of 5: x and y belong together, and p and q take a place on each device."""
    graph = pg.OpGraph.build(list("pqxy"), [], colocation=[-1, -1, 0, 0])
    times = [[3.0, 3.0], [3.0, 3.0], [1.0, 1.0], [1.0, 1.0]]
    problem = pg.Problem.from_times(graph, times, device_memory_bytes=5.0, op_memory_bytes=[2.0] * 4)
    result = METHODS[method](problem)
    assert result.placement.op_device[2] == result.placement.op_device[3]
    assert (result.status == "no_feasible_found") == (result.excess_bytes > 0)


def test_copies_alone_can_exceed_a_device() -> None:
    """Ops without bytes of their own, copies of 4 and 5 bytes on devices of 3."""
    graph = pg.OpGraph.build(list("abcd"), [(0, 2, 4.0), (1, 2, 4.0), (0, 3, 4.0), (1, 3, 5.0)], output_bytes=[0.0] * 4)
    problem = pg.Problem.from_times(graph, np.ones((4, 2)), link_bytes_per_s=4.0, device_memory_bytes=3.0)
    for search in SEARCHES.values():
        result = search(problem)
        assert (result.status == "no_feasible_found") == (result.excess_bytes > 0)
    assert simulated_annealing(problem).excess_bytes == 0


def test_mip_keeps_a_start_that_fits() -> None:
    """The programme of the load knows parameters alone, so what it finds does not fit; the start does."""
    graph = pg.OpGraph.build(list("abc"), [(0, 1, 4.0), (0, 2, 4.0)], output_bytes=[2.0, 2.0, 5.0])
    times = [[2.0, 1.0], [3.0, 1.0], [2.0, 2.0]]
    problem = pg.Problem.from_times(graph, times, device_memory_bytes=[8.0, 4.0], link_bytes_per_s=2.0)
    result = mip(problem, objective="max_load", start=[0, 0, 0], solver=Solver(time_limit_s=5.0, workers=1))
    assert (result.excess_bytes, result.status) == (0.0, "limit_reached")
    assert result.lower_bound <= pg.exact.brute_force(problem, objective="max_load").objective <= result.objective


def test_an_order_may_decide_what_fits() -> None:
    """Two chains of 5 bytes each: one after the other fits into 8 bytes; in b-level order they run side by side."""
    graph = pg.OpGraph.build(["a1", "b1", "a2", "b2"], [(0, 2, 5.0), (1, 3, 5.0)], output_bytes=[5.0, 5.0, 1.0, 1.0])
    ordered = Rule(queue="priority")
    one = pg.Problem.from_times(graph, np.ones((4, 1)), device_memory_bytes=8.0)
    simulate(one, [0] * 4, rule=ordered, priority=[4.0, 2.0, 3.0, 1.0]).check()
    with pytest.raises(InfeasiblePlacement, match="none of the 1 placements of 'problem' is feasible in b-level order"):
        pg.exact.brute_force(one, rule=ordered)
    times = np.stack([np.ones(4), np.full(4, 3.0)], axis=1)
    two = pg.Problem.from_times(graph, times, device_memory_bytes=[8.0, 50.0], link_latency_s=100.0)
    result = pg.exact.brute_force(two, rule=ordered, objective="max_load")
    assert (result.restricted_to, result.lower_bound <= 4.0) == ("b-level order", True)


def test_unfinished_episodes_are_drawn_though_memory_is_short() -> None:
    """Ops that are not placed yet are drawn on the first device, which cannot hold all."""
    problem = pg.Problem.from_times(
        pg.OpGraph.build(list("abc"), [], parameter_bytes=[2.0] * 3), np.ones((3, 2)), device_memory_bytes=4.0
    )
    env = gym.make("placement_gym/Assign-v0", problem=problem, render_mode="rgb_array")
    env.reset()
    assert np.asarray(env.render()).ndim == 3
