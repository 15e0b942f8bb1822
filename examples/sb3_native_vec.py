"""MaskablePPO over the native vector form by `Sb3VecEnv`, and how fast that is beside SB3's own DummyVecEnv."""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.sb3_vec_env import Sb3VecEnv
from examples.sb3_watch import Watch
from examples.setting import setting

ENV = "placement_gym/Assign-v0"


def steps_per_s(env: VecEnv, n_steps: int) -> float:
    """Environment steps per second with action 0, without a learner."""
    env.reset()
    actions = np.zeros(env.num_envs, np.int64)
    began = time.perf_counter()
    for _ in range(n_steps):
        env.step(actions)
    return float(n_steps * env.num_envs / (time.perf_counter() - began))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, learns and reports."""
    given = setting(__doc__ or "", arguments)
    options: dict[str, Any] = {"problem": given.problem, "observation": "flat", "reward": "dense"}

    def native(num_envs: int) -> Sb3VecEnv:
        return Sb3VecEnv(gym.make_vec(ENV, num_envs=num_envs, autoreset_mode="SAME_STEP", **options))

    dummy = DummyVecEnv([lambda: gym.make(ENV, **options)] * 64)
    fast, slow = steps_per_s(native(64), 200), steps_per_s(dummy, 50)
    print(f"64 episodes: {fast:,.0f} steps/s native, {slow:,.0f} by DummyVecEnv, {fast / slow:.1f} times as many")

    watch = Watch(given.episodes)
    learner = MaskablePPO("MlpPolicy", native(8), n_steps=50, gamma=1.0, seed=given.seed, device="cpu")
    learner.learn(given.steps, callback=watch)
    given.report("MaskablePPO, native", watch.makespans_s)


if __name__ == "__main__":
    main()
