"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The published instances beside the checkout; a test that needs them is skipped where they are absent."""
    root = Path(os.environ.get("PLACEMENT_GYM_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"published instances are not at {root / 'data'} (set PLACEMENT_GYM_SHARED)")
    return root / "data"
