"""The examples run, and their learners learn."""

import importlib
import importlib.util
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

import placement_gym as pg
from agents.sb3_vec_env import Sb3VecEnv
from examples.sb3_watch import Watch

FOLDER = Path(__file__).parents[2] / "examples"
LEARNERS = sorted(file.stem for file in FOLDER.glob("*.py") if "def main(" in file.read_text())


def printed(name: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What an example prints."""
    if name.startswith("torchrl") and importlib.util.find_spec("torchrl") is None:
        pytest.skip("torchrl is not installed")
    importlib.import_module(f"examples.{name}").main(arguments)
    return capsys.readouterr().out


def test_the_readme_names_every_example() -> None:
    """And nothing else."""
    assert set(re.findall(r"^## (\w+)", (FOLDER / "README.md").read_text(), re.MULTILINE)) == set(LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A few episodes, reported beside annealing."""
    assert "simulated annealing" in printed(name, capsys, "--episodes", "4")


@pytest.mark.parametrize("name", LEARNERS)
def test_an_example_is_short(name: str) -> None:
    """One reads it in a minute; the PPO in one file in three."""
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= (200 if name == "cleanrl_ppo" else 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_an_example_learns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The last tenth of 500 episodes has a lower mean makespan than the first."""
    found = re.search(r"first tenth ([\d.]+) ms, of the last ([\d.]+) ms", printed(name, capsys))
    assert found is not None
    assert float(found[2]) < 0.98 * float(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("learner", [MaskablePPO, PPO])
def test_stock_learners_beat_random_on_flat_observations(shared_data: Path, learner: type) -> None:
    """DOPPLER's chain in 1,000 episodes, terminal reward, SB3's defaults: random's mean is 1,979, greedy has 1,700."""
    problem = pg.workloads.read_doppler(shared_data / "doppler" / "chain_mm_112nodes.txt", n_devices=4)
    options = {"problem": problem, "rule": "giph", "observation": "flat", "autoreset_mode": "SAME_STEP"}
    options["invalid"] = "raise" if learner is MaskablePPO else "nearest"
    env = Sb3VecEnv(gym.make_vec("placement_gym/Assign-v0", num_envs=4, **options))  # type: ignore[arg-type]
    watch = Watch(1000)
    learner("MlpPolicy", env, n_steps=512, seed=0, device="cpu").learn(1000 * problem.n_ops, callback=watch)
    placements = np.random.default_rng(0).integers(0, 4, (1000, problem.n_ops))
    at_random = pg.simulate_batch(problem, placements, rule="giph").mean()
    assert np.mean(watch.makespans_s[-100:]) < 0.92 * at_random
