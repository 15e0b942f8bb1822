"""Whole instants: list scheduling as in textbooks."""

import heapq

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InvalidRule

TIMES = [3, 2, 2, 2, 4, 4, 4, 4, 9]
EDGES = [(1, 9), (4, 5), (4, 6), (4, 7), (4, 8)]


def _graham(n_slots: int, times: list[int], edges: list[tuple[int, int]]) -> float:
    graph = pg.OpGraph.build([f"T{i + 1}" for i in range(9)], [(a - 1, b - 1, 0.0) for a, b in edges])
    problem = pg.Problem.from_times(graph, np.array(times, float)[:, None], device_slots=n_slots)
    rule = pg.Rule(queue="priority")
    schedules = [
        pg.simulate(problem, np.zeros(9, int), rule=rule, priority=-np.arange(9.0), engine=engine)  # type: ignore[arg-type]
        for engine in ("kernel", "reference")
    ]
    schedules[0].check()
    assert schedules[0].makespan_s == schedules[1].makespan_s
    return schedules[0].makespan_s


def test_grahams_anomalies() -> None:
    """More processors, shorter tasks and fewer constraints all take longer (Graham, SIAM J. Appl. Math. 1969)."""
    assert _graham(3, TIMES, EDGES) == 12
    assert _graham(4, TIMES, EDGES) == 15
    assert _graham(3, [t - 1 for t in TIMES], EDGES) == 13
    assert _graham(3, TIMES, [(a, b) for a, b in EDGES if (a, b) not in {(4, 5), (4, 6)}]) == 16


def _list_schedule(problem: pg.Problem, op_device: np.ndarray, priority: np.ndarray) -> float:
    """Textbook list scheduling by devices with free communication: at an instant, all that ended is known first."""
    graph = problem.graph
    missing = np.diff(graph.in_start)
    free = problem.device_slots.copy()
    waiting, running = {i for i in range(problem.n_ops) if missing[i] == 0}, []
    now = 0.0
    while waiting or running:
        while running and running[0][0] == now:
            _, op = heapq.heappop(running)
            free[op_device[op]] += 1
            for e in graph.out_edges[graph.out_start[op] : graph.out_start[op + 1]]:
                missing[graph.edge_dst[e]] -= 1
                if missing[graph.edge_dst[e]] == 0:
                    waiting.add(int(graph.edge_dst[e]))
        for op in sorted(waiting, key=lambda i: -priority[i]):
            if free[op_device[op]] > 0:
                free[op_device[op]] -= 1
                waiting.remove(op)
                heapq.heappush(running, (now + problem.op_time_s[op, op_device[op]], op))
        if running:
            now = running[0][0]
    return float(now)


def test_equals_textbook_list_scheduling() -> None:
    """On 300 random DAGs of small whole times, where much falls on one instant, not one makespan differs."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(2, 14)), int(rng.integers(1, 4))
        edges = [(a, b, 1.0) for a in range(n) for b in range(a + 1, n) if rng.random() < 0.25]
        graph = pg.OpGraph.build([f"op{i}" for i in range(n)], edges)
        problem = pg.Problem.from_times(
            graph, rng.integers(1, 5, (n, d)).astype(float), device_slots=rng.integers(1, 3, d)
        )
        op_device, priority = rng.integers(0, d, n), rng.permutation(n).astype(float)
        got = pg.simulate(problem, op_device, rule=pg.Rule(queue="priority"), priority=priority)
        assert got.makespan_s == _list_schedule(problem, op_device, priority), seed


def test_published_options_need_single_events() -> None:
    """What only published simulators do is refused with whole instants, in words."""
    with pytest.raises(InvalidRule, match='they need instant="event"'):
        pg.Rule(device_hold_s=1.0)
