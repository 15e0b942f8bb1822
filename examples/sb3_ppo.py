"""PPO of Stable-Baselines3 on Assign-v0, without action masks: the nearest allowed action is done."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3 import PPO

from examples.sb3_watch import Watch
from examples.setting import setting


def main(arguments: Sequence[str] | None = None) -> None:
    """Learns and reports."""
    given = setting(__doc__ or "", arguments)
    options: dict[str, Any] = {"observation": "flat", "invalid": "nearest", "reward": "dense"}
    env = gym.make("placement_gym/Assign-v0", problem=given.problem, **options)
    watch = Watch(given.episodes)
    learner = PPO("MlpPolicy", env, n_steps=400, gamma=1.0, seed=given.seed, device="cpu")
    learner.learn(given.steps, callback=watch)
    given.report("PPO", watch.makespans_s)


if __name__ == "__main__":
    main()
