"""The code of docs/extending.md runs."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium as gym
import pytest
import yaml

from experiments.record import read
from placement_gym.contention import CONTENTIONS
from placement_gym.errors import InvalidRule

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)


def test_the_code_runs() -> None:
    """All Python blocks, in one namespace, as a reader would type them."""
    blocks = _blocks("python")
    assert len(blocks) == 5
    try:
        exec("\n".join(blocks), {"__name__": "extending"})  # our own page
    finally:
        CONTENTIONS.pop("node_bus", None)
        gym.registry.pop("Drawn-v0", None)


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
