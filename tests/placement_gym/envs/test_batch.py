"""The clock of the environments by hand: slots of devices, copies of tensors."""

import numpy as np
import pytest
from by_hand import ByHand

import placement_gym as pg
from placement_gym.envs.observation import ACTION_FEATURES, table
from placement_gym.envs.stack import reference_s


def test_each_op_takes_the_slot_that_is_free_first() -> None:
    """Ops of 3, 1, 1 and 2 s on two slots: 0-3 and 0-1, 1-2, 2-4, which is when a slot is free again: 3 s."""
    problem = pg.Problem.from_times(pg.OpGraph.build(list("abcde"), []), [[3.0], [1.0], [1.0], [2.0], [1.0]])
    two = pg.Problem.from_times(problem.graph, problem.op_time_s, device_slots=2)
    episode = ByHand(two)
    for op in range(4):
        episode.put(op, 0)
    seen, *_ = episode.env.step(4)
    free = table("action_features", seen["action_features"])[0, ACTION_FEATURES.index("free")]
    assert free * reference_s(two) == 3.0
    episode.env.step(0)
    assert episode.finish_s == [3.0, 1.0, 2.0, 4.0, 4.0]
    assert pg.simulate(two, np.zeros(5, int)).trace.op_finish_s.tolist() == [3.0, 1.0, 2.0, 4.0, 4.0]


def test_no_device_lends_another_its_slots() -> None:
    """Two ops of 1 s end at 1 and 2 s on a device of one slot, beside one of two slots, where both end at 1 s."""
    problem = pg.Problem.from_times(pg.OpGraph.build(list("abcd"), []), np.ones((4, 2)), device_slots=[1, 2])
    episode = ByHand(problem)
    for op, device in enumerate((0, 0, 1, 1)):
        episode.put(op, device)
    assert episode.finish_s == [1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(("transfers", "finish"), [("edge", [1.0, 4.0, 6.0]), ("tensor", [1.0, 4.0, 5.0])])
def test_what_each_edge_pays_is_not_shared(transfers: str, finish: list[float]) -> None:
    """One output of 2 s to two readers on one device: under `edge` it goes twice, 1-3 and 3-5 s, else once."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 2.0), (0, 2, 2.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), link_bytes_per_s=1.0)
    rule = pg.Rule(transfers=transfers, contention="port")  # type: ignore[arg-type]
    episode = ByHand(problem, rule)
    for op, device in enumerate((0, 1, 1)):
        episode.put(op, device)
    assert episode.finish_s == finish
    assert pg.simulate(problem, [0, 1, 1], rule=rule).trace.op_finish_s.tolist() == finish
