"""SelectPlace-v0: phases, pairs, the order of selection."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from environments import assert_same, crowded, free, make, make_vec, rollout, some_actions
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs.observation import ACTION_FEATURES, OP_FEATURES, PAIR, PLACE, SELECT, table
from placement_gym.envs.stack import reference_s
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.rule import PRESETS, resolve_rule


def ready_of(problem: pg.Problem, op_device: Any) -> Any:
    """Bool [n_ops]: ops that are not placed, but whose inputs all are."""
    placed, graph = op_device >= 0, problem.graph
    waits = [not placed[graph.edge_src[graph.edge_dst == op]].all() for op in range(problem.n_ops)]
    return ~placed & ~np.array(waits)


@pytest.mark.parametrize("seed", range(4))
def test_phases_by_brute_force(seed: int) -> None:
    """In turn a ready op and a device for it; nothing is said of devices while an op is to be chosen."""
    problem = random_problem(np.random.default_rng(seed), n_ops=9, n_devices=3, unsupported=True)
    observations, _, info = rollout(make("SelectPlace", problem=problem), seed)
    selected = []
    for seen in observations[:-1]:
        if seen["phase"][0] == SELECT:
            np.testing.assert_array_equal(seen["action_mask"] == 1, ready_of(problem, seen["op_device"]))
            assert seen["op"][0] == -1
            assert not seen["action_features"].any()
        else:
            able = np.isfinite(problem.op_time_s[seen["op"][0]])
            np.testing.assert_array_equal(seen["action_mask"][:3] == 1, able)
            assert not seen["action_mask"][3:].any()
            selected.append(int(seen["op"][0]))
    assert [int(seen["phase"][0]) for seen in observations] == [SELECT, PLACE] * 9 + [PLACE]
    assert info["order"].tolist() == selected
    for key in ("op", "phase", "action_mask", "action_features"):
        np.testing.assert_array_equal(observations[-1][key], observations[-2][key])


@pytest.mark.parametrize("groups", [None, "colocation"])
@pytest.mark.parametrize("seed", range(4))
def test_joint_is_phased_in_one_step(seed: int, groups: str | None) -> None:
    """The same ops and devices are seen, earn and end alike; the pair's features are those of the chosen op."""
    problem, rng = crowded(seed, 7, 3), np.random.default_rng(seed)
    options = {"problem": problem, "reward": "dense", "groups": groups}
    phased, joint = make("SelectPlace", **options), make("SelectPlace", **options, action="joint")
    one, other, done = phased.reset()[0], joint.reset()[0], False
    while not done:
        assert (other["phase"][0], other["op"][0]) == (PAIR, -1)
        pairs = other["action_mask"].reshape(7, 3)
        features = table("action_features", other["action_features"]).reshape(7, 3, -1)
        ready = ready_of(problem, other["op_device"])
        np.testing.assert_array_equal(pairs.any(axis=1), ready)
        np.testing.assert_array_equal(one["action_mask"][:7] == 1, ready)
        assert not features[~ready].any()
        action = int(some_actions(joint.action_masks()[None], rng)[0])
        op, device = divmod(action, 3)
        one, reward, *_ = phased.step(op)
        assert reward == 0
        np.testing.assert_array_equal(table("action_features", one["action_features"]), features[op])
        np.testing.assert_array_equal(one["action_mask"][:3], pairs[op])
        one, reward, done, _, info = phased.step(device)
        other, paired, joint_done, _, joint_info = joint.step(action)
        assert (reward, done) == (paired, joint_done)
    assert_same(info, joint_info)


@pytest.mark.parametrize("rule", sorted(PRESETS))
@pytest.mark.parametrize("action", ["phased", "joint"])
def test_order_of_selection_is_the_priority(rule: str, action: str) -> None:
    """With priority="selection" the makespan is that of the priority queue, the op selected first ahead."""
    problem = random_problem(np.random.default_rng(1), n_ops=16, n_devices=2, edge_share=0.1, whole_numbers=False)
    env = make("SelectPlace", problem=problem, rule=rule, priority="selection", action=action)
    _, _, info = rollout(env, 1)
    ranked = replace(resolve_rule(rule), queue="priority")
    priority = np.zeros(16)
    for k, op in enumerate(info["order"]):
        priority[op] = -k
    assert info["makespan_s"] == pg.simulate(problem, info["op_device"], rule=ranked, priority=priority).makespan_s
    # The other way round is another schedule, so the order does count here.
    assert info["makespan_s"] != pg.simulate(problem, info["op_device"], rule=ranked, priority=-priority).makespan_s
    assert env.schedule().makespan_s == info["makespan_s"]
    assert env.rule == ranked


def test_more_devices_than_ops() -> None:
    """The mask is as wide as the larger of both, and 0 behind what it masks."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 1.0)])
    vector = make_vec("SelectPlace", 2, problem=pg.Problem.from_times(graph, np.ones((2, 4))))
    seen, _ = vector.reset()
    assert seen["action_mask"].tolist() == [[1, 0, 0, 0]] * 2
    seen, *_ = vector.step([0, 0])
    assert seen["action_mask"].tolist() == [[1, 1, 1, 1]] * 2
    seen, *_ = vector.step([3, 0])
    assert seen["action_mask"].tolist() == [[0, 1, 0, 0]] * 2
    assert seen["op_device"].tolist() == [[3, -1], [0, -1]]


def test_ops_of_a_group_follow_as_they_become_ready() -> None:
    """`a`, `d` and `e` are a group: `d` and `e` follow on its device once `b` and `c` are placed."""
    graph = pg.OpGraph.build(list("abcde"), [(0, 1, 1.0), (1, 3, 1.0), (2, 3, 1.0), (3, 4, 1.0)])
    problem = pg.Problem.from_times(graph, np.ones((5, 2)), link_bytes_per_s=1.0)
    for action in ("phased", "joint"):
        env = make("SelectPlace", problem=problem, groups=[7, 1, 2, 7, 7], action=action)
        env.reset()
        for op, device, expected in ((0, 1, [1, -1, -1, -1, -1]), (2, 0, [1, -1, 0, -1, -1]), (1, 0, [1, 0, 0, 1, 1])):
            steps = (op, device) if action == "phased" else (op * 2 + device,)
            for step in steps:
                seen, _, done, _, info = env.step(step)
            assert seen["op_device"].tolist() == expected
            assert not done or info["order"].tolist() == [0, 2, 1, 3, 4]
        assert done


@pytest.mark.parametrize("rule", ["giph", "physical"])
def test_observations_say_what_the_critical_path_teacher_does(rule: str) -> None:
    """Labels from b_level, finish_behind and the mask are those computed from the problem, ties too."""
    # Whole numbers make ties common.
    problem = random_problem(np.random.default_rng(3), n_ops=14, n_devices=4, edge_share=0.2, unsupported=True)
    level = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
    env, b = make_vec("SelectPlace", 8, problem=problem, rule=rule), 8
    rng, n_tied, done = np.random.default_rng(4), 0, False
    seen, _ = env.reset(seed=0)
    while not done:
        shown = table("op_features", seen["op_features"])[:, :, OP_FEATURES.index("b_level")]
        ops = []
        for row in range(b):
            ready = seen["action_mask"][row] == 1
            label = ready & (shown[row] >= shown[row, ready].max() - 1e-6)
            np.testing.assert_array_equal(label, ready & np.isclose(level, level[ready].max()))
            ops.append(int(rng.choice(np.flatnonzero(label))))
        seen, *_ = env.step(ops)
        assert seen["op"].ravel().tolist() == ops
        rows = table("action_features", seen["action_features"])
        allowed = seen["action_mask"][:, :4] == 1
        finish = rows[:, :, ACTION_FEATURES.index("finish")]
        labels = allowed & (rows[:, :, ACTION_FEATURES.index("finish_behind")] <= 1e-6)
        for row in range(b):
            earliest = finish[row, allowed[row]].min()
            np.testing.assert_array_equal(labels[row], allowed[row] & np.isclose(finish[row], earliest, atol=1e-6))
        n_tied += int((labels.sum(axis=1) > 1).sum())
        devices = [int(rng.choice(np.flatnonzero(label))) for label in labels]
        seen, _, ends, *_ = env.step(devices)
        done = bool(ends.all())
        if rule == "giph":
            reached = env.episodes.process.partial.clock.finish[np.arange(b), ops] / reference_s(problem)
            np.testing.assert_allclose(reached, finish[np.arange(b), devices], rtol=1e-5)
    assert n_tied > 0


def test_the_clock_is_the_simulator_in_the_order_of_starts() -> None:
    """Without contention, ops selected in the order in which they start: nothing is missing at the last step."""
    for seed in range(5):
        problem = free(seed, 10, 3)
        problem = replace(problem, device_slots=np.ones(3, np.int32))
        env = make("SelectPlace", problem=problem, rule="giph", priority="selection", reward="dense")
        _, _, info = rollout(env, seed)
        rule = env.rule
        priority = np.zeros(10)
        priority[info["order"]] = -np.arange(10)
        schedule = pg.simulate(problem, info["op_device"], rule=rule, priority=priority)
        env.reset()
        for op in np.lexsort((problem.graph.order.argsort(), schedule.trace.op_start_s)):
            env.step(int(op))
            _, _, _, _, again = env.step(int(info["op_device"][op]))
        assert again["makespan_s"] == pytest.approx(schedule.makespan_s)
        assert env.episodes.process.partial.reached[0] == pytest.approx(schedule.makespan_s)
