"""Fixtures of the workbench's tests."""

from pathlib import Path

import pytest
import yaml
from executable import chain, made_up_profile


@pytest.fixture(autouse=True)
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra composes every configuration twice, the first time to see whether it sets `hydra.mode`; none does.

    Files are read by the same parser in C, where PyYAML was built with it.
    """
    monkeypatch.setattr("hydra._internal.hydra.Hydra.get_mode", lambda *_, **__: None)
    monkeypatch.setattr("yaml.SafeLoader", getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are measured in two sizes; the profiler's own tests have all."""
    monkeypatch.setattr("placement_gym.pytorch.profiler.COPIED_BYTES", (4 << 10, 1 << 20))


@pytest.fixture
def workbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as working directory; commands write their outputs/ there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def profile_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up profile of two CPU workers and the kernels of `executable.chain`, where the workbench looks for one."""
    path = tmp_path / "profile.json"
    made_up_profile(chain()).save(path)
    monkeypatch.setenv("PLACEMENT_GYM_PROFILE", str(path))
    return path
