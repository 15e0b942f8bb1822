"""Schedule.check on traces written by hand: what is legal, what is not, and what a tolerance lets pass."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InvalidSchedule
from placement_gym.trace import Trace

Ops = dict[str, tuple[int, float, float, float]]
Transfers = dict[str, tuple[float, float, float]]
FIFO, LIFO, RANKED = pg.Rule(), pg.Rule(queue="lifo"), pg.Rule(queue="priority")


def told(
    ops: Ops,
    transfers: Transfers | None = None,
    local: tuple[str, ...] = (),
    *,
    rule: pg.Rule = FIFO,
    slots: int = 1,
    priority: tuple[float, ...] = (),
) -> pg.Schedule:
    """A schedule of measured times.

    Args:
        ops: One letter -> (device, ready, start, finish).
        transfers: Two letters, an edge between devices -> (ready, start, arrival).
        local: Two letters each, edges that stay on a device.
        rule: Under which it is checked.
        slots: Of each device.
        priority: Of each op.
    """
    names, sent = list(ops), transfers or {}
    pairs = [*sent, *local]
    # Outputs of their own, so that each edge is a tensor.
    edges = [(names.index(pair[0]), names.index(pair[1]), 1.0 + i) for i, pair in enumerate(pairs)]
    device = np.array([d for d, *_ in ops.values()])
    problem = pg.Problem.from_times(
        pg.OpGraph.build(names, edges), np.ones((len(ops), device.max() + 1)), device_slots=slots
    )
    trace = Trace.empty(len(ops), len(edges))
    trace.op_ready_s, trace.op_start_s, trace.op_finish_s = np.array([times for _, *times in ops.values()], float).T
    if sent:
        moved = np.array(list(sent.values()), float).T
        trace.transfer_ready_s[: len(sent)], trace.transfer_start_s[: len(sent)] = moved[:2]
        trace.transfer_arrival_s[: len(sent)] = moved[2]
    trace.op_release_s, trace.transfer_release_s = trace.op_finish_s, trace.transfer_arrival_s
    trace.last_event_s = max(float(trace.op_finish_s.max()), float(np.nanmax(trace.transfer_arrival_s, initial=0.0)))
    ranks = np.array(priority or [0.0] * len(ops))
    return pg.Schedule(problem, pg.Placement(device), rule, trace, ranks, exact=False)


# What each is off by: a quarter of a second.
OFF_BY_A_QUARTER = {
    "an op is ready after its last input": (
        told({"a": (0, 0, 0, 1), "b": (0, 1.25, 1.25, 2)}, local=("ab",)),
        r"precedence: op 'b' is ready at 1.25 s; expected 1.0 s",
    ),
    "an op is ready before its last input": (
        told({"a": (0, 0, 0, 1), "b": (0, 0.75, 1, 2)}, local=("ab",)),
        r"precedence: op 'b' is ready at 0.75 s; expected 1.0 s",
    ),
    "a transfer is ready after its producer": (
        told({"a": (0, 0, 0, 1), "b": (1, 3, 3, 4)}, {"ab": (1.25, 1.25, 3)}),
        r"precedence: transfer of edge 0 .* is ready at 1.25 s; expected 1.0 s",
    ),
    "a transfer is ready before its producer": (
        told({"a": (0, 0, 0, 1), "b": (1, 3, 3, 4)}, {"ab": (0.75, 1, 3)}),
        r"precedence: transfer of edge 0 .* is ready at 0.75 s; expected 1.0 s",
    ),
    "two ops overlap in one slot": (
        told({"a": (0, 0, 0, 1.25), "b": (0, 0, 1, 2)}),
        r"capacity: device 'device0' runs 2 ops at 1.0 s; it has 1 slots",
    ),
    "three ops overlap in two slots": (
        told({"a": (0, 0, 0, 1.25), "b": (0, 0, 0, 2), "c": (0, 0, 1, 3)}, slots=2),
        r"capacity: device 'device0' runs 3 ops at 1.0 s; it has 2 slots",
    ),
    "the device idles before an op": (
        told({"a": (0, 0, 0, 1), "b": (0, 0, 1.25, 2)}),
        r"work conservation: op 'b' is ready at 0.0 s and starts at 1.25 s, but device 'device0' has a free slot",
    ),
    "the device idles before its first op": (
        told({"a": (0, 0, 0.25, 1), "b": (1, 0, 0, 1)}),
        r"work conservation: op 'a' is ready at 0.0 s and starts at 0.25 s, but device 'device0' has a free slot",
    ),
    "one of two slots idles before an op": (
        told({"a": (0, 0, 0, 1), "b": (0, 0, 0, 2), "c": (0, 0, 1.25, 2)}, slots=2),
        r"work conservation: op 'c' is ready at 0.0 s and starts at 1.25 s, but device 'device0' has a free slot",
    ),
    "the op that was ready later goes first": (
        told({"a": (0, 0, 0, 1), "w": (0, 0, 2, 3), "p": (0, 0.25, 1, 2), "q": (1, 0, 0, 0.25)}, {"qp": (0.25,) * 3}),
        r"queue order \(fifo\) on 'device0': op 'p' starts before op 'w'",
    ),
    "the op that was ready earlier goes first": (
        told(
            {"a": (0, 0, 0, 2), "w": (0, 1.25, 3, 4), "p": (0, 1, 2, 3), "q": (1, 0, 0, 1), "r": (2, 0, 0, 1.25)},
            {"qp": (1, 1, 1), "rw": (1.25,) * 3},
            rule=LIFO,
        ),
        r"queue order \(lifo\) on 'device0': op 'p' starts before op 'w'",
    ),
    "an op starts after another came that goes first": (
        told(
            {"a": (0, 0, 0, 1.25), "w": (0, 1, 2, 3), "p": (0, 0, 1.25, 2), "q": (1, 0, 0, 1)},
            {"qw": (1, 1, 1)},
            rule=LIFO,
        ),
        r"queue order \(lifo\) on 'device0': op 'p' starts before op 'w'",
    ),
    "an op starts before another that goes first": (
        told(
            {"a": (0, 0, 0, 1), "b": (0, 0, 0, 1.25), "w": (0, 0, 1.25, 2), "p": (0, 0.5, 1, 2), "q": (1, 0, 0, 0.5)},
            {"qp": (0.5,) * 3},
            slots=2,
        ),
        r"queue order \(fifo\) on 'device0': op 'p' starts before op 'w'",
    ),
    "two transfers overlap on a link": (
        told({"a": (0, 0, 0, 1), "b": (1, 3.25, 3.25, 4), "c": (1, 5, 5, 6)}, {"ab": (1, 1, 3.25), "ac": (1, 3, 5)}),
        r"contention \(port\): channel 0, .* carries 2 transfers at 3.0 s",
    ),
    "the channels are free before a transfer starts": (
        told({"a": (0, 0, 0, 1), "b": (1, 3, 3, 4), "c": (1, 5, 5, 6)}, {"ab": (1, 1, 3), "ac": (1, 3.25, 5)}),
        r"work conservation: transfer of edge 1 .* is ready at 1.0 s and starts at 3.25 s, .* free at 3.0 s",
    ),
    "the channels are free between what a transfer waits for": (
        told({"a": (0, 0, 0, 1), "b": (1, 3, 3, 4), "c": (1, 5, 5, 6)}, {"ac": (1, 3, 5), "ab": (1, 1.25, 3)}),
        r"work conservation: transfer of edge 0 .* is ready at 1.0 s and starts at 3.0 s, .* free at 1.0 s",
    ),
    "the transfer that was ready later goes first": (
        told(
            {
                **{"x": (0, 0, 0, 1), "w": (0, 0, 0, 1), "p": (0, 0, 0, 1.25)},
                **{"y": (1, 4, 4, 5), "v": (1, 6, 6, 7), "q": (1, 5, 5, 6)},
            },
            {"xy": (1, 1, 4), "wv": (1, 5, 6), "pq": (1.25, 4, 5)},
            slots=3,
        ),
        r"queue order \(fifo\): transfer of edge 2 .* before transfer of edge 1",
    ),
    "the transfer that was ready earlier goes first": (
        told(
            {
                **{"x": (0, 0, 0, 1), "w": (0, 0, 0, 1.25), "p": (0, 0, 0, 1)},
                **{"y": (1, 4, 4, 5), "v": (1, 6, 6, 7), "q": (1, 5, 5, 6)},
            },
            {"xy": (1, 1, 4), "wv": (1.25, 5, 6), "pq": (1, 4, 5)},
            rule=LIFO,
            slots=3,
        ),
        r"queue order \(lifo\): transfer of edge 2 .* before transfer of edge 1",
    ),
    "a transfer starts after another came that goes first": (
        told(
            {
                **{"x": (0, 0, 0, 1), "w": (0, 0, 0, 2), "p": (0, 0, 0, 1)},
                **{"y": (1, 2.25, 2.25, 3), "v": (1, 5, 5, 6), "q": (1, 4, 4, 5)},
            },
            {"xy": (1, 1, 2.25), "wv": (2, 4, 5), "pq": (1, 2.25, 4)},
            rule=LIFO,
            slots=3,
        ),
        r"queue order \(lifo\): transfer of edge 2 .* before transfer of edge 1",
    ),
    "a transfer starts before another that goes first": (
        told(
            {
                **{"x": (0, 0, 0, 1), "w": (0, 0, 0, 1), "p": (0, 0, 0, 2)},
                **{"y": (1, 4, 4, 5), "v": (1, 6, 6, 7), "q": (1, 4.25, 4.25, 6)},
            },
            {"xy": (1, 1, 4), "wv": (1, 4.25, 6), "pq": (2, 4, 4.25)},
            slots=3,
        ),
        r"queue order \(fifo\): transfer of edge 2 .* before transfer of edge 1",
    ),
}


@pytest.mark.parametrize("case", OFF_BY_A_QUARTER)
def test_a_tolerance_lets_pass_what_is_off_by_as_much(case: str) -> None:
    """A schedule that breaks one rule by 0.25 s passes with a tolerance of 0.25 s; with less, the rule is named."""
    schedule, said = OFF_BY_A_QUARTER[case]
    schedule.check(0.25)
    for tolerance_s in (0.0, 0.2):
        with pytest.raises(InvalidSchedule, match=said):
            schedule.check(tolerance_s)


def test_the_last_event_is_told_within_the_tolerance() -> None:
    """0.25 s too early or too late."""
    for last_s in (0.75, 1.25):
        schedule = told({"a": (0, 0, 0, 1)})
        schedule.trace.last_event_s = last_s
        schedule.check(0.25)
        with pytest.raises(InvalidSchedule, match=f"the last event is at {last_s} s; expected 1.0 s"):
            schedule.check(0.2)


@pytest.mark.parametrize(
    ("columns", "by_s", "said"),
    [
        (("op_start_s",), np.nan, "trace: op 0 has a time where none belongs, or lacks one"),
        (("transfer_start_s",), np.nan, "trace: edge 0 has a time where none belongs, or lacks one"),
        (("op_ready_s",), 9.0, "trace: op 0 goes back in time: 9.0 > 0.0"),
        (("op_ready_s", "op_start_s", "op_finish_s", "op_release_s"), 0.5, "precedence: op 'a' is ready at 0.5 s"),
        (("op_finish_s", "op_release_s"), -0.5, "duration: op 'a' takes 0.5 s; expected 1.0 s"),
        (
            ("transfer_arrival_s", "transfer_release_s"),
            -0.5,
            r"duration: transfer of edge 0 .* takes 0.5 s; expected 1",
        ),
    ],
)
def test_the_first_of_several_faults_is_named(columns: tuple[str, ...], by_s: float, said: str) -> None:
    """Two chains of a transfer of 1 s, whose times are all off."""
    graph = pg.OpGraph.build(list("abcd"), [(0, 1, 1.0), (2, 3, 1.0)])
    schedule = pg.simulate(pg.Problem.from_times(graph, np.ones((4, 4)), link_bytes_per_s=1.0), [0, 1, 2, 3])
    for column in columns:
        getattr(schedule.trace, column)[:] += by_s
    if by_s < 0:
        # What comes after is right.
        schedule.trace.transfer_ready_s[:] = schedule.trace.op_finish_s[[0, 2]]
        schedule.trace.op_ready_s[[1, 3]] = schedule.trace.transfer_arrival_s
    with pytest.raises(InvalidSchedule, match=said):
        schedule.check()


def test_ranks_decide_and_equal_ranks_do_not() -> None:
    """Of two ops, or transfers, that wait at once, the one of lower rank may not go first; of equal rank either may."""
    ops: Ops = {"a": (0, 0, 0, 1), "w": (0, 0, 2, 3), "p": (0, 0, 1, 2)}
    told(ops, rule=RANKED, priority=(0, 2, 2)).check()
    told(ops, rule=RANKED, priority=(0, 1, 2)).check()
    with pytest.raises(InvalidSchedule, match=r"queue order \(priority\) on 'device0': op 'p' starts before op 'w'"):
        told(ops, rule=RANKED, priority=(0, 2, 1)).check()
    with pytest.raises(InvalidSchedule, match=r"op 'p' starts before op 'w'"):  # and so does q
        told({**ops, "w": (0, 0, 3, 4), "q": (0, 0, 2, 3)}, rule=RANKED, priority=(0, 2, 1, 1)).check()
    ops = {"a": (0, 0, 0, 1), "x": (1, 2, 2, 3), "w": (1, 4, 4, 5), "p": (1, 3, 3, 4)}
    sent: Transfers = {"ax": (1, 1, 2), "aw": (1, 3, 4), "ap": (1, 2, 3)}
    told(ops, sent, rule=RANKED, priority=(0, 3, 2, 2)).check()
    told(ops, sent, rule=RANKED, priority=(0, 3, 1, 2)).check()
    with pytest.raises(InvalidSchedule, match=r"queue order \(priority\): transfer of edge 2 .* before .* edge 1"):
        told(ops, sent, rule=RANKED, priority=(0, 3, 2, 1)).check()


@pytest.mark.parametrize("instant", ["whole", "event"])
@pytest.mark.parametrize("tolerance_s", [0.0, 0.25])
def test_transfers_wait_their_turn(instant: Literal["whole", "event"], tolerance_s: float) -> None:
    """A link is free at 4 s; what is ready at 2 s starts then, what is ready at 1 s after it, as under lifo."""
    ops: Ops = {
        **{"x": (0, 0, 0, 1), "w": (0, 0, 0, 1), "p": (0, 0, 0, 2)},
        **{"y": (1, 4, 4, 5), "v": (1, 6, 6, 7), "q": (1, 5, 5, 6)},
    }
    sent: Transfers = {"xy": (1, 1, 4), "wv": (1, 5, 6), "pq": (2, 4, 5)}
    rule = pg.Rule(contention="link", instant=instant)
    told(ops, sent, rule=replace(rule, queue="lifo"), slots=3).check(tolerance_s)
    with pytest.raises(InvalidSchedule, match=r"queue order \(fifo\): transfer of edge 2 .* before .* edge 1"):
        told(ops, sent, rule=rule, slots=3).check(tolerance_s)


@pytest.mark.parametrize("length_s", [0.0, 2.0])
def test_a_transfer_may_be_passed_where_another_takes_one_of_its_channels(length_s: float) -> None:
    """Ports 0 and 1 are free at 3 s; w (0 to 1) waits, since v (3 to 1) came before it, and p (0 to 2) may go."""
    until = 3.0 + length_s
    ops: Ops = {
        **{"a": (0, 0, 0, 1), "b": (3, 0, 0, 1), "c": (0, 0, 0, 1.5), "d": (0, 0, 0, 2)},
        **{"x": (1, 3, 3, 4), "v": (1, until, until, 9), "w": (1, 7, 7, 8), "p": (2, 5, 5, 6)},
    }
    sent: Transfers = {"ax": (1, 1, 3), "bv": (1, 3, until), "cw": (1.5, 5, 7), "dp": (2, 3, 5)}
    told(ops, sent, slots=3).check()
    told(ops, sent, slots=3).check(0.25)
    # Without v, w goes first.
    ops["v"], sent["bv"] = (1, 1, 1, 9), (1, 1, 1)
    with pytest.raises(InvalidSchedule, match=r"queue order \(fifo\): transfer of edge 3 .* before .* edge 2"):
        told(ops, sent, slots=3).check()


@pytest.mark.parametrize("instant", ["whole", "event"])
def test_what_is_released_at_an_instant(instant: Literal["whole", "event"]) -> None:
    """At 3 s u (3 to 1) frees port 1 and p (0 to 2) starts before w (0 to 1): legal where u may be handled later."""
    ops: Ops = {
        **{"a": (0, 0, 0, 1), "b": (3, 0, 0, 1), "c": (0, 0, 0, 1.5), "d": (0, 0, 0, 2)},
        **{"x": (2, 3, 3, 4), "u": (1, 3, 3, 9), "w": (1, 7, 7, 8), "p": (2, 5, 5, 6)},
    }
    sent: Transfers = {"ax": (1, 1, 3), "bu": (1, 1, 3), "cw": (1.5, 5, 7), "dp": (2, 3, 5)}
    rule = pg.Rule(instant=instant)
    if instant == "event":
        told(ops, sent, slots=3, rule=rule).check()
    else:
        with pytest.raises(InvalidSchedule, match=r"queue order \(fifo\): transfer of edge 3 .* before .* edge 2"):
            told(ops, sent, slots=3, rule=rule).check()
    # Let go a moment later, it is in the way.
    ops["u"], sent["bu"] = (1, 3.25, 3.25, 9), (1, 1, 3.25)
    for tolerance_s in (0.0, 0.25):
        told(ops, sent, slots=3, rule=rule).check(tolerance_s)


def test_memory_may_be_full_and_no_more() -> None:
    """Device 1 holds 1 byte of parameters and, while b runs, two copies of 2 bytes: 5 bytes are enough."""
    graph = pg.OpGraph.build(["a", "b", "c", "d"], [(0, 1, 2.0), (2, 3, 2.0)], parameter_bytes=[0.0, 1.0, 0.0, 0.0])
    time = np.array([1.0, 5.0, 1.0, 1.0])[:, None] * np.ones((1, 2))
    for memory_bytes in (5.0, 4.5):
        problem = pg.Problem.from_times(graph, time, device_memory_bytes=memory_bytes)
        schedule = pg.simulate(problem, [0, 1, 0, 1], memory="report")
        if memory_bytes == 5.0:
            schedule.check()
        else:
            with pytest.raises(InvalidSchedule, match=r"'device1' holds 5 bytes .* its memory is 4.5 bytes"):
                schedule.check()
