"""Speed of the native vector environments without a policy: ops placed per second of one core."""

import time
from collections.abc import Callable

import gymnasium as gym
import pytest
from gymnasium.vector import VectorEnv
from speed_problems import problem_of

pytestmark = pytest.mark.benchmark
Figure = Callable[..., bool]


def episode_s(env: "VectorEnv", tries: int = 7) -> float:  # type: ignore[type-arg]
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


@pytest.mark.parametrize("rule", ["giph", "physical"])
@pytest.mark.parametrize("env_id", ["Assign-v0", "SelectPlace-v0"])
def test_ops_placed_per_second(env_id: str, rule: str, figure: Figure) -> None:
    """200 ops on 4 devices: choice of actions, steps, observations, rewards and simulations, by the CPU's clock.

    A step is one op placed in one episode: in SelectPlace-v0, selecting and placing it together count as one.
    """
    problem, held = problem_of(200), []
    for num_envs, target in ((32, None), (64, None), (256, ">= 1e6")):
        env = gym.make_vec(f"placement_gym/{env_id}", num_envs=num_envs, problem=problem, rule=rule)
        rate = num_envs * problem.n_ops / episode_s(env)
        name = f"{env_id}, rule {rule}, {num_envs} episodes, without a policy"
        held.append(figure(name, rate, "ops placed/s per core", target, n_ops=200, n_devices=4))
    assert all(held)
