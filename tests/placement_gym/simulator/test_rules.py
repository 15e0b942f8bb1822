"""Each simulator rule on a case worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import order_for

import placement_gym as pg
from placement_gym.errors import InfeasiblePlacement, InvalidOption, InvalidRule


def problem_of(
    edges: list[tuple[int, int, float]], times: list[float], n_devices: int, latency_s: float = 0.0, slots: int = 1
) -> pg.Problem:
    """Ops named a, b, ...; devices alike; bandwidth 1 byte/s."""
    graph = pg.OpGraph.build([chr(97 + i) for i in range(len(times))], edges)
    time = np.repeat(np.array(times)[:, None], n_devices, axis=1)
    return pg.Problem.from_times(
        graph, time, link_latency_s=latency_s, link_bytes_per_s=1.0, device_slots=slots, name="by hand"
    )


# Two ops of 1 s on device 0 end at 1 and 2; each sends 100 bytes to its reader of 10 s on device 1 (or 1 and 2).
TWO_LEAVE = problem_of([(0, 2, 100.0), (1, 3, 100.0)], [1.0, 1.0, 10.0, 10.0], 3)


@pytest.mark.parametrize(
    ("contention", "transfers", "expected"),
    [
        ("none", "edge", 112.0),  # arrivals 101 and 102; readers 101-111 and 102-112
        ("link", "tensor", 112.0),  # two links
        ("egress", "tensor", 211.0),  # the second sending waits: 101-201, reader until 211
        ("port", "tensor", 211.0),
        ("half_duplex", "tensor", 211.0),
    ],
)
def test_two_tensors_leave_one_device(contention: str, transfers: str, expected: float) -> None:
    """Two tensors to two devices share the sender, not the links."""
    rule = pg.Rule(contention=contention, transfers=transfers)  # type: ignore[arg-type]
    assert pg.simulate(TWO_LEAVE, [0, 0, 1, 2], rule=rule).makespan_s == expected


@pytest.mark.parametrize(
    ("contention", "expected"),
    [("none", 121.0), ("link", 121.0), ("egress", 121.0), ("port", 211.0), ("half_duplex", 211.0)],
)
def test_two_tensors_enter_one_device(contention: str, expected: float) -> None:
    """Two tensors from two devices share the receiver: free 101 + 10 + 10, serial 101, 201 + 10."""
    problem = problem_of([(0, 2, 100.0), (1, 3, 100.0)], [1.0, 1.0, 10.0, 10.0], 3)
    rule = pg.Rule(contention=contention)  # type: ignore[arg-type]
    assert pg.simulate(problem, [0, 1, 2, 2], rule=rule).makespan_s == expected


@pytest.mark.parametrize(
    ("transfers", "contention", "devices", "expected"),
    [
        ("edge", "port", [0, 1, 1], 211.0),  # the tensor goes twice: 1-101, 101-201
        ("tensor", "port", [0, 1, 1], 121.0),  # once; both readers at 101, one after the other
        ("tensor", "port", [0, 1, 2], 211.0),  # once to each device, one after the other
        ("multicast", "port", [0, 1, 2], 111.0),  # one sending reaches both
    ],
)
def test_one_tensor_to_two_readers(transfers: str, contention: str, devices: list[int], expected: float) -> None:
    """What is paid for one output of 100 bytes with two readers."""
    problem = problem_of([(0, 1, 100.0), (0, 2, 100.0)], [1.0, 10.0, 10.0], 3)
    rule = pg.Rule(transfers=transfers, contention=contention)  # type: ignore[arg-type]
    assert pg.simulate(problem, devices, rule=rule).makespan_s == expected


def test_half_duplex_excludes_sending_while_receiving() -> None:
    """0 -> 1 and 1 -> 0 at once: ports do both together, half duplex one after the other."""
    problem = problem_of([(0, 2, 100.0), (1, 3, 100.0)], [1.0, 1.0, 10.0, 10.0], 2)
    makespans = [
        pg.simulate(problem, [0, 1, 1, 0], rule=pg.Rule(contention=c)).makespan_s  # type: ignore[arg-type]
        for c in ("port", "half_duplex")
    ]
    assert makespans == [111.0, 211.0]


def test_latency_delays_or_holds() -> None:
    """5 s of latency delay the arrival, or keep the channel for the next transfer."""
    problem = problem_of([(0, 2, 100.0), (1, 3, 100.0)], [1.0, 1.0, 10.0, 10.0], 2, latency_s=5.0)
    delays = pg.simulate(problem, [0, 0, 1, 1], rule=pg.Rule())
    assert delays.trace.transfer_arrival_s.tolist() == [106.0, 211.0]
    holds = pg.simulate(problem, [0, 0, 1, 1], rule=pg.Rule(instant="event", latency="holds"))
    assert holds.trace.transfer_arrival_s.tolist() == [101.0, 206.0]
    assert holds.trace.transfer_release_s.tolist() == [106.0, 211.0]


def test_queue_orders() -> None:
    """Ops b, c, d become ready at 1, 2, 3 beside op x (0-10); fifo takes b, lifo d, priority c."""
    # Each of b, c, d waits for an op of 1, 2, 3 s on a device of its own; x keeps device 0 busy until 10.
    edges = [(1, 4, 0.0), (2, 5, 0.0), (3, 6, 0.0)]
    problem = problem_of(edges, [10.0, 1.0, 2.0, 3.0, 1.0, 1.0, 1.0], 4)
    devices = [0, 1, 2, 3, 0, 0, 0]
    ranks = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 2.0])
    starts = {
        rule.queue: pg.simulate(problem, devices, rule=rule, priority=order_for(rule, ranks))
        .trace.op_start_s[4:]
        .tolist()
        for rule in (pg.Rule(), pg.Rule(queue="lifo"), pg.Rule(queue="priority"))
    }
    assert starts == {"fifo": [10.0, 11.0, 12.0], "lifo": [12.0, 11.0, 10.0], "priority": [12.0, 10.0, 11.0]}


def test_slots_run_ops_at_once() -> None:
    """Three ops of 1 s take 3 s in one slot, 2 s in two, 1 s in three."""
    makespans = [pg.simulate(problem_of([], [1.0] * 3, 1, slots=s), [0, 0, 0]).makespan_s for s in (1, 2, 3)]
    assert makespans == [3.0, 2.0, 1.0]


def test_device_hold_keeps_the_slot_but_not_the_output() -> None:
    """A hold of 5 s delays the next op of the device, not the reader elsewhere; a free op does not hold."""
    problem = problem_of([(0, 1, 0.0), (0, 2, 0.0)], [1.0, 1.0, 1.0], 2)
    rule = pg.Rule(instant="event", device_hold_s=5.0, makespan="last_event")
    schedule = pg.simulate(problem, [0, 0, 1], rule=rule)
    assert schedule.trace.op_start_s.tolist() == [0.0, 6.0, 1.0]
    assert schedule.makespan_s == 12.0
    for end, makespan_s in (("last_event", 12.0), ("last_op", 7.0)):
        told = replace(rule, makespan=end)  # type: ignore[arg-type]
        assert pg.simulate_batch(problem, [[0, 0, 1]], rule=told).tolist() == [makespan_s]
    free = pg.simulate(
        problem_of([(0, 1, 0.0)], [0.0, 1.0], 1), [0, 0], rule=pg.Rule(instant="event", device_hold_s=5.0)
    )
    assert free.trace.op_start_s.tolist() == [0.0, 0.0]


def test_ties_by_edge_or_by_name() -> None:
    """Two readers ready at one instant start in edge order or in the order of their names."""
    graph = pg.OpGraph.build(["op0", "op9", "op10"], [(0, 1, 0.0), (0, 2, 0.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 1)))
    by_edge = pg.simulate(problem, [0, 0, 0], rule=pg.Rule(instant="event", ties="edge_order"))
    by_name = pg.simulate(problem, [0, 0, 0], rule=pg.Rule(instant="event", ties="op_name"))
    assert by_edge.trace.op_start_s.tolist() == [0.0, 1.0, 2.0]
    assert by_name.trace.op_start_s.tolist() == [0.0, 2.0, 1.0]


def test_bad_input_is_named() -> None:
    """Unknown names list the known ones; a wrong placement says which op and device."""
    problem = problem_of([(0, 1, 1.0)], [1.0, 1.0], 2)
    with pytest.raises(InvalidRule, match=r"unknown simulator rule 'gihp'; known: giph, link, physical, placeto"):
        pg.simulate(problem, [0, 0], rule="gihp")
    with pytest.raises(
        InvalidRule, match="unknown contention 'wire'; known: egress, half_duplex, link, nic, none, port"
    ):
        pg.Rule(contention="wire")  # type: ignore[arg-type]
    with pytest.raises(InfeasiblePlacement, match=r"op 'b' is on device 2; expected 0\.\.1"):
        pg.simulate(problem, [0, 2])
    with pytest.raises(InfeasiblePlacement, match=r"shape \(3,\); expected \(2,\)"):
        pg.simulate(problem, [0, 0, 0])
    with pytest.raises(InfeasiblePlacement, match="whole numbers"):
        pg.simulate(problem, [0.5, 0.0])
    with pytest.raises(InfeasiblePlacement, match="dtype float64; expected whole numbers"):
        pg.simulate_batch(problem, [[0.0, 1.7]])
    with pytest.raises(InvalidOption, match="needs priority"):
        pg.simulate(problem, [0, 0], rule=pg.Rule(queue="priority"))
    with pytest.raises(InvalidOption, match="needs rng"):
        pg.simulate(problem, [0, 0], noise=0.1)
    with pytest.raises(InvalidOption, match=r"noise is -0\.1"):
        pg.simulate(problem, [0, 0], noise=-0.1, rng=np.random.default_rng(0))
    with pytest.raises(InfeasiblePlacement, match=r"holds 0\.\.2; expected device numbers 0\.\.1"):
        pg.simulate_batch(problem, [[0, 2]])
    with pytest.raises(InfeasiblePlacement, match=r"holds -1\.\.0; expected device numbers 0\.\.1"):
        pg.simulate_batch(problem, [[0, -1]])
    for shape in ((2,), (1, 3), (1, 1, 2)):
        with pytest.raises(InfeasiblePlacement, match=r"expected \[B, 2\]"):
            pg.simulate_batch(problem, np.zeros(shape, int))
    with pytest.raises(InvalidOption, match="n_threads is 0"):
        pg.simulate_batch(problem, [[0, 1]], n_threads=0)


@pytest.mark.parametrize("queue", ["fifo", "lifo"])
def test_an_order_that_cannot_count_is_refused(queue: str) -> None:
    """A priority under a queue that reads none is refused in one line, by one placement and by many."""
    problem, rule = problem_of([], [1.0, 1.0], 2), pg.Rule(queue=queue)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=f"^priority is given, but queue '{queue}' ignores it; leave it out"):
        pg.simulate(problem, [0, 1], rule=rule, priority=[1.0, 0.0])
    with pytest.raises(InvalidOption, match=f"^priorities is given, but queue '{queue}' ignores it; leave it out"):
        pg.simulate_batch(problem, [[0, 1]], rule=rule, priorities=[1.0, 0.0])


def test_bad_priorities_are_named() -> None:
    """Missing, of another shape, or no numbers; for one placement and for many."""
    problem = problem_of([(0, 1, 1.0)], [1.0, 1.0], 2)
    rule = pg.Rule(queue="priority")
    for ranks in (np.zeros(3), np.zeros((3, 2)), np.array([0.0, np.nan])):
        with pytest.raises(InvalidOption, match=r"expected \(2,\) numbers"):
            pg.simulate(problem, [0, 0], rule=rule, priority=ranks)
        with pytest.raises(InvalidOption, match=r"expected \(2,\) or \(2, 2\)"):
            pg.simulate_batch(problem, [[0, 0], [0, 1]], rule=rule, priorities=ranks)
    with pytest.raises(InvalidOption, match="priorities has shape None"):
        pg.simulate_batch(problem, [[0, 0]], rule=pg.Rule(queue="priority"))


def test_a_batch_says_which_placement_cannot_run() -> None:
    """Op b runs on device 0 alone, where the first two placements have it."""
    problem = pg.Problem.from_times(pg.OpGraph.build(["a", "b"], []), [[1.0, 1.0], [1.0, np.inf]])
    with pytest.raises(InfeasiblePlacement, match="placement 2: op 'b' cannot run on device 'device1'"):
        pg.simulate_batch(problem, [[0, 0], [1, 0], [0, 1], [1, 1]])


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_batches_of_any_size(n_threads: int) -> None:
    """From none to more placements than threads: 2 s where both ops share a device, 1 s where not."""
    problem = problem_of([], [1.0, 1.0], 2)
    for size in range(6):
        placements = [[0, i % 2] for i in range(size)]
        found = pg.simulate_batch(problem, np.array(placements, int).reshape(-1, 2), n_threads=n_threads)
        assert found.tolist() == [2.0 - i % 2 for i in range(size)]
