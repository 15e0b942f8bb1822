"""No module of exact or programs imports itself round a corner, not even inside a function or for types alone."""

import ast
from pathlib import Path

import networkx as nx
import pytest

import placement_gym

ROOT = Path(placement_gym.__file__).parent


@pytest.mark.parametrize("folder", ["exact", "programs"])
def test_imports_have_no_circle(folder: str) -> None:
    """Every import statement counts, wherever it stands."""
    edges: nx.DiGraph[str] = nx.DiGraph()
    for path in (ROOT / folder).rglob("*.py"):
        name = ".".join(("placement_gym", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                edges.add_edge(name, node.module)
    assert list(nx.simple_cycles(edges)) == []
