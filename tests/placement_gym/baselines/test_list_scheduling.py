"""Ties of list scheduling by hand."""

import placement_gym as pg

PLANNED = pg.Rule(queue="priority", transfers="edge", contention="none")


def test_earliest_task_first_breaks_ties_by_the_way_to_the_end() -> None:
    """Two ops could start at 0, and after one of them two at 2 s: each time the one of the longer way goes first."""
    graph = pg.OpGraph.build(["short", "long", "after"], [(1, 2, 0.0)])
    problem = pg.Problem.from_times(graph, [[1.0], [2.0], [3.0]])
    assert pg.baselines.etf(problem, rule=PLANNED).schedule.trace.op_start_s.tolist() == [5.0, 0.0, 2.0]


def test_earliest_task_first_takes_the_faster_of_two_free_devices() -> None:
    """An op that could start at 0 on both devices goes where it takes 1 s, whichever is tried first."""
    for times, device in (([2.0, 1.0], 1), ([1.0, 2.0], 0)):
        problem = pg.Problem.from_times(pg.OpGraph.build(["a"], []), [times])
        assert pg.baselines.etf(problem, rule=PLANNED).placement.op_device.tolist() == [device]
