"""Speed of the environments without a policy: ops placed per second of one core."""

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import VectorEnv
from speed_problems import problem_of

import placement_gym as pg

pytestmark = pytest.mark.benchmark
Figure = Callable[..., bool]
N_OPS = 200


def episode_s(env: "VectorEnv[Any, Any, Any]", tries: int = 7) -> float:
    """CPU seconds of one batch of episodes, from reset to makespans, best of several; the first allowed action each."""
    times = []
    for _ in range(tries):
        began = time.process_time()
        seen, _ = env.reset()
        done = False
        while not done:
            # Numpy's argmax stops at the first True, but not at the first 1.
            seen, _, ended, _, _ = env.step(seen["action_mask"].view(bool).argmax(axis=1))
            done = ended[0]
        times.append(time.process_time() - began)
    return min(times[1:])


def like(problem: pg.Problem, n: int) -> list[pg.Problem]:
    """Problems of the same graph with other times."""
    rng = np.random.default_rng(0)
    links = {"link_latency_s": problem.link_latency_s, "link_bytes_per_s": problem.link_bytes_per_s}
    scales = rng.uniform(0.5, 2.0, (n, *problem.op_time_s.shape))
    return [pg.Problem.from_times(problem.graph, problem.op_time_s * scale, **links) for scale in scales]


@pytest.mark.parametrize("rule", ["giph", "physical"])
@pytest.mark.parametrize("env_id", ["Assign-v0", "SelectPlace-v0"])
def test_ops_placed_per_second(env_id: str, rule: str, figure: Figure) -> None:
    """200 ops on 4 devices: choice of actions, steps, observations, rewards and simulations, by the CPU's clock.

    A step is one op placed in one episode: in SelectPlace-v0, selecting and placing it together count as one.
    """
    problem, held = problem_of(N_OPS), []
    for num_envs, copy, target in (
        (32, False, None),
        (64, False, None),
        (256, False, ">= 1e6"),
        (256, True, ">= 1.4e6"),
    ):
        env = gym.make_vec(f"placement_gym/{env_id}", num_envs=num_envs, problem=problem, rule=rule, copy=copy)
        rate = num_envs * N_OPS / episode_s(env)
        name = f"{env_id}, rule {rule}, {num_envs} episodes, {'fresh arrays' if copy else 'views'}, without a policy"
        held.append(figure(name, rate, "ops placed/s per core", target, n_ops=N_OPS, n_devices=4))
    assert all(held)


@pytest.mark.parametrize("env_id", ["Assign-v0", "SelectPlace-v0"])
def test_ops_placed_per_second_of_many_problems(env_id: str, figure: Figure) -> None:
    """256 episodes of 64 problems side by side, one drawn for each episode."""
    problems = like(problem_of(N_OPS), 64)
    env = gym.make_vec(f"placement_gym/{env_id}", num_envs=256, problems=problems, rule="giph")
    rate = 256 * N_OPS / episode_s(env)
    name = f"{env_id}, rule giph, 256 episodes of 64 problems, fresh arrays, without a policy"
    assert figure(name, rate, "ops placed/s per core", ">= 1e6", n_ops=N_OPS, n_devices=4)


@pytest.mark.parametrize("env_id", ["Assign-v0", "SelectPlace-v0"])
def test_scalar_steps_per_second(env_id: str, figure: Figure) -> None:
    """100 ops, one episode, with Gymnasium's wrappers."""
    env = gym.make(f"placement_gym/{env_id}", problem=problem_of(100), disable_env_checker=True)
    times = []
    for _ in range(5):
        began, steps, done = time.process_time(), 0, False
        seen, _ = env.reset()
        while not done:
            seen, _, done, _, _ = env.step(int(seen["action_mask"].argmax()))
            steps += 1
        times.append((time.process_time() - began) / steps)
    figure(f"{env_id}, scalar form", 1 / min(times[1:]), "steps/s", n_ops=100, n_devices=4)
