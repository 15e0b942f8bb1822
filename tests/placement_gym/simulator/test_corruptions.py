"""Schedule.check rejects every schedule in which a named rule is broken by 1 % of the makespan or more."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from strategies import order_for, random_placement, random_problem

import placement_gym as pg
from placement_gym.errors import PlacementGymError
from placement_gym.rule import PRESETS
from placement_gym.trace import transfer_heads

Corrupt = Callable[[pg.Schedule, np.random.Generator, float], bool]
OP = ("op_ready_s", "op_start_s", "op_finish_s", "op_release_s")
TRANSFER = ("transfer_ready_s", "transfer_start_s", "transfer_arrival_s", "transfer_release_s")


def _pick(rng: np.random.Generator, among: np.ndarray) -> int | None:
    return int(rng.choice(among)) if among.size else None


def _shift(schedule: pg.Schedule, columns: tuple[str, ...], i: int, by_s: float) -> None:
    for column in columns:
        getattr(schedule.trace, column)[i] += by_s


def op_starts_early(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Precedence: an op starts before its inputs are there."""
    i = _pick(rng, np.flatnonzero(schedule.trace.op_ready_s >= by_s))
    if i is None:
        return False
    wait = schedule.trace.op_start_s[i] - schedule.trace.op_ready_s[i]
    _shift(schedule, OP[1:], i, -(wait + by_s))
    return True


def op_idles(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Work conservation: the last op starts later than it could, and all that follows is told to be so."""
    i = int(np.argmax(schedule.trace.op_finish_s))
    _shift(schedule, OP[1:], i, by_s)
    schedule.trace.last_event_s += by_s
    return True


def op_is_shorter(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Duration: an op takes less time than the problem says."""
    trace = schedule.trace
    i = _pick(rng, np.flatnonzero(trace.op_finish_s - trace.op_start_s >= by_s))
    if i is not None:
        _shift(schedule, OP[2:], i, -by_s)
    return i is not None


def transfer_starts_early(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Precedence: a transfer starts before its producer is done."""
    made = schedule.transfers()
    i = _pick(rng, made[schedule.trace.transfer_ready_s[made] >= by_s])
    if i is not None:
        wait = schedule.trace.transfer_start_s[i] - schedule.trace.transfer_ready_s[i]
        _shift(schedule, TRANSFER[1:], i, -(wait + by_s))
    return i is not None


def transfer_is_shorter(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Duration: a transfer takes less time than its link."""
    trace = schedule.trace
    i = _pick(rng, np.flatnonzero(trace.transfer_arrival_s - trace.transfer_start_s >= by_s))
    if i is not None:
        _shift(schedule, TRANSFER[2:], i, -by_s)
    return i is not None


def transfer_is_late(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Work conservation: a transfer starts later than it could, while nothing else has its channels."""
    made, trace = schedule.transfers(), schedule.trace
    # One that takes less time could have let another go first, which may be legal.
    i = _pick(rng, made[trace.transfer_arrival_s[made] - trace.transfer_start_s[made] >= by_s])
    if i is not None:
        _shift(schedule, TRANSFER[1:], i, by_s)
    return i is not None


def transfer_is_missing(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Completeness: an edge between devices has no transfer."""
    i = _pick(rng, schedule.transfers())
    if i is not None:
        for column in TRANSFER:
            getattr(schedule.trace, column)[i] = np.nan
    return i is not None


def last_event_is_wrong(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """The time of the last event, which some rules report as the makespan."""
    schedule.trace.last_event_s -= by_s
    return True


def ops_swapped(schedule: pg.Schedule, rng: np.random.Generator, by_s: float) -> bool:
    """Queue order: two ops that waited on one device, equally long and read by none, swap their turns."""
    trace, d = schedule.trace, schedule.op_device
    for a in rng.permutation(len(d)):
        later = (d == d[a]) & (trace.op_start_s >= trace.op_start_s[a] + by_s)
        b = _pick(rng, np.flatnonzero(later & (schedule.priority < schedule.priority[a])))
        if b is not None and trace.op_start_s[a] >= by_s:
            for column in OP[1:]:
                times = getattr(trace, column)
                times[[a, b]] = times[[b, a]]
            return True
    return False


CORRUPTIONS: tuple[Corrupt, ...] = (
    op_starts_early,
    op_idles,
    op_is_shorter,
    transfer_starts_early,
    transfer_is_shorter,
    transfer_is_late,
    transfer_is_missing,
    last_event_is_wrong,
    ops_swapped,
)
RULES = [
    pg.Rule(transfers=transfers, contention=contention)  # type: ignore[arg-type]
    for transfers in ("edge", "tensor", "multicast")
    for contention in ("none", "link", "egress", "port", "half_duplex", "nic")
] + [PRESETS["placeto"]]


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # times that are missing
def test_500_corruptions_are_rejected() -> None:
    """Of 500 corruptions of all kinds and under all rules, each of at least 1 % of the makespan, all are found."""
    done = dict.fromkeys((corrupt.__name__ for corrupt in CORRUPTIONS), 0)
    seed = 0
    while sum(done.values()) < 500:
        rng = np.random.default_rng(seed)
        corrupt, rule = CORRUPTIONS[seed % len(CORRUPTIONS)], RULES[seed // len(CORRUPTIONS) % len(RULES)]
        if corrupt is ops_swapped:
            rule = replace(rule, queue="priority")
            problem = pg.Problem.from_times(pg.OpGraph.build([f"op{i}" for i in range(16)], []), np.full((16, 3), 3.0))
        else:
            problem = random_problem(rng, n_ops=16, n_devices=3, edge_share=0.2, whole_numbers=bool(seed % 2))
        op_device, priority = random_placement(rng, problem), order_for(rule, rng.permutation(16).astype(float))
        schedule = pg.simulate(problem, op_device, rule=rule, priority=priority)
        schedule.check()
        seed += 1
        by_s = rng.uniform(0.01, 0.1) * schedule.makespan_s
        if (corrupt is not ops_swapped and by_s == 0) or not corrupt(schedule, rng, by_s):
            continue
        done[corrupt.__name__] += 1
        try:
            replace(schedule, trace=schedule.trace).check()
        except PlacementGymError:
            continue
        raise AssertionError(f"{corrupt.__name__} was not found with seed {seed - 1} under {rule}")
    assert min(done.values()) >= 10, done


def test_heads_cover_every_remote_edge() -> None:
    """Each edge between devices belongs to one transfer, others to none."""
    rng = np.random.default_rng(0)
    problem = random_problem(rng, n_ops=20, n_devices=3)
    op_device = random_placement(rng, problem)
    graph = problem.graph
    for rule in RULES:
        heads = transfer_heads(graph, op_device, rule)
        np.testing.assert_array_equal(heads >= 0, op_device[graph.edge_src] != op_device[graph.edge_dst])
