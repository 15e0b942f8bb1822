"""SelectPlace-v0, the single environment."""

import copy
import pickle
import warnings
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs.observation import DYNAMIC_JOINT, DYNAMIC_PHASED, PLACE, SELECT, STATIC, Sizes, table
from placement_gym.envs.reward import OVERFULL_RETURN, reference_s
from placement_gym.errors import InvalidAction, InvalidOption
from placement_gym.rule import PRESETS, resolve_rule

Seen = dict[str, NDArray[Any]]


def small(seed: int = 0, *, unsupported: bool = True) -> pg.Problem:
    """A small unlike problem."""
    rng = np.random.default_rng(seed)
    return random_problem(rng, n_ops=9, n_devices=3, whole_numbers=False, unsupported=unsupported)


def make(problem: pg.Problem, **options: object) -> pg.envs.SelectPlaceEnv:
    """SelectPlace-v0 without wrappers."""
    return gym.make("placement_gym/SelectPlace-v0", problem=problem, **options).unwrapped  # type: ignore[arg-type, return-value]


def random_action(env: pg.envs.SelectPlaceEnv, seen: Seen, rng: np.random.Generator) -> NDArray[np.int64]:
    """An allowed action; any allowed pair where actions are joint."""
    if env.action == "joint":
        return np.array(divmod(rng.choice(np.flatnonzero(seen["pair_mask"])), env.sizes.n_devices))
    return rng.choice(np.flatnonzero(seen["action_mask"]))  # type: ignore[no-any-return]


def rollout(env: pg.envs.SelectPlaceEnv, seed: int) -> tuple[list[Seen], list[float], dict[str, Any]]:
    """(observations, rewards, last info) of random allowed actions."""
    rng = np.random.default_rng(seed)
    seen, info = env.reset(seed=seed)
    observations, rewards, done = [seen], [], False
    while not done:
        seen, reward, done, _, info = env.step(random_action(env, seen, rng))
        observations.append(seen)
        rewards.append(reward)
    return observations, rewards, info


@pytest.mark.parametrize("action", ["phased", "joint"])
def test_checkers_are_silent(action: str) -> None:
    """Gymnasium's and stable-baselines3's checkers find nothing to warn of, also where support binds."""
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for problem in (pg.workloads.layered(n_ops=12, n_devices=3), small()):
            check_env(make(problem, action=action), skip_render_check=True)
            check_for_sb3(make(problem, action=action))
        check_env(make(small(), action=action, render_mode="rgb_array"))


@pytest.mark.parametrize("action", ["phased", "joint"])
@pytest.mark.parametrize("rule", sorted(PRESETS))
def test_return_is_the_simulated_makespan(rule: str, action: str) -> None:
    """Terminal and dense rewards add up to minus the makespan over the reference; one or two steps per op."""
    problem = small(1)
    returns = []
    for reward in ("terminal", "dense"):
        _, rewards, info = rollout(make(problem, rule=rule, reward=reward, action=action), 1)
        assert info["makespan_s"] == pg.simulate(problem, info["op_device"], rule=rule).makespan_s
        assert (type(info["makespan_s"]), type(info["overfull"])) == (float, bool)
        assert sum(rewards) == pytest.approx(-info["makespan_s"] / reference_s(problem))
        assert len(rewards) == problem.n_ops * (2 if action == "phased" else 1)
        if reward == "terminal":
            assert rewards[:-1] == [0.0] * (len(rewards) - 1)
        elif action == "phased":
            assert rewards[::2] == [0.0] * problem.n_ops
        returns.append(sum(rewards))
    assert returns[0] == pytest.approx(returns[1])
    assert returns[0] < 0


@pytest.mark.parametrize("rule", ["giph", "physical", "placeto"])
@pytest.mark.parametrize("seed", range(3))
def test_order_of_selection_is_the_priority(rule: str, seed: int) -> None:
    """With priority="selection" the makespan is that of the priority queue, the op selected first ahead."""
    problem = random_problem(np.random.default_rng(seed), n_ops=16, n_devices=2, edge_share=0.1, whole_numbers=False)
    _, _, info = rollout(make(problem, rule=rule, priority="selection"), seed)
    ranked = replace(resolve_rule(rule), queue="priority")
    priority = np.zeros(16)
    for k, op in enumerate(info["order"]):
        priority[op] = -k
    assert info["makespan_s"] == pg.simulate(problem, info["op_device"], rule=ranked, priority=priority).makespan_s
    # The other way round is another schedule, so the order does count here.
    assert info["makespan_s"] != pg.simulate(problem, info["op_device"], rule=ranked, priority=-priority).makespan_s


def test_same_seed_same_rollout() -> None:
    """Two environments driven alike see the same."""
    one, other = (rollout(make(small()), 5) for _ in range(2))
    assert one[1] == other[1]
    for a, b in zip(one[0], other[0], strict=True):
        assert set(a) == {*STATIC, *DYNAMIC_PHASED}
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("seed", range(3))
def test_joint_is_phased_in_one_step(seed: int) -> None:
    """The same ops and devices are seen, earn and end alike; the pair's features are those of the chosen op."""
    problem, rng = small(seed), np.random.default_rng(seed)
    phased, joint = make(problem, reward="dense"), make(problem, reward="dense", action="joint")
    one, other = phased.reset()[0], joint.reset()[0]
    assert set(other) == {*STATIC, *DYNAMIC_JOINT}
    done = False
    while not done:
        np.testing.assert_array_equal(one["ready"], other["ready"])
        op, device = random_action(joint, other, rng)
        one, reward, *_ = phased.step(op)
        assert reward == 0
        rows = table("pair_features", other["pair_features"]).reshape(problem.n_ops, problem.n_devices, -1)
        np.testing.assert_array_equal(table("device_features", one["device_features"]), rows[op])
        pairs = other["pair_mask"].reshape(problem.n_ops, -1)
        np.testing.assert_array_equal(one["action_mask"][: problem.n_devices], pairs[op])
        assert not pairs[other["ready"] == 0].any()
        one, reward, done, _, info = phased.step(device)
        other, paired, joint_done, _, joint_info = joint.step(np.array([op, device]))
        assert (reward, done) == (paired, joint_done)
    assert info["makespan_s"] == joint_info["makespan_s"]
    np.testing.assert_array_equal(info["order"], joint_info["order"])


@pytest.mark.parametrize("seed", range(5))
def test_joint_mask_is_a_product_of_allowed_pairs(seed: int) -> None:
    """Every op and every device in the mask make an allowed pair, never none; where nothing binds, it is everything."""
    problem = small(seed)
    for seen in rollout(make(problem, action="joint"), seed)[0]:
        ops, devices = np.split(seen["action_mask"].astype(bool), [problem.n_ops])
        assert ops.any()
        assert devices.any()
        pairs = seen["pair_mask"].reshape(problem.n_ops, -1).astype(bool)
        assert pairs[np.ix_(ops, devices)].all()
    free = small(seed, unsupported=False)
    for seen in rollout(make(free, action="joint"), seed)[0][:-1]:
        np.testing.assert_array_equal(seen["action_mask"], [*seen["ready"], 1, 1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_ready_ops_by_brute_force(seed: int) -> None:
    """`ready` holds ops not placed whose inputs all are; it is the mask of the first phase."""
    problem = small(seed)
    observations, _, _ = rollout(make(problem), seed)
    for seen in observations:
        placed = seen["op_device"] >= 0
        graph = problem.graph
        waits = [any(not placed[a] for a in graph.edge_src[graph.edge_dst == op]) for op in range(problem.n_ops)]
        np.testing.assert_array_equal(seen["ready"] == 1, ~placed & ~np.array(waits))
        assert seen["action_mask"].any()
        if seen["phase"][0] == SELECT:
            np.testing.assert_array_equal(seen["action_mask"], seen["ready"])
            assert seen["op"][0] == -1
            assert not seen["device_features"].any()
        else:
            able = np.isfinite(problem.op_time_s[seen["op"][0]])
            np.testing.assert_array_equal(seen["action_mask"][:3] == 1, able)
            assert not seen["action_mask"][3:].any()
    assert [int(seen["phase"][0]) for seen in observations] == [SELECT, PLACE] * problem.n_ops + [PLACE]


@pytest.mark.parametrize("action", ["phased", "joint"])
def test_mask_keeps_memory_and_colocation(action: str) -> None:
    """Random allowed actions give feasible placements."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(8)], [], colocation=[0, 1, 0, 1, -1, -1, -1, -1])
    problem = pg.Problem.from_times(graph, np.ones((8, 3)), device_memory_bytes=4.0, op_memory_bytes=np.ones(8))
    for seed in range(20):
        env = make(problem, action=action)
        # Groups first: later they may find room nowhere.
        env.reset()
        for op in range(8):
            free = np.flatnonzero(env.episodes.pair_mask[0, op]) if action == "joint" else None
            if free is None:
                seen, *_ = env.step(op)
                free = np.flatnonzero(seen["action_mask"])
            device = np.random.default_rng(seed + op).choice(free)
            *_, info = env.step(device if action == "phased" else np.array([op, device]))
        pg.Placement(info["op_device"]).check(problem)
        assert not info["overfull"]


def test_dead_end_is_penalised_and_said() -> None:
    """Where an op has room nowhere, the mask opens, and the episode ends overfull with the stated return."""
    graph = pg.OpGraph.build(["small0", "small1", "large"], [])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=[1.0, 1.0, 3.0])
    env = make(problem)
    env.reset()
    for action in (0, 0, 1, 1):
        env.step(action)
    seen, *_ = env.step(2)
    assert seen["action_mask"].tolist() == [1, 1, 0]
    _, reward, done, _, info = env.step(0)
    assert (reward, done, info["overfull"]) == (OVERFULL_RETURN, True, True)


def test_wrong_actions_change_nothing() -> None:
    """An action outside the mask is named with what is allowed; the episode goes on as if it had not been."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 1.0)])
    problem = pg.Problem.from_times(graph, [[1.0, np.inf], [1.0, 1.0]])
    env, joint = make(problem), make(problem, action="joint")
    env.reset()
    joint.reset()
    for op in (1, 7, -1):
        with pytest.raises(InvalidAction, match=rf"op {op} is not ready; ready are \[0\]"):
            env.step(op)
        with pytest.raises(InvalidAction, match=rf"op {op} is not ready; ready are \[0\]"):
            joint.step(np.array([op, 0]))
    env.step(0)
    for device in (1, 7, -1):
        with pytest.raises(InvalidAction, match=rf"op 'a' may not go to device {device}; the action mask allows \[0\]"):
            env.step(device)
        with pytest.raises(InvalidAction, match=rf"op 'a' may not go to device {device}; the action mask allows \[0\]"):
            joint.step(np.array([0, device]))
    for action in (0, 1, 1):
        _, _, done, *_ = env.step(action)
    assert done
    with pytest.raises(InvalidAction, match="the episode is over"):
        env.step(0)
    with pytest.raises(InvalidAction, match="expected whole numbers"):
        make(problem).step(0.5)
    with pytest.raises(InvalidAction, match=r"actions has shape \(1,\); expected \(1, 2\)"):
        joint.step(0)


@pytest.mark.parametrize("action", ["phased", "joint"])
def test_padding_and_other_problems(action: str) -> None:
    """A padded environment takes any problem that fits, by reset options, and sees the same of it but for padding."""
    env = make(small(), sizes=Sizes(20, 90, 4), action=action)
    for seed in range(3):
        env.reset(options={"problem": small(seed)})
        padded, rewards, _ = rollout(env, seed)
        bare, same, _ = rollout(make(small(seed), action=action), seed)
        assert rewards == same
        for one, other in zip(padded, bare, strict=True):
            assert env.observation_space.contains(one)
            np.testing.assert_array_equal(one["ready"], [*other["ready"], *[0] * 11])
            assert one["action_mask"].sum() == other["action_mask"].sum()
            if action == "joint":
                pairs = one["pair_mask"].reshape(20, 4)
                np.testing.assert_array_equal(pairs[:9, :3], other["pair_mask"].reshape(9, 3))
                assert pairs.sum() == other["pair_mask"].sum()
    with pytest.raises(InvalidOption, match="has 30 ops; this environment is padded to 20"):
        env.reset(options={"problem": pg.workloads.layered(n_ops=30)})


def test_wrong_options_are_named() -> None:
    """Unknown choices list the known ones; a queue that does not go with the priority is named."""
    for options, said in (
        ({"reward": "sparse"}, "unknown reward 'sparse'; known: dense, terminal"),
        ({"action": "triple"}, "unknown action 'triple'; known: joint, phased"),
        ({"priority": "rank"}, "unknown priority 'rank'; known: none, selection"),
        ({"rule": pg.Rule(queue="priority")}, "use priority='selection'"),
        ({"rule": pg.Rule(queue="lifo"), "priority": "selection"}, "rule.queue is 'lifo'"),
        ({"render_mode": "human"}, "unknown render_mode 'human'"),
    ):
        with pytest.raises(InvalidOption, match=said):
            pg.envs.SelectPlaceEnv(small(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["phased", "joint"])
def test_masks_under_the_name_that_sb3_contrib_looks_for(action: str) -> None:
    """MaskablePPO learns on the environment: it reads `action_masks`, and every action it takes is allowed."""
    from sb3_contrib import MaskablePPO

    env = make(small(), action=action)
    seen, _ = env.reset()
    np.testing.assert_array_equal(env.action_masks(), seen["action_mask"] == 1)
    MaskablePPO("MultiInputPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=0, device="cpu").learn(64)


@pytest.mark.parametrize("action", ["phased", "joint"])
def test_render_and_copies(action: str) -> None:
    """The Gantt chart is an image at any step; copies and pickles go on from where the original is, by themselves."""
    env = make(small(), render_mode="rgb_array", action=action, priority="selection")
    seen, _ = env.reset()
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.min() < picture.max()
    seen, *_ = env.step(random_action(env, seen, np.random.default_rng(0)))
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        np.testing.assert_array_equal(other.action_masks(), seen["action_mask"] == 1)
        one, same = rollout_on(other), rollout_on(copy.deepcopy(env))
        assert one == same
        np.testing.assert_array_equal(env.action_masks(), seen["action_mask"] == 1)


def rollout_on(env: pg.envs.SelectPlaceEnv) -> list[float]:
    """Rewards from here on, by actions sampled from the action space."""
    env.action_space.seed(0)
    rewards, done = [], False
    while not done:
        _, reward, done, *_ = env.step(env.action_space.sample())
        rewards.append(reward)
    return rewards
