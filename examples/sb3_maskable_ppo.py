"""MaskablePPO of sb3-contrib on Assign-v0: it finds the environment's `action_masks` by that name."""

from collections.abc import Sequence

import gymnasium as gym
from sb3_contrib import MaskablePPO

from examples.sb3_watch import Watch
from examples.setting import setting


def main(arguments: Sequence[str] | None = None) -> None:
    """Learns and reports."""
    given = setting(__doc__ or "", arguments)
    env = gym.make("placement_gym/Assign-v0", problem=given.problem, observation="flat", reward="dense")
    watch = Watch(given.episodes)
    learner = MaskablePPO("MlpPolicy", env, n_steps=400, gamma=1.0, seed=given.seed, device="cpu")
    learner.learn(given.steps, callback=watch)
    given.report("MaskablePPO", watch.makespans_s)


if __name__ == "__main__":
    main()
