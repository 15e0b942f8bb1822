"""SelectPlaceEpisodes, driven directly as learners do."""

import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs import SelectPlaceEpisodes
from placement_gym.envs.observation import DEVICE_FEATURES, OP_FEATURES, Sizes, static_observation, table
from placement_gym.envs.reward import reference_s
from placement_gym.errors import InvalidAction
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.simulator import compile_problem


def episodes_of(problem: pg.Problem, b: int, rule: str = "giph", **options: bool) -> SelectPlaceEpisodes:
    """A batch on the problem."""
    return SelectPlaceEpisodes(compile_problem(problem, rule), b, reference_s(problem), **options)


def test_device_features_by_hand() -> None:
    """Two inputs of 1 and 2 s on one device, a third of 4 s on another: DOPPLER's X_D of the op that reads all."""
    graph = pg.OpGraph.build(["a", "b", "c", "d"], [(0, 3, 2.0), (1, 3, 3.0), (2, 3, 5.0)])
    times = np.repeat([[1.0], [2.0], [4.0], [3.0]], 3, axis=1)
    episodes = episodes_of(pg.Problem.from_times(graph, times, link_bytes_per_s=1.0), 1)
    for op, device in ((0, 0), (1, 0), (2, 1)):
        episodes.step([op], [device])
    assert episodes.ready[0].tolist() == [False, False, False, True]
    episodes.select([3])
    seen = {name: (episodes.features[0, :, i] * 10).tolist() for i, name in enumerate(DEVICE_FEATURES)}
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
        "memory_left": [10, 10, 10],
        "allowed": [10, 10, 10],
    }
    assert list(seen) == list(expected)
    for name, values in expected.items():
        assert seen[name] == pytest.approx(values, rel=1e-6), name


def test_input_start_by_hand() -> None:
    """The earliest start of inputs is that of those on the device: b starts after a, which is no input."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(1, 2, 0.0)])
    episodes = episodes_of(pg.Problem.from_times(graph, np.ones((3, 2))), 1)
    episodes.step([0], [0])
    episodes.step([1], [0])
    episodes.select([2])
    column = episodes.features[0, :, DEVICE_FEATURES.index("input_start")] * 3
    assert column.tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize("rule", ["giph", "link", "physical"])
def test_select_and_place_are_one_step(rule: str) -> None:
    """Both ways lead to the same placements, orders, clocks and makespans."""
    problem = random_problem(np.random.default_rng(0), n_ops=12, n_devices=3, unsupported=True)
    one, other = episodes_of(problem, 6, rule), episodes_of(problem, 6, rule)
    rng = np.random.default_rng(1)
    while not one.done:
        ops = [rng.choice(np.flatnonzero(ready)) for ready in one.ready]
        one.select(ops)
        assert one.op.tolist() == ops
        devices = [rng.choice(np.flatnonzero(mask)) for mask in one.mask]
        one.place(devices)
        other.step(ops, devices)
        np.testing.assert_array_equal(one.ready, other.ready)
    for name in ("op_device", "order", "finish_s", "reached_s", "overfull"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.weigh()[0], other.weigh(n_threads=1)[0])
    assert (np.sort(one.order, axis=1) == np.arange(12)).all()


@pytest.mark.parametrize("rule", ["giph", "physical"])
def test_observations_say_what_the_critical_path_teacher_does(rule: str) -> None:
    """Labels from b_level and ready, and from finish_behind and mask, are those computed from the problem, ties too."""
    # Whole numbers make ties common.
    problem = random_problem(np.random.default_rng(3), n_ops=14, n_devices=4, edge_share=0.2, unsupported=True)
    sizes = Sizes(problem.n_ops, problem.graph.n_edges, 4)
    op_features = table("op_features", static_observation(problem, sizes)["op_features"])
    seen_level = op_features[:, OP_FEATURES.index("b_level")]
    level = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
    episodes = episodes_of(problem, 8, rule)
    rng = np.random.default_rng(4)
    n_tied = 0
    while not episodes.done:
        ops = []
        for ready in episodes.ready.copy():
            label = ready & (seen_level >= seen_level[ready].max() - 1e-6)
            np.testing.assert_array_equal(label, ready & np.isclose(level, level[ready].max()))
            ops.append(rng.choice(np.flatnonzero(label)))
        episodes.select(ops)
        labels = episodes.mask & (episodes.features[:, :, DEVICE_FEATURES.index("finish_behind")] <= 1e-6)
        finish = episodes.features[:, :, DEVICE_FEATURES.index("finish")]
        for b in range(8):
            earliest = finish[b, episodes.mask[b]].min()
            np.testing.assert_array_equal(labels[b], episodes.mask[b] & np.isclose(finish[b], earliest, atol=1e-6))
        n_tied += int((labels.sum(axis=1) > 1).sum())
        devices = [rng.choice(np.flatnonzero(label)) for label in labels]
        predicted = finish[np.arange(8), devices]
        episodes.place(devices)
        if rule == "giph":
            reached = episodes.finish_s[np.arange(8), ops] / episodes.reference_s
            np.testing.assert_allclose(reached, predicted, rtol=1e-5)
    assert n_tied > 0


def test_reset_forgets() -> None:
    """A second round with the same actions is the first one again."""
    problem = random_problem(np.random.default_rng(5), n_ops=10, n_devices=2)
    episodes = episodes_of(problem, 3, "physical", by_selection=False, pairs=True)

    def play() -> list[np.ndarray]:
        rng = np.random.default_rng(6)
        kept = []
        while not episodes.done:
            episodes.select([rng.choice(np.flatnonzero(ready)) for ready in episodes.ready])
            kept += [episodes.features.copy(), episodes.pair_features.copy(), episodes.product_mask.copy()]
            episodes.place([rng.choice(np.flatnonzero(mask)) for mask in episodes.mask])
        return [*kept, episodes.order.copy(), episodes.finish_s.copy(), episodes.weigh()[0]]

    first = play()
    episodes.reset()
    assert (episodes.op_device == -1).all()
    assert (episodes.order == -1).all()
    for one, other in zip(first, play(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_wrong_turns_are_named() -> None:
    """Selecting twice, placing before selecting, and acting after the end say what was expected."""
    problem = pg.Problem.from_times(pg.OpGraph.build(["a"], []), np.ones((1, 2)))
    episodes = episodes_of(problem, 2)
    with pytest.raises(InvalidAction, match="the episodes wait for 'select'; got 'place'"):
        episodes.place([0, 0])
    episodes.select([0, 0])
    with pytest.raises(InvalidAction, match="the episodes wait for 'place'; got 'select'"):
        episodes.select([0, 0])
    episodes.place([0, 1])
    with pytest.raises(InvalidAction, match="all ops are placed"):
        episodes.select([0, 0])
    assert episodes.weigh()[0].tolist() == [1.0, 1.0]
