"""docs/envs/ says what the docstrings say."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_pages_are_made_from_the_docstrings() -> None:
    """Every environment has its page, and every page is what docs/make_env_pages.py makes today."""
    spec = importlib.util.spec_from_file_location("make_env_pages", DOCS / "make_env_pages.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    written = {path.name: path.read_text() for path in (DOCS / "envs").glob("*.md")}
    assert written == maker.pages(), "run python docs/make_env_pages.py"
    assert {"Assign-v0.md", "SelectPlace-v0.md", "Improve-v0.md", "observation.md", "forms.md"} <= written.keys()
    for section in ("Action Space", "Observation Space", "Rewards", "Episode End", "Arguments", "Version History"):
        assert all(f"## {section}" in text for name, text in written.items() if "-v0" in name)
