"""The clock of sequential placers against the simulator."""

from dataclasses import replace

import numpy as np
import pytest
from by_hand import ByHand
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import random_placement, random_problem

import placement_gym as pg

FREE_RULES = [
    pg.Rule(transfers=transfers, contention="none", instant="event", latency=latency)  # type: ignore[arg-type]
    for transfers in ("edge", "tensor")
    for latency in ("delays", "holds")
]


def in_selection_order(
    problem: pg.Problem, op_device: NDArray[np.int32], order: NDArray[np.int32], finish_s: NDArray[np.float64]
) -> pg.Problem:
    """The ops of `order` alone; an edge without bytes leads from each op to the next one on the same slot."""
    graph, d = problem.graph, problem.n_devices
    free = [[(0.0, -1)] * int(slots) for slots in problem.device_slots]
    number = {int(op): i for i, op in enumerate(order)}
    edges = [
        (number[a], number[b], size)
        for a, b, size in zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), graph.edge_bytes, strict=True)
        if a in number and b in number
    ]
    for op in order.tolist():
        slots = free[op_device[op]]
        slot = int(np.argmin([ends for ends, _ in slots]))
        if slots[slot][1] >= 0:
            edges.append((number[slots[slot][1]], number[op], 0.0))
        slots[slot] = (finish_s[op], op)
    return pg.Problem.from_times(
        pg.OpGraph.build([graph.op_names[op] for op in order], edges),
        problem.op_time_s[order],
        link_latency_s=problem.link_latency_s * (1 - np.eye(d)),
        link_bytes_per_s=problem.link_bytes_per_s,
        device_slots=problem.device_slots,
    )


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), rule=st.sampled_from(FREE_RULES), whole=st.booleans())
def test_clock_is_the_simulation_of_what_is_placed(seed: int, rule: pg.Rule, whole: bool) -> None:
    """Without contention: after any number of steps, the placed ops simulated with devices in selection order."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n_ops=9, n_devices=3, edge_share=0.4, whole_numbers=whole, unsupported=True)
    episode = ByHand(problem, rule)
    for _ in range(2 * rng.integers(1, problem.n_ops + 1)):
        episode.env.step(rng.choice(np.flatnonzero(episode.env.action_masks())))
    order, op_device = episode.process.order[0, : episode.process.position[0]], episode.process.op_device[0]
    finish_s = np.array(episode.finish_s)
    placed = in_selection_order(problem, op_device, order, finish_s)
    schedule = pg.simulate(placed, op_device[order], rule=rule)
    np.testing.assert_allclose(finish_s[order], schedule.trace.op_finish_s, rtol=1e-12)
    assert episode.reached_s == pytest.approx(schedule.makespan_s, rel=1e-12)


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    rule=st.sampled_from(FREE_RULES),
    queue=st.sampled_from(["fifo", "lifo", "priority"]),
)
def test_every_placement_has_an_order_for_which_the_clock_is_exact(seed: int, rule: pg.Rule, queue: str) -> None:
    """Without contention: ops selected in the order in which they start finish as simulated, by any queue.

    Simulated with that order as priority, they do so again.
    """
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n_ops=10, n_devices=3, edge_share=0.3, whole_numbers=False, unsupported=True)
    op_device = random_placement(rng, problem)
    drawn = rng.permutation(10).astype(float) if queue == "priority" else None
    trace = pg.simulate(problem, op_device, rule=replace(rule, queue=queue), priority=drawn).trace  # type: ignore[arg-type]
    episode = ByHand(problem, rule, priority="selection")
    for op in np.argsort(trace.op_start_s, kind="stable").tolist():
        episode.put(op, op_device[op])
    np.testing.assert_allclose(episode.finish_s, trace.op_finish_s, rtol=1e-12)
    assert episode.info["makespan_s"] == pytest.approx(episode.reached_s, rel=1e-12)


@pytest.mark.parametrize(
    ("contention", "finish"), [("none", 5.0), ("link", 6.0), ("egress", 6.0), ("port", 6.0), ("half_duplex", 6.0)]
)
def test_contention_by_hand(contention: str, finish: float) -> None:
    """Ops a and b end at 1 and 2 s; c reads 2 s worth of each elsewhere: the second transfer waits until 3 s or not."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 2, 2.0), (1, 2, 2.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), link_bytes_per_s=1.0)
    rule = pg.Rule(contention=contention)  # type: ignore[arg-type]
    episode = ByHand(problem, rule)
    for op, device in ((0, 0), (1, 0), (2, 1)):
        episode.put(op, device)
    assert episode.finish_s == [1.0, 2.0, finish]
    assert pg.simulate(problem, [0, 0, 1], rule=rule).trace.op_finish_s.tolist() == [1.0, 2.0, finish]


def test_other_pairs_do_not_wait_for_a_link() -> None:
    """Two transfers from one device to two others: under `link` both at once, under `egress` one after the other."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 2.0), (0, 2, 3.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 3)), link_bytes_per_s=1.0)
    for contention, finish in (("link", [1.0, 4.0, 5.0]), ("egress", [1.0, 4.0, 7.0]), ("port", [1.0, 4.0, 7.0])):
        rule = pg.Rule(contention=contention)  # type: ignore[arg-type]
        episode = ByHand(problem, rule)
        for op in range(3):
            episode.put(op, op)
        assert episode.finish_s == finish
        assert pg.simulate(problem, [0, 1, 2], rule=rule).trace.op_finish_s.tolist() == finish


def test_a_held_device_is_not_free() -> None:
    """With a device hold of 2 s, the second op on a device starts 2 s after the end of the first."""
    problem = pg.Problem.from_times(pg.OpGraph.build(["a", "b"], []), np.ones((2, 1)))
    rule = pg.Rule(instant="event", device_hold_s=2.0)
    episode = ByHand(problem, rule)
    episode.put(0, 0)
    episode.put(1, 0)
    assert episode.finish_s == [1.0, 4.0]
    assert pg.simulate(problem, [0, 0], rule=rule).trace.op_finish_s.tolist() == [1.0, 4.0]
