"""What benchmarks measure is written down here: one JSON row and one printed line per figure."""

import json
import operator
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Figure = Callable[..., bool]
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
TARGET = re.compile(r"^(<=|>=|==|<|>) *([-+0-9.eE]+)$")


def holds(value: float, target: str | None) -> bool | None:
    """Whether `value` meets a target such as "<= 1.5"; None where there is no target.

    Raises:
        ValueError: A target of another form.
    """
    if target is None:
        return None
    match = TARGET.match(target)
    if match is None:
        raise ValueError(f"target is {target!r}; expected a comparison and a number, such as '<= 1.5'")
    return bool(COMPARISONS[match[1]](value, float(match[2])))


@pytest.fixture(scope="session")
def figures_file() -> Path:
    """One file per run of `make bench`, under outputs/bench/ (or $PLACEMENT_GYM_BENCH)."""
    folder = Path(os.environ.get("PLACEMENT_GYM_BENCH", Path(__file__).parents[2] / "outputs" / "bench"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}.jsonl"


@pytest.fixture
def figure(figures_file: Path, request: pytest.FixtureRequest) -> Figure:
    """Writes one measured figure down and says whether its target holds.

    `figure(name, value, unit, target, **context)`: `target` is "<= 1.5", ">= 1.8" ... or None; `context` is what a
    reader needs besides (sizes, counts, the other program). Returns whether the target holds (True without one), so
    that a benchmark may assert it.
    """

    def write(name: str, value: float, unit: str, target: str | None = None, **context: object) -> bool:
        verdict = holds(float(value), target)
        row = {
            "format": "placement_gym.figure.v1",
            "name": name,
            "value": float(value),
            "unit": unit,
            "target": target,
            "holds": verdict,
            "context": context,
            "benchmark": request.node.nodeid,
            "cores": os.cpu_count(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        with figures_file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        said = "" if verdict is None else f"  (target {target}: {'holds' if verdict else 'MISSED'})"
        print(f"\n  {name}: {float(value):.4g} {unit}{said}")
        return verdict is not False

    return write
