"""Sb3VecEnv: the native vector form as Stable-Baselines3 wants it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

import placement_gym as pg
from agents.sb3_vec_env import Sb3VecEnv
from placement_gym.errors import InvalidOption

ENVS = sorted(name for name in gym.registry if name.startswith("placement_gym/"))


def native(name: str, num_envs: int = 3, **options: Any) -> Sb3VecEnv:
    """The adapter over a native vector form."""
    return Sb3VecEnv(gym.make_vec(name, num_envs=num_envs, autoreset_mode="SAME_STEP", **options))


def equal(a: Any, b: Any) -> bool:
    """Whether two observations, or infos, are equal; SB3's own additions to infos apart."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


@pytest.mark.parametrize("form", ["dict", "flat"])
@pytest.mark.parametrize("name", ENVS)
def test_it_is_dummy_vec_env_over_the_scalar_form(name: str, form: str) -> None:
    """Observations, rewards, ends, infos, masks and last observations are equal, episode after episode."""
    problems = [pg.workloads.layered(n_ops=n, n_devices=3, seed=n) for n in (5, 8)]
    options = {"problems": problems, "observation": form}
    ours, theirs = native(name, **options), DummyVecEnv([lambda: gym.make(name, **options)] * 3)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    ours.seed(5)
    theirs.seed(5)
    assert equal(ours.reset(), theirs.reset())
    rng, ended = np.random.default_rng(0), 0
    for _ in range(60):
        masks = get_action_masks(ours)
        assert (masks == get_action_masks(theirs)).all()
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        one, two = ours.step(actions), theirs.step(actions)
        assert equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])
        assert np.array_equal(one[2], two[2])
        for mine, other in zip(one[3], two[3], strict=True):
            assert equal(mine, {key: other[key] for key in mine})
            assert set(other) - set(mine) <= {"TimeLimit.truncated"}
        ended += int(one[2].sum())
    assert ended > 3


def test_attributes_and_methods_reach_the_rows() -> None:
    """By name and by indices; an unknown name is an AttributeError, so has_attr works."""
    env = native("placement_gym/Assign-v0")
    env.reset()
    assert is_masking_supported(env)
    assert not env.has_attr("colour")
    assert env.get_attr("render_mode") == [None] * 3
    assert len(env.env_method("action_masks", indices=[0, 2])) == 2
    assert env.env_method("schedule", indices=1)[0].makespan_s > 0
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    with pytest.raises(InvalidOption, match="cannot be set"):
        env.set_attr("rule", "giph")


def test_options_of_a_reset_hold_for_all_rows() -> None:
    """Another problem for all; different ones are refused; another autoreset mode, too."""
    env = native("placement_gym/Assign-v0")
    other = pg.workloads.layered(n_ops=6, n_devices=2, seed=3)
    env.set_options({"problem": other})
    env.reset()
    assert all(problem is not None and problem.n_ops == 6 for problem in env.get_attr("problem"))
    env.set_options([{"problem": other}, {}, {}])
    with pytest.raises(InvalidOption, match="same for all"):
        env.reset()
    with pytest.raises(InvalidOption, match="SAME_STEP"):
        Sb3VecEnv(gym.make_vec("placement_gym/Assign-v0", num_envs=2))
    with pytest.raises(InvalidOption, match="SyncVectorEnv"):
        Sb3VecEnv(gym.make_vec("placement_gym/Assign-v0", num_envs=2, vectorization_mode="sync"))


def test_a_learner_runs_on_it() -> None:
    """Under VecMonitor, with the same numbers for the same seed."""
    weights = []
    for _ in range(2):
        env = VecMonitor(native("placement_gym/Assign-v0", 2, observation="flat", invalid="nearest"))
        learner = PPO("MlpPolicy", env, n_steps=32, n_epochs=1, seed=0, device="cpu").learn(64)
        assert learner.ep_info_buffer
        weights.append(learner.policy.action_net.weight.detach().numpy())
    assert np.array_equal(*weights)
