"""Assign-v0, single and vector."""

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs.observation import DYNAMIC, STATIC, table
from placement_gym.envs.reward import OVERFULL_RETURN, reference_s
from placement_gym.errors import InvalidAction, InvalidOption
from placement_gym.rule import PRESETS


def small(seed: int = 0, *, unsupported: bool = True) -> pg.Problem:
    """A small unlike problem."""
    rng = np.random.default_rng(seed)
    return random_problem(rng, n_ops=9, n_devices=3, whole_numbers=False, unsupported=unsupported)


def make(problem: pg.Problem, **options: object) -> gym.Env:  # type: ignore[type-arg]
    """Assign-v0 without wrappers."""
    return gym.make("placement_gym/Assign-v0", problem=problem, **options).unwrapped  # type: ignore[arg-type]


def rollout(env: gym.Env, seed: int) -> tuple[list[dict], list[float], dict]:  # type: ignore[type-arg]
    """(observations, rewards, last info) of random allowed actions."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    observations, rewards, done, info = [observation], [], False, {}
    while not done:
        action = rng.choice(np.flatnonzero(observation["action_mask"]))
        observation, reward, done, _, info = env.step(action)
        observations.append(observation)
        rewards.append(float(reward))
    return observations, rewards, info


def test_checkers_are_silent() -> None:
    """Gymnasium's and stable-baselines3's checkers find nothing to warn of."""
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    every = pg.workloads.layered(n_ops=12, n_devices=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(every), skip_render_check=True)
        check_for_sb3(make(every))
        check_env(gym.make("placement_gym/Assign-v0", problem=every, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("rule", sorted(PRESETS))
@pytest.mark.parametrize("seed", range(3))
def test_return_is_the_simulated_makespan(rule: str, seed: int) -> None:
    """Terminal and dense rewards add up to minus the makespan over the reference, and the sign is right."""
    problem = small(seed)
    returns = []
    for reward in ("terminal", "dense"):
        _, rewards, info = rollout(make(problem, rule=rule, reward=reward), seed)
        assert info["makespan_s"] == pg.simulate(problem, info["op_device"], rule=rule).makespan_s
        assert sum(rewards) == pytest.approx(-info["makespan_s"] / reference_s(problem))
        assert reward == "dense" or rewards[:-1] == [0.0] * (problem.n_ops - 1)
        returns.append(sum(rewards))
    assert returns[0] == pytest.approx(returns[1])
    assert returns[0] < 0


def test_same_seed_same_rollout() -> None:
    """Two environments driven alike see the same."""
    one, other = (rollout(make(small()), 5) for _ in range(2))
    assert one[1] == other[1]
    for a, b in zip(one[0], other[0], strict=True):
        for key in (*STATIC, *DYNAMIC):
            np.testing.assert_array_equal(a[key], b[key])


def test_clock_is_exact_without_waiting_channels() -> None:
    """Under `giph`, ops placed in the order in which they start: the estimate is the simulated makespan."""
    problem = pg.workloads.layered(n_ops=24, n_devices=1)
    env = make(problem, rule="giph", reward="dense")
    _, rewards, info = rollout(env, 0)
    assert -sum(rewards[:-1]) * reference_s(problem) < info["makespan_s"]
    assert env.episodes.reached_s[0] == pytest.approx(info["makespan_s"])  # type: ignore[attr-defined]


def test_earliest_finish_by_hand() -> None:
    """Two ops of 1 s; the second reads 2 bytes of the first over 1 byte/s: starts 1 (here) or 3 (there)."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 2.0)])
    problem = pg.Problem.from_times(graph, np.ones((2, 2)), link_bytes_per_s=1.0)
    env = make(problem)
    env.reset()
    observation, *_ = env.step(np.int64(0))
    names = pg.envs.observation.DEVICE_FEATURES
    devices = table("device_features", observation["device_features"])
    start, finish, load = (devices[:, names.index(x)] for x in ("start", "finish", "load"))
    np.testing.assert_allclose(start * 2, [1.0, 3.0])
    np.testing.assert_allclose(finish * 2, [2.0, 4.0])
    np.testing.assert_allclose(load * 2, [1.0, 0.0])


@pytest.mark.parametrize("order", ["rank", "topological"])
@pytest.mark.parametrize("seed", range(3))
def test_vector_form_agrees(order: str, seed: int) -> None:
    """Each episode of the vector form sees and earns what a single environment does for the same actions."""
    problem, b = small(seed), 5
    rng = np.random.default_rng(seed)
    vector = gym.make_vec("placement_gym/Assign-v0", num_envs=b, problem=problem, order=order, reward="dense")
    singles = [make(problem, order=order, reward="dense") for _ in range(b)]
    seen, _ = vector.reset()
    each = [env.reset()[0] for env in singles]
    for _ in range(2):
        for step in range(problem.n_ops):
            assert vector.observation_space.contains({k: np.array(v) for k, v in seen.items()})
            for i in range(b):
                for key in (*STATIC, *DYNAMIC):
                    np.testing.assert_array_equal(seen[key][i], each[i][key], err_msg=f"{key} at step {step}")
            actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in seen["action_mask"]])
            seen, rewards, ends, _, info = vector.step(actions)
            for i, env in enumerate(singles):
                each[i], reward, end, _, one = env.step(actions[i])
                assert (reward, end) == (rewards[i], ends[i])
                if end:
                    assert one["makespan_s"] == info["makespan_s"][i]
        seen, *_ = vector.step(np.zeros(b, dtype=int))  # begins the next episodes
        each = [env.reset()[0] for env in singles]


def test_mask_keeps_memory_and_colocation() -> None:
    """Random allowed actions give feasible placements; the mask is never empty."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(8)], [], colocation=[0, 1, 0, 1, -1, -1, -1, -1])
    problem = pg.Problem.from_times(graph, np.ones((8, 3)), device_memory_bytes=4.0, op_memory_bytes=np.ones(8))
    for seed in range(20):
        observations, _, info = rollout(make(problem, order="topological"), seed)
        assert all(o["action_mask"].any() for o in observations)
        pg.Placement(info["op_device"]).check(problem)
        assert not info["overfull"]


def test_dead_end_is_penalised_and_said() -> None:
    """Where an op has room nowhere, the mask opens, and the episode ends overfull with the stated return."""
    graph = pg.OpGraph.build(["small0", "small1", "large"], [])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=[1.0, 1.0, 3.0])
    env = make(problem, order="topological")
    env.reset()
    env.step(np.int64(0))
    observation, *_ = env.step(np.int64(1))
    assert observation["action_mask"].tolist() == [1, 1]
    _, reward, done, _, info = env.step(np.int64(0))
    assert (reward, done, info["overfull"]) == (OVERFULL_RETURN, True, True)


def test_wrong_actions_change_nothing() -> None:
    """An action outside the mask is named with what is allowed; the episode goes on as if it had not been."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 1.0)])
    problem = pg.Problem.from_times(graph, [[1.0, np.inf], [1.0, 1.0]])
    env = make(problem)
    before, _ = env.reset()
    for action in (1, 7, -1):
        with pytest.raises(InvalidAction, match=rf"op 'a' may not go to device {action}; the action mask allows \[0\]"):
            env.step(np.int64(action))
    env.step(np.int64(0))
    assert before["op_device"].tolist() == [-1, -1]
    assert env.step(np.int64(1))[2]
    with pytest.raises(InvalidAction, match="the episode is over"):
        env.step(np.int64(0))
    vector = gym.make_vec("placement_gym/Assign-v0", num_envs=2, problem=problem)
    vector.reset()
    with pytest.raises(InvalidAction, match="episode 1: op 'a' may not go to device 1"):
        vector.step(np.array([0, 1]))
    assert vector.step(np.array([0, 0]))[1].tolist() == [0.0, 0.0]


def test_padding_and_other_problems() -> None:
    """A padded environment takes any problem that fits, by reset options, and names what does not fit."""
    env = make(small(), max_ops=20, max_edges=90, max_devices=4)
    for seed in range(3):
        observation, _ = env.reset(options={"problem": small(seed)})
        assert env.observation_space.contains(observation)
        assert observation["action_mask"][3] == 0
    with pytest.raises(InvalidOption, match="has 30 ops; this environment is padded to 20"):
        env.reset(options={"problem": pg.workloads.layered(n_ops=30)})


def test_wrong_options_are_named() -> None:
    """Unknown choices list the known ones."""
    for options, said in (
        ({"reward": "sparse"}, "unknown reward 'sparse'; known: dense, terminal"),
        ({"order": "random"}, "unknown order 'random'; known: rank, topological"),
        ({"rule": pg.Rule(queue="priority")}, "needs ranks"),
    ):
        with pytest.raises(InvalidOption, match=said):
            pg.envs.AssignEnv(small(), **options)  # type: ignore[arg-type]


def test_render_and_copies() -> None:
    """The Gantt chart is an image; copies and pickles go on from where the original is."""
    env = make(small(), render_mode="rgb_array")
    observation, _ = env.reset()
    env.step(np.int64(np.flatnonzero(observation["action_mask"])[0]))
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert picture.min() < picture.max()
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert other.episodes.position == 1
