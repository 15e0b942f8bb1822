"""SelectPlace-v0, the vector form."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs.observation import STATIC
from placement_gym.errors import InvalidAction, InvalidOption


def small(seed: int = 0) -> pg.Problem:
    """A small unlike problem."""
    return random_problem(np.random.default_rng(seed), n_ops=9, n_devices=3, whole_numbers=False, unsupported=True)


def make(problem: pg.Problem, num_envs: int, **options: Any) -> pg.envs.SelectPlaceVectorEnv:
    """The native vector environment."""
    return gym.make_vec("placement_gym/SelectPlace-v0", num_envs=num_envs, problem=problem, **options).unwrapped  # type: ignore[return-value]


def drawn(env: pg.envs.SelectPlaceVectorEnv, seen: dict[str, Any], rng: np.random.Generator) -> Any:
    """An allowed action for each episode."""
    if env.action == "joint":
        d = env.problem.n_devices
        return np.array([divmod(rng.choice(np.flatnonzero(mask)), d) for mask in seen["pair_mask"]])
    return np.array([rng.choice(np.flatnonzero(mask)) for mask in seen["action_mask"]])


@pytest.mark.parametrize("action", ["phased", "joint"])
@pytest.mark.parametrize("priority", ["none", "selection"])
@pytest.mark.parametrize("seed", range(3))
def test_vector_form_agrees(action: str, priority: str, seed: int) -> None:
    """Each episode of the vector form sees and earns what a single environment does, over two rounds of episodes."""
    problem, b = small(seed), 5
    options: dict[str, Any] = {"action": action, "priority": priority, "reward": "dense"}
    rng = np.random.default_rng(seed)
    vector = make(problem, b, **options)
    singles = [pg.envs.SelectPlaceEnv(problem, **options) for _ in range(b)]
    seen, _ = vector.reset()
    for _ in range(2):
        each = [env.reset()[0] for env in singles]
        ended = False
        while not ended:
            assert vector.observation_space.contains({key: np.array(value) for key, value in seen.items()})
            for i in range(b):
                assert set(seen) == set(each[i])
                for key in seen:
                    np.testing.assert_array_equal(seen[key][i], each[i][key], err_msg=key)
            actions = drawn(vector, seen, rng)
            seen, rewards, ends, cut, info = vector.step(actions)
            for i, env in enumerate(singles):
                each[i], reward, end, _, one = env.step(actions[i])
                assert (reward, end) == (rewards[i], ends[i])
                for key, value in one.items():
                    np.testing.assert_array_equal(info[key][i], value)
            ended = bool(ends.all())
            assert not cut.any()
        assert info["order"].shape == (b, problem.n_ops)
        for i in range(b):
            for key in seen:
                np.testing.assert_array_equal(seen[key][i], each[i][key], err_msg=key)
        seen, rewards, ends, *_ = vector.step(np.zeros_like(actions))  # begins the next episodes
        assert not rewards.any()
        assert not ends.any()


def test_more_devices_than_ops() -> None:
    """The mask is as wide as the larger of both, and 0 behind what it masks."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 1.0)])
    vector = make(pg.Problem.from_times(graph, np.ones((2, 4))), 2)
    seen, _ = vector.reset()
    assert seen["action_mask"].tolist() == [[1, 0, 0, 0]] * 2
    seen, *_ = vector.step(np.array([0, 0]))
    assert seen["action_mask"].tolist() == [[1, 1, 1, 1]] * 2
    seen, *_ = vector.step(np.array([3, 0]))
    assert seen["action_mask"].tolist() == [[0, 1, 0, 0]] * 2
    assert seen["op_device"].tolist() == [[3, -1], [0, -1]]


def test_arrays_are_views() -> None:
    """What an observation hands out is the environment's own memory, and stays where it is."""
    vector = make(small(), 4)
    first, _ = vector.reset()
    second, *_ = vector.step(drawn(vector, first, np.random.default_rng(0)))
    for key in (*STATIC, "ready", "op_device"):
        assert np.shares_memory(first[key], second[key]), key
    assert np.shares_memory(second["device_features"], vector.episodes.features)
    assert np.shares_memory(second["action_mask"], vector.episodes.mask)
    assert np.shares_memory(first["action_mask"], vector.episodes.ready)


def test_wrong_actions_and_options_are_named() -> None:
    """The first wrong episode is named and nothing changes; shapes and counts are checked."""
    vector = make(small(), 3)
    seen, _ = vector.reset()
    ready = int(np.flatnonzero(seen["ready"][0])[0])
    waits = int(np.flatnonzero(seen["ready"][0] == 0)[0])
    with pytest.raises(InvalidAction, match=f"episode 2: op {waits} is not ready"):
        vector.step(np.array([ready, ready, waits]))
    with pytest.raises(InvalidAction, match=r"ops has shape \(2,\); expected \(3,\)"):
        vector.step(np.array([ready, ready]))
    seen, *_ = vector.step(np.array([ready] * 3))
    assert seen["op"].ravel().tolist() == [ready] * 3
    with pytest.raises(InvalidAction, match=r"episode 1: op .* may not go to device 9"):
        vector.step(np.array([int(seen["action_mask"][0].argmax()), 9, 0]))
    assert (seen["op_device"] == -1).all()
    with pytest.raises(InvalidOption, match="num_envs is 0"):
        pg.envs.SelectPlaceVectorEnv(0, small())
