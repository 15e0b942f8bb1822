"""The chain of ops that sets a makespan."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import placement_gym as pg
from placement_gym.simulator import compile_problem, critical_chain


def test_by_hand() -> None:
    """Op b waits for a's device, d for c's transfer; the chain goes back from d over c to a, and b is not on it."""
    graph = pg.OpGraph.build(list("abcd"), [(0, 2, 4.0), (2, 3, 4.0), (1, 3, 4.0)])
    problem = pg.Problem.from_times(graph, [[2.0, 2.0], [1.0, 1.0], [3.0, 3.0], [1.0, 1.0]], link_bytes_per_s=4.0)
    op_device = np.array([0, 0, 1, 0], np.int32)
    schedule = pg.simulate(problem, op_device, rule="giph")
    assert schedule.makespan_s == 2 + 1 + 3 + 1 + 1
    assert critical_chain(compile_problem(problem, "giph"), op_device, schedule.trace).tolist() == [3, 2, 0]


def test_the_input_that_came_last_by_hand() -> None:
    """Op c waits for a, which ends at 1 s and takes 2 + 4 s to come, and not for b, which ends at 5 s beside it."""
    graph = pg.OpGraph.build(list("abc"), [(0, 2, 4.0), (1, 2, 4.0)])
    problem = pg.Problem.from_times(graph, [[1.0] * 2, [5.0] * 2, [1.0] * 2], link_latency_s=2.0, link_bytes_per_s=1.0)
    op_device = np.array([1, 0, 0], np.int32)
    trace = pg.simulate(problem, op_device, rule="giph").trace
    assert trace.op_start_s[2] == 1 + 2 + 4
    assert critical_chain(compile_problem(problem, "giph"), op_device, trace).tolist() == [2, 0]


def test_ties_by_hand() -> None:
    """What starts the moment that its input comes waited for it; of inputs, and of ends, at one instant the first."""
    # Op d reads b (remote, 2 + 2 s) and a (at 4 s), and c ends on its device at 4 s; e ends with it.
    graph = pg.OpGraph.build(list("abcde"), [(1, 3, 2.0), (0, 3, 2.0)])
    times = [[4.0] * 3, [2.0] * 3, [4.0] * 3, [1.0] * 3, [5.0] * 3]
    problem = pg.Problem.from_times(graph, times, link_bytes_per_s=1.0, device_slots=[1, 2, 2])
    op_device = np.array([1, 0, 1, 1, 2], np.int32)
    trace = pg.simulate(problem, op_device, rule="giph").trace
    assert trace.op_finish_s.tolist() == [4.0, 2.0, 4.0, 5.0, 5.0]
    assert critical_chain(compile_problem(problem, "giph"), op_device, trace).tolist() == [3, 1]


def test_a_hold_by_hand() -> None:
    """With a hold of 5 s: an op waits for the release of the one before; the last op is the one that ends last."""
    rule = pg.Rule(transfers="edge", contention="none", instant="event", device_hold_s=5.0)

    def chain(edges: list[tuple[int, int, float]], times: list[float], op_device: list[int]) -> list[int]:
        graph = pg.OpGraph.build([str(i) for i in range(len(times))], edges)
        problem = pg.Problem.from_times(graph, np.array(times)[:, None].repeat(3, axis=1), link_bytes_per_s=1.0)
        trace = pg.simulate(problem, op_device, rule=rule).trace
        return critical_chain(compile_problem(problem, rule), np.array(op_device, np.int32), trace).tolist()

    assert chain([], [1.0, 1.0], [0, 0]) == [1, 0]
    assert chain([], [1.0, 1.0], [0, 1]) == [0]
    assert chain([], [1.0, 5.0], [0, 1]) == [1]
    assert chain([], [5.0, 1.0], [0, 1]) == [0]
    # Op 1 takes no time and ends at 4 s with no hold, op 2 ends at 3 s and holds its device: 3 waited for 1.
    assert chain([(0, 1, 0.0), (1, 3, 0.0), (2, 3, 0.0)], [4.0, 0.0, 3.0, 1.0], [0, 1, 2, 1]) == [3, 1, 0]


def test_an_op_without_length_does_not_wait_for_itself() -> None:
    """Op b takes no time and waits for a's device, so the chain is b, a."""
    problem = pg.Problem.from_times(pg.OpGraph.build(["b", "a"], []), [[0.0], [1.0]])
    rule = pg.Rule(queue="priority")
    trace = pg.simulate(problem, [0, 0], rule=rule, priority=[0.0, 1.0]).trace
    assert trace.op_start_s.tolist() == [1.0, 0.0]
    assert critical_chain(compile_problem(problem, rule), np.zeros(2, np.int32), trace).tolist() == [0, 1]


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(["giph", "link", "physical"]))
def test_begins_at_the_last_op_and_never_goes_forward(seed: int, rule: str) -> None:
    """The first op finishes last, and each op starts no earlier than the one behind it finishes."""
    problem = pg.workloads.layered(n_ops=30, n_devices=3, seed=seed % 7, ccr=1.0)
    op_device = np.random.default_rng(seed).integers(0, 3, 30).astype(np.int32)
    trace = pg.simulate(problem, op_device, rule=rule).trace
    chain = critical_chain(compile_problem(problem, rule), op_device, trace)
    assert trace.op_finish_s[chain[0]] == trace.op_finish_s.max()
    assert (trace.op_finish_s[chain[1:]] <= trace.op_start_s[chain[:-1]] + 1e-9).all()
    assert trace.op_start_s[chain[-1]] == 0.0 or len(problem.graph.in_edges) == 0
