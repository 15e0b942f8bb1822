"""What the environments say of devices, by hand: DOPPLER's X_D, slots, copies of tensors."""

from typing import Any

import numpy as np
import pytest
from environments import make
from numpy.typing import NDArray

import placement_gym as pg
from placement_gym.envs.observation import ACTION_FEATURES, table


def placed(problem: pg.Problem, *pairs: tuple[int, int], **options: Any) -> pg.envs.PlacementEnv:
    """SelectPlace-v0 in which these ops are placed on these devices."""
    env = make("SelectPlace", problem=problem, **options)
    env.reset()
    for op, device in pairs:
        env.step(op)
        env.step(device)
    return env


def features_of(env: pg.envs.PlacementEnv, op: int) -> NDArray[np.float32]:
    """float32 [n_devices, ACTION_FEATURES] of an op that is selected."""
    return table("action_features", env.step(op)[0]["action_features"])


def finish_s(env: pg.envs.PlacementEnv) -> list[float]:
    """When each op ends on the clock."""
    return env.episodes.process.partial.clock.finish[0].tolist()  # type: ignore[no-any-return]


def test_device_features_by_hand() -> None:
    """Two inputs of 1 and 2 s on one device, a third of 4 s on another: DOPPLER's X_D of the op that reads all."""
    graph = pg.OpGraph.build(["a", "b", "c", "d"], [(0, 3, 2.0), (1, 3, 3.0), (2, 3, 5.0)])
    times = np.repeat([[1.0], [2.0], [4.0], [3.0]], 3, axis=1)
    problem = pg.Problem.from_times(
        graph, times, link_bytes_per_s=1.0, op_memory_bytes=[1.0, 1, 4, 1], device_memory_bytes=[4.0, 8, np.inf]
    )
    env = placed(problem, (0, 0), (1, 0), (2, 1), rule="giph")
    rows = features_of(env, 3)
    seen = {name: (rows[:, i] * 10).tolist() for i, name in enumerate(ACTION_FEATURES)}
    expected = {
        "time": [3, 3, 3],
        # a arrives elsewhere at 3, b at 6, c at 9.
        "start": [9, 6, 9],
        "finish": [12, 9, 12],
        "start_behind": [3, 0, 3],
        "finish_behind": [3, 0, 3],
        "load": [3, 4, 0],
        "input_load": [3, 4, 0],
        "input_start": [0, 0, 0],
        "input_finish": [3, 4, 0],
        "free": [3, 4, 0],
        "memory_left": [5, 5, 10],
        "allowed": [10, 10, 10],
    }
    assert list(seen) == list(expected)
    for name, values in expected.items():
        assert seen[name] == pytest.approx(values, rel=1e-6), name


def test_a_device_that_cannot_run_the_op() -> None:
    """Its time and finish are 0, it is not allowed, and nothing is behind it."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 2.0)])
    problem = pg.Problem.from_times(graph, [[1.0, 1.0], [np.inf, 3.0]], link_bytes_per_s=1.0)
    rows = features_of(placed(problem, (0, 0)), 1)
    seen = {name: (rows[:, i] * 4).tolist() for i, name in enumerate(ACTION_FEATURES)}
    assert (seen["time"], seen["finish"], seen["allowed"]) == ([0, 3], [0, 6], [0, 4])
    assert (seen["start"], seen["start_behind"], seen["finish_behind"]) == ([1, 3], [-2, 0], [0, 0])


def test_input_start_by_hand() -> None:
    """The earliest start of inputs is that of those on the device: b starts after a, which is no input."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(1, 2, 0.0)])
    rows = features_of(placed(pg.Problem.from_times(graph, np.ones((3, 2))), (0, 0), (1, 0)), 2)
    assert (rows[:, ACTION_FEATURES.index("input_start")] * 3).tolist() == pytest.approx([1, 0])


def test_a_group_has_the_time_of_all_its_ops() -> None:
    """With groups, `time` and `finish` are those of the whole group."""
    graph = pg.OpGraph.build(["a", "b", "c"], [])
    problem = pg.Problem.from_times(graph, [[1.0, 2.0], [3.0, 4.0], [5.0, 5.0]])
    rows = features_of(placed(problem, groups=[0, 0, 1]), 0) * 9
    assert rows[:, ACTION_FEATURES.index("time")].tolist() == pytest.approx([4, 6])
    assert rows[:, ACTION_FEATURES.index("finish_behind")].tolist() == pytest.approx([0, 2])
    rows = features_of(placed(problem), 0) * 9
    assert rows[:, ACTION_FEATURES.index("time")].tolist() == pytest.approx([1, 2])


def test_each_op_takes_the_slot_that_is_free_first() -> None:
    """Ops of 3, 1, 1 and 2 s on two slots: 0-3 and 0-1, 1-2, 2-4, which is when a slot is free again: 3 s."""
    graph = pg.OpGraph.build(list("abcde"), [])
    two = pg.Problem.from_times(graph, [[3.0], [1.0], [1.0], [2.0], [1.0]], device_slots=2)
    env = placed(two, *[(op, 0) for op in range(4)])
    assert features_of(env, 4)[0, ACTION_FEATURES.index("free")] * 8 == pytest.approx(3.0)
    env.step(0)
    assert finish_s(env) == [3.0, 1.0, 2.0, 4.0, 4.0]
    assert pg.simulate(two, np.zeros(5, int)).trace.op_finish_s.tolist() == [3.0, 1.0, 2.0, 4.0, 4.0]


def test_no_device_lends_another_its_slots() -> None:
    """Two ops of 1 s end at 1 and 2 s on a device of one slot, beside one of two slots, where both end at 1 s."""
    problem = pg.Problem.from_times(pg.OpGraph.build(list("abcd"), []), np.ones((4, 2)), device_slots=[1, 2])
    assert finish_s(placed(problem, (0, 0), (1, 0), (2, 1), (3, 1))) == [1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(("transfers", "finish"), [("edge", [1.0, 4.0, 6.0]), ("tensor", [1.0, 4.0, 5.0])])
def test_what_each_edge_pays_is_not_shared(transfers: str, finish: list[float]) -> None:
    """One output of 2 s to two readers on one device: under `edge` it goes twice, 1-3 and 3-5 s, else once."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 2.0), (0, 2, 2.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), link_bytes_per_s=1.0)
    rule = pg.Rule(transfers=transfers, contention="port")  # type: ignore[arg-type]
    assert finish_s(placed(problem, (0, 0), (1, 1), (2, 1), rule=rule)) == finish
    assert pg.simulate(problem, [0, 1, 1], rule=rule).trace.op_finish_s.tolist() == finish
