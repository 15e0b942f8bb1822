"""The environments by Gymnasium's own ways: by module name, and as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import placement_gym as pg

ENVS = sorted(name for name in gym.registry if name.startswith("placement_gym/"))
ROOT = Path(__file__).parents[3]


def test_gym_make_imports_the_gym_by_its_module_name(tmp_path: Path) -> None:
    """In a fresh process elsewhere that imports Gymnasium alone: `module:id`, for both forms; it loads no torch.

    Gymnasium has had no plugins since 1.0, so a bare id is unknown there.
    """
    code = f"""
import sys
import gymnasium as gym
assert not any(name.startswith("placement_gym/") for name in gym.registry)
for name in {ENVS}:
    one, many = gym.make("placement_gym:" + name), gym.make_vec("placement_gym:" + name, num_envs=2)
    assert type(many).__name__.endswith("VectorEnv") and "Sync" not in type(many).__name__
    one.reset(seed=0), many.reset(seed=0)
    one.step(one.action_space.sample()), many.step(many.action_space.sample())
assert "torch" not in sys.modules
"""
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ENVS)
def test_a_spec_goes_through_json_where_the_problem_is_a_path(name: str, tmp_path: Path) -> None:
    """And makes an environment that plays the same episode."""
    path = tmp_path / "problem.npz"
    pg.workloads.layered(n_ops=6, n_devices=2, seed=0).save(path)
    first = gym.make(name, problem=str(path), reward="dense", invalid="nearest")
    assert first.spec is not None
    text = first.spec.to_json()
    assert json.loads(text)["kwargs"]["problem"] == str(path)
    second = gym.make(EnvSpec.from_json(text))
    assert second.spec == first.spec
    runs = []
    for env in (first, second):
        seen, _ = env.reset(seed=3)
        rewards, done = [], False
        while not done:
            seen, reward, done, _, _ = env.step(np.flatnonzero(seen["action_mask"])[-1])
            rewards.append(reward)
        runs.append(rewards)
    assert runs[0] == runs[1]
