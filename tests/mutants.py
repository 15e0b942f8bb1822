"""A development check: how many small random mutants of the simulator's, or the environments', files the tests notice.

`python tests/mutants.py --n 60 --seed 0` changes one operator in a copy of the checkout (a comparison, +-1, min and
max, and and or, a sign) and runs tests there: first those of the simulator without Numba, which takes seconds; where
they pass, or fail by an error that compiled code does not raise, those of the baselines and environments too, compiled.
`--room envs` does so with the environments and their tests, compiled. A mutant that takes four times as long as no
mutant is noticed. The script reports those that pass, with file and line.

Mutants that change nothing that anyone can see are told by reading. `equivalent_mutants.txt` names them, by file, line
of source and change, and the count leaves them out.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
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
# Those that find most in least time come first.
TESTS = [
    "tests/placement_gym/simulator/test_rules.py",
    "tests/placement_gym/simulator/test_instants.py",
    "tests/placement_gym/test_schedule_check.py",
    "tests/placement_gym/test_schedule.py",
    "tests/placement_gym/simulator",
    "tests/placement_gym/test_contention.py",
]
MORE = [
    "tests/placement_gym/envs",
    "tests/placement_gym/test_contention.py",
    "tests/placement_gym/test_memory.py",
    "tests/placement_gym/baselines",
]
ENV_FILES = sorted((ROOT / "placement_gym/envs").glob("*.py"))
# (files, tests in plain Python, tests compiled).
ROOMS = {
    "simulator": (FILES, TESTS, MORE),
    "envs": (ENV_FILES, [], ["tests/placement_gym/envs", "tests/placement_gym/test_render.py"]),
}
# What plain Python raises where compiled code goes on with whatever it finds.
PLAIN_ERRORS = re.compile(r"^(\S+\.py):\d+: (?:Index|ZeroDivision|Overflow|UnboundLocal)Error", re.MULTILINE)
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


def forget(checkout: Path, path: Path) -> None:
    """Removes what Numba has compiled of a file and of the compiled files that import it."""
    package = checkout / "placement_gym"
    compiled = {p: p.read_text() for p in package.rglob("*.py") if "njit" in p.read_text()}
    stale, found = set[Path](), {path}
    while found - stale:
        stale |= found
        modules = [".".join(p.relative_to(checkout).with_suffix("").parts) for p in stale]
        found = {p for p, text in compiled.items() if any(f"from {module} import" in text for module in modules)}
    for cached in package.rglob("*.nb[ic]"):
        if any(cached.name.startswith(f"{p.stem}.") and cached.parents[1] == p.parent for p in stale):
            cached.unlink()


def passes(checkout: Path, tests: list[str], *, plain: bool, timeout_s: float) -> bool:
    """Whether the tests pass; they fail where they run for ever. Raises RuntimeError where plain Python cannot tell."""
    tests = [t for t in tests if (checkout / t).exists()]
    if not tests:
        return True
    more = {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": "tests"} if plain else {}
    # Without Numba, enumeration takes a minute.
    options = ["-p", "plain_kernel", "-k", "not exact_makespan"] if plain else []
    shared = os.environ.get("PLACEMENT_GYM_SHARED", str(ROOT.parent / "shared"))
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *options, *tests],
            cwd=checkout,
            env={**os.environ, "PLACEMENT_GYM_SHARED": shared, "OMP_NUM_THREADS": "1", **more},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    if plain and any("njit" in (checkout / file).read_text() for file in PLAIN_ERRORS.findall(run.stdout)):
        raise RuntimeError(run.stdout)
    return run.returncode == 0


def survives(checkout: Path, path: Path, room: str, plain_s: float, compiled_s: float) -> bool:
    """Whether a changed file passes the room's tests, first in plain Python, each within a limit."""
    _, first, tests = ROOMS[room]
    try:
        if not passes(checkout, first, plain=True, timeout_s=plain_s):
            return False
    except RuntimeError:
        tests = first + tests
    forget(checkout, path)
    return passes(checkout, tests, plain=False, timeout_s=compiled_s)


def equivalents() -> dict[tuple[str, ...], str]:
    """Why a mutant is no mutant, by (file, line, change) or (file, line, change, line before)."""
    reason, reasons = "", {}
    known = {(path.name, line.strip()) for path in FILES + ENV_FILES for line in path.read_text().splitlines()}
    for line in (ROOT / "tests/equivalent_mutants.txt").read_text().splitlines()[2:]:
        key = tuple(line.split(" :: "))
        if line.startswith("# "):
            reason = line[2:]
        elif line and key[:2] not in known:
            raise SystemExit(f"equivalent_mutants.txt names a line that is not there: {line}")
        elif line:
            reasons[key] = reason
    return reasons


def chosen(files: list[Path], n: int, rng: random.Random) -> Iterator[tuple[Path, str, tuple[str, ...], str]]:
    """(file, its changed text, its key among `equivalents`, where) of n mutants drawn at random."""
    every = [(path, i) for path in files for i, _ in enumerate(sites(ast.parse(path.read_text())))]
    for path, i in rng.sample(every, min(n, len(every))):
        source = path.read_text()
        tree = ast.parse(source)
        node, _ = list(sites(tree))[i]
        # A number or a name is shown with what it stands in.
        around = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
        shown = around[node] if isinstance(node, ast.Constant | ast.Name) else node
        number, before = getattr(node, "lineno", 0), ast.unparse(shown)
        mutate(node, rng)
        line_before, line = (text.strip() for text in ["", *source.splitlines()][number - 1 : number + 1])
        change = f"{before} -> {ast.unparse(shown)}"
        yield path, ast.unparse(tree), (path.name, line, change, line_before), f"{path.name}:{number} {change}"


def main() -> int:
    """Makes the mutants, one after the other; returns 1 where fewer than nine in ten are noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=sorted(ROOMS), default="simulator")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="NAME", help="files, as clock.py")
    options = parser.parse_args()
    reasons = equivalents()
    all_files, first, then = ROOMS[options.room]
    files = [path for path in all_files if path.name not in options.leave_out]
    passed: list[str] = []
    n_equivalent = 0
    with tempfile.TemporaryDirectory() as folder:
        clean, copy = Path(folder) / "clean", Path(folder) / "mutant"
        shutil.copytree(ROOT, clean, ignore=shutil.ignore_patterns(".venv", ".git", "outputs", ".hypothesis"))
        limits_s = []
        # This also compiles what the mutants need, but for the files that they change.
        for plain, tests in ((True, first), (False, first + then)):
            since = time.monotonic()
            if not passes(clean, tests, plain=plain, timeout_s=3600.0):
                raise SystemExit("the tests fail without any mutant")
            limits_s.append(60 + 4 * (time.monotonic() - since))
        drawn = chosen(files, options.n, random.Random(options.seed))
        for number, (path, text, key, where) in enumerate(drawn, 1):
            since, reason = time.monotonic(), reasons.get(key[:3], reasons.get(key))
            verdict = "killed"
            if reason is not None:
                verdict = f"equivalent ({reason})"
                n_equivalent += 1
            else:
                shutil.copytree(clean, copy)
                (copy / path.relative_to(ROOT)).write_text(text)
                if survives(copy, copy / path.relative_to(ROOT), options.room, *limits_s):
                    verdict = "PASSED"
                    passed.append(where)
                shutil.rmtree(copy)
            print(f"{number}/{options.n} {verdict} {where} [{time.monotonic() - since:.0f} s]", flush=True)
    n = options.n - n_equivalent
    print(f"{n - len(passed)} of {n} mutants killed; {n_equivalent} more are equivalent", *passed, sep="\n  ")
    return int(10 * len(passed) > n)


if __name__ == "__main__":
    raise SystemExit(main())
