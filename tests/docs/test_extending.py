"""The code of docs/extending.md runs."""

import re
from pathlib import Path

import yaml

from placement_gym.contention import CONTENTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()


def test_the_code_runs() -> None:
    """All Python blocks, in one namespace, as a reader would type them."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert len(blocks) == 3
    try:
        exec("\n".join(blocks), {"__name__": "extending"})  # our own page
    finally:
        CONTENTIONS.pop("node_bus", None)


def test_the_files_are_yaml() -> None:
    """Both yaml blocks are read, and their keys are those that the commands use."""
    first, second = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S))
    assert first == {"rule": {"contention": "node_bus"}}
    assert set(second["fastest_device"]) >= {"_target_"}
