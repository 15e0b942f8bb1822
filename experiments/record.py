"""Record: one result with all that is needed to simulate it again; files of records, one JSON row each."""

import fcntl
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from placement_gym.arrays import IntArray
from placement_gym.errors import InvalidFile, InvalidRule, unknown_name
from placement_gym.files import write_text
from placement_gym.objectives import OBJECTIVES, Objective, objective_s
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.schedule import Schedule

FORMAT = "placement_gym.record.v2"
PACKAGES = (
    "placement-gym",
    "numpy",
    "numba",
    "gymnasium",
    "torch",
    "torch-geometric",
    "stable-baselines3",
    "sb3-contrib",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One result.

    Attributes:
        verb: "train", "evaluate" or "solve".
        method: Agent or baseline.
        workload: Name of the problem.
        problem_file: Where the problem is saved, relative to the file of records.
        fingerprint: Of the problem.
        rule: Every option of the simulator's rule.
        op_device: Device of each op.
        priority: Rank of each op if the rule's queue goes by priority, else None.
        own_order: Whether the method decided these ranks; if not, they are b-levels.
        makespan_s: Simulated.
        objective: What the method minimised (`placement_gym.objectives`).
        objective_s: Its value, seconds.
        op_subgraph: Subgraph of each op where the latency is that of these subgraphs, else None.
        lower_bound_s: No placement has a lower objective.
        restricted_to: The kind of placements that an exact method searched, of which alone its status speaks; None if
            all. Older rows do not say it: their `lower_bound_s` may be that of such a kind.
        class_lower_bound_s: No placement of that kind has a lower objective, None without one.
        status: "optimal", "feasible", ...
        seed: Of the method, None where it has none.
        simulator_calls: Placements simulated to find this one.
        seconds: Wall-clock seconds to find this one.
        config: The whole resolved configuration.
        versions: Of Python and the packages.
        commit: Of the repository, "-dirty" if files differ from it, "unknown" outside one.
        time: When, ISO 8601 in UTC.
    """

    verb: str
    method: str
    workload: str
    problem_file: str
    fingerprint: str
    rule: dict[str, Any]
    op_device: list[int]
    priority: list[float] | None
    own_order: bool = False
    makespan_s: float
    objective: Objective
    objective_s: float
    op_subgraph: list[int] | None
    lower_bound_s: float
    restricted_to: str | None = None
    class_lower_bound_s: float | None = None
    status: str
    seed: int | None
    simulator_calls: int
    seconds: float
    config: dict[str, Any]
    versions: dict[str, str]
    commit: str
    time: str

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        *,
        verb: str,
        method: str,
        effort: "Effort",
        problem_file: str,
        config: Mapping[str, Any],
    ) -> "Record":
        """The record of a schedule, with the versions, commit and time of now."""
        by_priority = schedule.rule.queue == "priority"
        return cls(
            verb=verb,
            method=method,
            workload=schedule.problem.name,
            problem_file=problem_file,
            fingerprint=schedule.problem.fingerprint,
            rule=asdict(schedule.rule),
            op_device=schedule.op_device.tolist(),
            priority=schedule.priority.tolist() if by_priority else None,
            own_order=by_priority and effort.own_order,
            makespan_s=schedule.makespan_s,
            objective=effort.objective,
            objective_s=objective_s(effort.objective, schedule, effort.op_subgraph),
            op_subgraph=None if effort.op_subgraph is None else effort.op_subgraph.tolist(),
            lower_bound_s=effort.lower_bound_s,
            restricted_to=effort.restricted_to,
            class_lower_bound_s=effort.class_lower_bound_s,
            status=effort.status,
            seed=effort.seed,
            simulator_calls=effort.simulator_calls,
            seconds=effort.seconds,
            config=dict(config),
            versions=versions(),
            commit=commit(),
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def resolve_rule(self) -> Rule:
        """The rule as an object.

        Raises:
            InvalidRule: An option that this version does not know.
        """
        try:
            # Records from before there were whole instants do not name the option.
            return Rule(**{"instant": "event", **self.rule})
        except TypeError as error:
            raise InvalidRule(f"rule of the record: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What a method says about its own result besides the placement (fields as in `Record`)."""

    lower_bound_s: float
    simulator_calls: int
    seconds: float
    seed: int | None = None
    status: str = "feasible"
    objective: Objective = "makespan"
    op_subgraph: IntArray | None = None
    restricted_to: str | None = None
    class_lower_bound_s: float | None = None
    own_order: bool = False


@dataclass(frozen=True, slots=True)
class RecordedAt:
    """A record and where it was read."""

    record: Record
    file: Path
    line: int

    @property
    def where(self) -> str:
        """Where the record was read, as "file:line"."""
        return f"{self.file}:{self.line}"

    def load_problem(self) -> Problem:
        """The problem beside the records.

        Raises:
            InvalidFile: It is missing, damaged, or another problem than the record's.
        """
        path = self.file.parent / self.record.problem_file
        problem = Problem.load(path)
        if problem.fingerprint != self.record.fingerprint:
            raise InvalidFile(
                f"{self.where}: {path} has fingerprint {problem.fingerprint[:12]}; "
                f"the record expects {self.record.fingerprint[:12]}"
            )
        return problem


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """One appender at a time per folder; the lock goes with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def append(path: Path, record: Record) -> None:
    """Adds one row. The file is rewritten and renamed: at every instant it holds whole rows only.

    Raises:
        InvalidFile: It cannot be written.
    """
    with _sole_writer(path.parent):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        write_text(path, before + json.dumps({"format": FORMAT, **asdict(record)}) + "\n")


def read(path: Path) -> list[RecordedAt]:
    """Every record of a file, or of all `records.jsonl` under a folder.

    Raises:
        InvalidFile: No such file, or a row that is malformed (the message says file:line and what is wrong).
    """
    if path.is_dir():
        return [row for file in sorted(path.rglob("records.jsonl")) for row in read(file)]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"cannot read records: {error}") from error
    return [RecordedAt(_parse(line, f"{path}:{i}"), path, i) for i, line in enumerate(lines, start=1)]


def _parse(line: str, where: str) -> Record:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidFile(f"{where}: not a JSON row, or truncated ({error})") from error
    if not isinstance(row, dict) or row.pop("format", None) != FORMAT:
        raise InvalidFile(f"{where}: not a row of format {FORMAT!r}")
    known = {f.name for f in fields(Record)}
    needed = {f.name for f in fields(Record) if f.default is MISSING}
    for what, names in (("lacks", needed - row.keys()), ("has the unknown", row.keys() - known)):
        if names:
            raise InvalidFile(f"{where}: the row {what} field {', '.join(sorted(names))}")
    seconds = {name: row[name] for name in ("makespan_s", "objective_s", "lower_bound_s")}
    if not all(isinstance(value, float) for value in seconds.values()):
        raise InvalidFile(f"{where}: got {seconds}; expected numbers of seconds")
    record = Record(**row)
    if record.objective not in OBJECTIVES:
        raise InvalidFile(f"{where}: {unknown_name('objective', record.objective, OBJECTIVES)}")
    if not isinstance(record.op_device, list) or not all(isinstance(d, int) for d in record.op_device):
        raise InvalidFile(f"{where}: op_device is {record.op_device!r:.60}; expected a list of device numbers")
    if not isinstance(record.rule, dict):
        raise InvalidFile(f"{where}: rule is {record.rule!r:.60}; expected a mapping of the simulator's options")
    return record


@cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def commit() -> str:
    """The repository's commit, "-dirty" if files differ from it, "unknown" outside one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
