"""Assign-v0: the order of ops, what the mask allows, what the clock says."""

import numpy as np
import pytest
from environments import assert_same, crowded, free, make, play, rollout, some_actions
from numpy.typing import NDArray

import placement_gym as pg
from placement_gym.envs.assign import assignment_order
from placement_gym.envs.observation import ACTION_FEATURES, PLACE, table
from placement_gym.envs.stack import reference_s
from placement_gym.groups import Groups
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s


def allowed_by_hand(problem: pg.Problem, op: int, op_device: NDArray[np.int32], groups: Groups) -> NDArray[np.bool_]:
    """Bool [n_devices]: support, colocation and room, by the words of the page."""
    mates = np.flatnonzero(groups.op_group == groups.op_group[op])
    homes = {int(op_device[mate]) for mate in mates if op_device[mate] >= 0}
    if homes:
        return np.isin(np.arange(problem.n_devices), list(homes))
    able = np.isfinite(problem.op_time_s[mates]).all(axis=0)
    placed = {int(group) for group in groups.op_group[op_device >= 0]}
    # Room is kept for the whole of a group that has begun.
    room = problem.device_memory_bytes.copy()
    working = np.zeros(problem.n_devices)
    for group in placed:
        members = np.flatnonzero(groups.op_group == group)
        home = int(op_device[members].max())
        room[home] -= problem.op_memory_bytes[members].sum()
        working[home] = max(working[home], problem.op_working_bytes[members].max())
    needs = problem.op_memory_bytes[mates].sum() + np.maximum(working, problem.op_working_bytes[mates].max())
    fits = able & (needs <= room)
    return fits if fits.any() else able


@pytest.mark.parametrize("memory", ["claims", "live"])
@pytest.mark.parametrize("seed", range(8))
def test_mask_by_brute_force(seed: int, memory: str) -> None:
    """Devices that can run the group and have room for it, or where it is; all that can run it where none has room."""
    problem = crowded(seed, 8, 3, memory=memory)
    merged = Groups.together(problem, np.array([0, 0, 1, 2, 3, 4, 5, 6]))
    choices = [(None, Groups.of(problem)), ("colocation", Groups.of(problem))]
    if merged.allowed.any(axis=1).all():
        choices.append((np.array([0, 0, 1, 2, 3, 4, 5, 6]), merged))  # type: ignore[arg-type]
    for options, groups in choices:
        env = make("Assign", problem=problem, groups=options)
        for seen in rollout(env, seed)[0][:-1]:
            expected = allowed_by_hand(problem, int(seen["op"][0]), seen["op_device"], groups)
            np.testing.assert_array_equal(seen["action_mask"] == 1, expected)
            assert seen["phase"].tolist() == [PLACE]


@pytest.mark.parametrize("order", ["rank", "topological"])
@pytest.mark.parametrize("seed", range(4))
def test_ops_come_in_the_order_asked_for(seed: int, order: str) -> None:
    """By rank the ready op with the largest b-level first, or in the graph's own order; inputs come first."""
    problem = crowded(seed, 10, 3)
    level = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
    env = make("Assign", problem=problem, order=order)
    placed: list[int] = []
    for seen in rollout(env, seed)[0][:-1]:
        op, graph = int(seen["op"][0]), problem.graph
        ready = [
            v for v in range(10) if v not in placed and set(graph.edge_src[graph.edge_dst == v].tolist()) <= set(placed)
        ]
        assert op in ready
        assert order == "topological" or level[op] >= level[ready].max() - 1e-12
        placed.append(op)
    assert placed == assignment_order(problem, order).tolist()  # type: ignore[arg-type]
    if order == "topological":
        assert placed == problem.graph.order.tolist()


def test_placed_ops_are_seen() -> None:
    """`op_device` has what was done, and the last observation keeps all but that and the context."""
    env = make("Assign", problem=free())
    observations, _, info = rollout(env, 0)
    ops = [int(seen["op"][0]) for seen in observations]
    for k, seen in enumerate(observations):
        assert np.flatnonzero(seen["op_device"] >= 0).tolist() == sorted(ops[:k])
    np.testing.assert_array_equal(observations[-1]["op_device"], info["op_device"])
    for key in ("op", "phase", "action_mask", "action_features"):
        np.testing.assert_array_equal(observations[-1][key], observations[-2][key])


def test_clock_is_exact_on_one_device() -> None:
    """Ops placed in the order in which they run: the estimate is the simulated makespan, so nothing is missing."""
    problem = pg.workloads.layered(n_ops=24, n_devices=1)
    env = make("Assign", problem=problem, rule="giph", reward="dense")
    _, rewards, info = rollout(env, 0)
    assert -sum(rewards[:-1]) * reference_s(problem) < info["makespan_s"]
    assert env.episodes.process.partial.reached[0] == pytest.approx(info["makespan_s"])
    assert env.episodes.process.partial.overfull.tolist() == [False]


def test_earliest_finish_by_hand() -> None:
    """Two ops of 1 s; the second reads 2 bytes of the first over 1 byte/s: starts 1 (here) or 3 (there)."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 2.0)])
    problem = pg.Problem.from_times(graph, np.ones((2, 2)), link_bytes_per_s=1.0)
    env = make("Assign", problem=problem)
    env.reset()
    seen, *_ = env.step(0)
    rows = table("action_features", seen["action_features"])
    start, finish, load = (rows[:, ACTION_FEATURES.index(x)] for x in ("start", "finish", "load"))
    np.testing.assert_allclose(start * 2, [1.0, 3.0])
    np.testing.assert_allclose(finish * 2, [2.0, 4.0])
    np.testing.assert_allclose(load * 2, [1.0, 0.0])


def test_allowed_actions_keep_memory_and_colocation() -> None:
    """Where there is room enough, random allowed actions give feasible placements."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(8)], [], colocation=[0, 1, 0, 1, -1, -1, -1, -1])
    problem = pg.Problem.from_times(graph, np.ones((8, 3)), device_memory_bytes=4.0, op_memory_bytes=np.ones(8))
    for name, options in (
        ("Assign", {"order": "topological"}),
        ("SelectPlace", {}),
        ("SelectPlace", {"action": "joint"}),
    ):
        for seed in range(10):
            env = make(name, problem=problem, **options)
            seen, _ = env.reset()
            rng, done, n_placed = np.random.default_rng(seed), False, 0
            while not done:
                # Groups first: later they may find room nowhere.
                mask = env.action_masks()
                if name == "SelectPlace" and seen["phase"][0] != PLACE:
                    first = np.arange(len(mask)) // (3 if options else 1) == n_placed
                    mask = mask & first
                action = some_actions(mask[None], rng)[0]
                seen, _, done, _, info = env.step(action)
                n_placed = int((seen["op_device"] >= 0).sum())
            pg.Placement(info["op_device"]).check(problem)
            assert not info["overfull"]


def test_a_reset_forgets() -> None:
    """A second round with the same actions is the first one again, whatever came between."""
    env = make("Assign", problem=crowded(), reward="dense")
    first = play(env, env.reset()[0], np.random.default_rng(1))
    for seed in range(3):
        rollout(env, seed)
        env.reset()
        env.step(env.action_space.sample())
        assert_same(play(env, env.reset()[0], np.random.default_rng(1)), first)
