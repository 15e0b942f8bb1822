"""The code of docs/extending.md runs."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

import placement_gym as pg
from experiments.record import read
from placement_gym.contention import CONTENTIONS
from placement_gym.errors import InvalidRule

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with each Python block of the page as a file of its own, from which Python imports."""
    names = ("node_bus", "uses_node_bus", "fastest_device", "most_read", "test_most_read")
    for name, block in zip(names, _blocks("python"), strict=True):
        (tmp_path / f"{name}.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in names:
        sys.modules.pop(name, None)
    CONTENTIONS.pop("node_bus", None)
    gym.registry.pop("placement_gym/MostRead-v0", None)


def test_the_rule_and_the_baseline_run(files: Path) -> None:
    """Each file imports what it needs; no placement of the baseline beats the optimum."""
    importlib.import_module("uses_node_bus")
    problem = pg.workloads.layered(n_ops=6, n_devices=2, seed=0)
    result = importlib.import_module("fastest_device").fastest_device(problem)
    assert result.objective >= pg.exact.brute_force(problem).objective


def test_the_environment_runs(files: Path) -> None:
    """Both forms agree, with groups as well; the page's own test passes; a group takes one step."""
    module = importlib.import_module("most_read")
    gym.register("placement_gym/MostRead-v0", module.MostReadEnv, vector_entry_point=module.MostReadVectorEnv)
    importlib.import_module("test_most_read").test_the_op_that_most_ops_read_comes_first()
    problem = pg.workloads.layered(n_ops=9, n_devices=3, seed=0)
    for groups, n_steps in ((None, 9), (np.arange(9) // 3, 3)):
        options = {"problem": problem, "groups": groups, "reward": "dense"}
        env = gym.make("placement_gym/MostRead-v0", **options).unwrapped
        vector = gym.make_vec("placement_gym/MostRead-v0", num_envs=2, **options)
        (seen, _), (both, _), rng, steps, ended = env.reset(), vector.reset(), np.random.default_rng(0), 0, False
        while not ended:
            for key, value in both.items():
                np.testing.assert_array_equal(value[1], seen[key], err_msg=key)
            action = rng.integers(3)
            seen, reward, ended, _, info = env.step(action)
            both, rewards, ends, _, _ = vector.step(np.array([0, action]))
            assert (reward, ended) == (rewards[1], ends[1])
            steps += 1
        assert steps == n_steps
        assert info["makespan_s"] == pg.simulate(problem, info["op_device"]).makespan_s


def test_the_files_are_yaml() -> None:
    """The yaml blocks are read, and their keys are those that the commands use."""
    first, second, third = (yaml.safe_load(block) for block in _blocks("yaml"))
    assert third["_target_"] == yaml.safe_load((ROOT / "conf" / "env" / "assign.yaml").read_text())["_target_"]
    assert first == {"rule": {"contention": "node_bus"}}
    assert set(second["fastest_device"]) >= {"_target_"}


def test_the_installed_rule_is_known_to_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the page's package and experiment, solve and validate go by the rule; a record imports nothing."""
    (tmp_path / "node_bus.py").write_text(_blocks("python")[0])
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "node_bus.yaml").write_text(_blocks("yaml")[0])
    project = tomllib.loads(_blocks("toml")[0])["project"]
    installed = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"  # as pip leaves it
    installed.mkdir()
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in named.items())
        for group, named in project["entry-points"].items()
    )
    (installed / "entry_points.txt").write_text(points)

    def run(*arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    small = ["workload=layered", "baseline=heft", "tracking.wandb=disabled"]
    run("experiments.solve", f"--config-dir={tmp_path}", "experiment=node_bus", *small)
    (row,) = read(tmp_path / "outputs")
    assert row.record.rule["contention"] == "node_bus"
    run("experiments.validate")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidRule, match="unknown contention 'node_bus'; known: egress"):
        row.record.resolve_rule()
    assert "node_bus" not in sys.modules
