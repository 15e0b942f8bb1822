"""A development check: how many small random mutants of the simulator's files the tests notice.

`python tests/mutants.py --n 60 --seed 0` copies the checkout to a temporary folder, changes one operator there
(a comparison, +-1, min and max, and and or, a sign), runs the tests of these files, and reports the mutants that
they let pass, with file and line. Mutants that change nothing that anyone can see have to be told by reading.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [
    *sorted((ROOT / "placement_gym/simulator").glob("*.py")),
    ROOT / "placement_gym/rule.py",
    ROOT / "placement_gym/contention.py",
    ROOT / "placement_gym/schedule.py",
    ROOT / "placement_gym/memory.py",
    ROOT / "placement_gym/baselines/list_scheduling.py",
]
TESTS = [
    "tests/placement_gym/simulator",
    "tests/placement_gym/test_schedule.py",
    "tests/placement_gym/test_contention.py",
]
MORE = ["tests/placement_gym/baselines", "tests/placement_gym/envs", "tests/placement_gym/test_memory.py"]
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "argmin": "argmax", "argmax": "argmin"}


def sites(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """(node, what would change) of every place that can be mutated."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPS:
            yield node, "comparison"
        elif isinstance(node, ast.BoolOp) or (isinstance(node, ast.BinOp) and type(node.op) in SWAPS):
            yield node, "operator"
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield node, "number"
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield node, "name"
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node, "attribute"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield node, "sign"


def mutate(node: ast.AST, rng: random.Random) -> None:
    """Changes the node in place."""
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.BoolOp | ast.BinOp):
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Constant):
        node.value = int(node.value) + rng.choice([-1, 1])  # type: ignore[arg-type]
    elif isinstance(node, ast.Name):
        node.id = NAMES[node.id]
    elif isinstance(node, ast.Attribute):
        node.attr = NAMES[node.attr]
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()


def main() -> int:
    """Makes the mutants, one after the other; returns 1 where fewer than nine in ten are noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout-s", type=float, default=300.0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    every = [(path, i) for path in FILES for i, _ in enumerate(sites(ast.parse(path.read_text())))]
    passed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "outputs", "__pycache__", ".hypothesis")
        )
        shared = os.environ.get("PLACEMENT_GYM_SHARED", str(ROOT.parent / "shared"))
        for number, (path, i) in enumerate(rng.sample(every, options.n), 1):
            source = path.read_text()
            tree = ast.parse(source)
            node, what = list(sites(tree))[i]
            before = ast.unparse(node)
            mutate(node, rng)
            target = copy / path.relative_to(ROOT)
            target.write_text(ast.unparse(tree))
            for cached in copy.rglob("*.nb[ic]"):
                cached.unlink()
            tests = [t for t in TESTS + MORE if (copy / t).exists()]
            killed = True  # so it is if it runs for ever
            try:
                run = subprocess.run(
                    [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
                    cwd=copy,
                    env={**os.environ, "PLACEMENT_GYM_SHARED": shared, "OMP_NUM_THREADS": "1"},
                    capture_output=True,
                    timeout=options.timeout_s,
                    check=False,
                )
                killed = run.returncode != 0
            except subprocess.TimeoutExpired:
                pass
            target.write_text(source)
            text = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {what}: {before} -> {ast.unparse(node)}"
            print(f"{number}/{options.n} {'killed' if killed else 'PASSED'} {text}", flush=True)
            passed += [] if killed else [text]
    print(f"{options.n - len(passed)} of {options.n} mutants killed", *passed, sep="\n  ")
    return int(10 * len(passed) > options.n)


if __name__ == "__main__":
    raise SystemExit(main())
