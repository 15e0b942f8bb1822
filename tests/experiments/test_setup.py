"""Set-up: the lock pins everything that the package asks for, torch first and once."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")]


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]).lower()


def test_the_lock_pins_exactly_and_each_once() -> None:
    """No range, no local tag, no double."""
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in LOCK)
    assert len({_name(line) for line in LOCK}) == len(LOCK)


def test_torch_comes_first() -> None:
    """A looser requirement met before it would pull a second build."""
    assert LOCK[0] == "torch==2.13.0"


def test_the_lock_covers_what_the_package_asks_for() -> None:
    """Run-time and development requirements alike."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {_name(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]}
    assert asked <= {_name(line) for line in LOCK}


@pytest.mark.parametrize("target", ["train", "test", "slow", "bench", "lint", "types", "floors", "clean", "help"])
def test_the_makefile_has_every_target(target: str) -> None:
    """Each with its line of help."""
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
