"""Partial placements: room, groups, slots, and rows that are made alike again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_placement, random_problem

import placement_gym as pg
from placement_gym.simulator import compile_problem
from placement_gym.simulator.partial import (
    PartialPlacement,
    PartialProblem,
    copy_row,
    earliest_start,
    fits,
    lacking,
    least_slot,
    put,
    put_at,
)

RULES = [
    pg.Rule(contention="none"),
    pg.Rule(transfers="edge", contention="link"),
    pg.Rule(),
    pg.Rule(transfers="multicast", contention="half_duplex"),
    "placeto",
]


def _fresh(
    problem: pg.Problem, rule: pg.Rule | str = "physical", rows: int = 1
) -> tuple[PartialProblem, PartialPlacement]:
    partial = PartialProblem.of(compile_problem(problem, rule))
    return partial, PartialPlacement.fresh(partial, rows)


def test_room_groups_and_support_by_hand() -> None:
    """Three devices hold 5, 4 and 9 bytes; a and b (2 bytes each) move together, c takes 2 and d 1 byte."""
    graph = pg.OpGraph.build(
        ["a", "b", "c", "d"], [(0, 1, 0.0)], parameter_bytes=[2, 2, 2, 1], colocation=[0, 0, -1, -1]
    )
    time = np.ones((4, 3))
    time[1, 2] = np.inf
    problem = pg.Problem.from_times(graph, time, device_memory_bytes=[5.0, 4.0, 9.0])
    f, s = _fresh(problem)
    a, c, d = f.op_group[[0, 2, 3]]
    # b cannot run on the third device, so its group may not go there, whatever the room.
    assert [fits(f, s, 0, a, device) for device in range(3)] == [True, True, False]
    put(f, s, 0, 0, 0)
    assert s.memory_used[0].tolist() == [4, 0, 0]
    # The rest of a group goes where the group is, and takes no more room; 1 byte is left there.
    assert [fits(f, s, 0, a, device) for device in range(3)] == [True, False, False]
    assert [lacking(f, s, 0, c, device) <= 0 for device in range(3)] == [False, True, True]
    assert [lacking(f, s, 0, d, device) <= 0 for device in range(3)] == [True, True, True]
    put(f, s, 0, 1, 0)
    put(f, s, 0, 3, 0)
    assert s.memory_used[0].tolist() == [5, 0, 0]
    assert not s.overfull[0]
    put(f, s, 0, 2, 0)
    assert s.overfull[0]
    assert s.load[0].tolist() == [4, 0, 0]


def test_slots_by_hand() -> None:
    """Two slots take 3 s and 1 s of work; the next op of 1 s follows the shorter one; a chosen start is kept."""
    problem = pg.Problem.from_times(
        pg.OpGraph.build(["a", "b", "c", "d"], []), [[3.0], [1.0], [1.0], [1.0]], device_slots=2
    )
    f, s = _fresh(problem)
    assert least_slot(s, 0, 0) == 0
    put(f, s, 0, 0, 0)
    assert least_slot(s, 0, 0) == 1
    put(f, s, 0, 1, 0)
    assert earliest_start(f, s, 0, 2, 0) == 1.0
    put(f, s, 0, 2, 0)
    assert s.slot_free[0, 0].tolist() == [3.0, 2.0]
    # An op in a gap does not free its slot before what runs there later has ended.
    assert put_at(f, s, 0, 3, 0, 0, 1.5) == 2.5
    assert s.slot_free[0, 0].tolist() == [3.0, 2.0]
    assert s.clock.finish[0].tolist() == [3.0, 1.0, 2.0, 2.5]
    assert s.reached[0] == 3.0


def test_a_slot_that_is_not_there_is_never_free() -> None:
    """One device has two slots, the other one."""
    problem = pg.Problem.from_times(pg.OpGraph.build(["a", "b"], []), np.ones((2, 2)), device_slots=[2, 1])
    f, s = _fresh(problem)
    put(f, s, 0, 0, 1)
    assert earliest_start(f, s, 0, 1, 1) == 1.0
    assert s.slot_free[0].tolist() == [[0.0, 0.0], [1.0, np.inf]]


@pytest.mark.parametrize("rule", RULES)
def test_a_start_is_never_later_than_said(rule: pg.Rule | str) -> None:
    """An op starts when it was said to, or, where its own transfers wait for each other, later."""
    later = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, n_ops=10, n_devices=3, whole_numbers=bool(seed % 2), unsupported=True)
        f, s = _fresh(problem, rule)
        op_device = random_placement(rng, problem)
        for op in problem.graph.order:
            said = earliest_start(f, s, 0, op, op_device[op])
            put(f, s, 0, op, op_device[op])
            waits = s.clock.finish[0, op] - said - problem.op_time_s[op, op_device[op]]
            assert waits > -1e-9
            later += waits > 1e-9
    assert bool(later) == f.clock.contended


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from(RULES))
def test_a_copied_row_is_equal(seed: int, rule: pg.Rule | str) -> None:
    """Two rows take the same ops, then one more and more ops; copied back, no array differs."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n_ops=12, n_devices=3)
    f, s = _fresh(problem, rule, rows=2)
    op_device, cut = random_placement(rng, problem), rng.integers(0, 12)
    for op in problem.graph.order[:cut]:
        for row in range(2):
            put(f, s, row, op, op_device[op])
    rest = problem.graph.order[cut:].copy()
    for op in rest:
        put(f, s, 1, op, op_device[op])
    assert (s.clock.op_device[1] >= 0).all()
    copy_row(f, s, 0, 1, rest)
    for array in (*s.clock, *s[1:]):
        np.testing.assert_array_equal(array[0], array[1])


def test_a_pair_waits_for_its_own_channels_alone() -> None:
    """Inside a node no card is taken: while the cards carry 10 bytes between nodes, 1 byte moves beside them."""
    graph = pg.OpGraph.build(["a", "b", "c", "d"], [(0, 2, 10.0), (1, 3, 1.0)])
    problem = pg.Problem.from_times(graph, np.ones((4, 3)), link_bytes_per_s=1.0, device_node=[0, 0, 1])
    f, s = _fresh(problem, pg.Rule(contention="nic"))
    for op, device in ((0, 0), (1, 1), (2, 2)):
        put(f, s, 0, op, device)
    assert s.clock.channel_free[0].max() == 11.0
    assert earliest_start(f, s, 0, 3, 0) == 2.0
