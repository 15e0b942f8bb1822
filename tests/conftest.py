"""Fixtures that several test files share."""

import gc
import json
import os
from pathlib import Path

import pytest
from published import Published

# Importing torch and its kin makes no garbage: looking for it takes seconds.
gc.disable()


def pytest_collection_finish() -> None:
    """What was imported stays, so the garbage collector never looks at it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The published instances beside the checkout; a test that needs them is skipped where they are absent."""
    root = Path(os.environ.get("PLACEMENT_GYM_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"published instances are not at {root / 'data'} (set PLACEMENT_GYM_SHARED)")
    return root / "data"


@pytest.fixture(scope="session")
def published(shared_data: Path) -> Published:
    """The dnn-partitioning instances and their reference values; skipped where either is absent."""
    values = shared_data.parent / "reference" / "dnn_partitioning.json"
    if not values.is_file():
        pytest.skip(f"reference values are not at {values}")
    return Published(shared_data / "dnn_partitioning", json.loads(values.read_text())["instances"])
