"""Instances: every configured baseline on every instance of a folder, such that an interrupted run goes on."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments import build, record, table
from experiments.baselines import nothing_found, solve_and_record, warm_up
from experiments.command import one_line
from experiments.curves import save_png
from experiments.folder import RunFolder
from experiments.grid import TrialGrid, as_markdown, draw_ratios, on_terminal, value_ms
from experiments.record import Record, RecordedAt
from experiments.table import TableRow, order_note, row_of_record, status_of
from experiments.tracking import Tracker
from placement_gym.errors import InfeasiblePlacement, InvalidFile, InvalidOption, InvalidProblem, MissingDependency
from placement_gym.files import write_text
from placement_gym.problem import Problem
from placement_gym.rule import Rule


@dataclass(frozen=True, slots=True)
class Instance:
    """A file that a workload is built from.

    Attributes:
        name: Its path below the folder that was searched, without its suffix.
        path: The file.
    """

    name: str
    path: Path


def find_instances(folder: Path, pattern: str) -> list[Instance]:
    """The files below `folder` that match, sorted by name.

    Raises:
        InvalidOption: A pattern that is not relative to the folder.
        InvalidFile: There is none, or two would have one name.
    """
    if not pattern or Path(pattern).is_absolute():
        raise InvalidOption(f"instances.pattern is {pattern!r}; expected a pattern below instances.folder, as */*.json")
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not files:
        raise InvalidFile(
            f"no instance found: nothing below {folder.resolve()} matches {pattern!r}; "
            "set instances.folder=<folder> (and instances.pattern=<pattern>)"
        )
    found = [Instance(path.relative_to(folder).with_suffix("").as_posix(), path) for path in files]
    for one, other in pairwise(found):
        if one.name == other.name:
            raise InvalidFile(f"{one.path} and {other.path} would be one instance; narrow instances.pattern={pattern}")
    return found


def config_of(config: DictConfig, instance: Instance) -> DictConfig:
    """The configuration with `instance` set, which workload and baselines refer to.

    Raises:
        InvalidOption: The workload does not, so that it would be the same one for every file.
    """
    own = copy.deepcopy(config)
    own.instance.path, own.instance.stem = str(instance.path), instance.path.stem
    if OmegaConf.to_container(own.workload, resolve=True) == OmegaConf.to_container(config.workload, resolve=True):
        raise InvalidOption(
            "instances is set but the workload does not read them; expected workload.path=${instance.path}"
        )
    return own


@dataclass(frozen=True, slots=True)
class Task:
    """All methods on one instance.

    Attributes:
        instance: Where the problem comes from.
        problem: What is placed.
        rule: The simulator's rule.
        baselines: The methods, by name.
        folder: Where its results go.
        config: The whole resolved configuration, with the instance.
        recorded: What the folder held at the start.
    """

    instance: Instance
    problem: Problem
    rule: Rule
    baselines: dict[str, build.Baseline]
    folder: RunFolder
    config: dict[str, Any]
    recorded: Sequence[RecordedAt]

    @classmethod
    def of(cls, config: DictConfig, root: RunFolder, instance: Instance) -> "Task":
        """Reads the instance and what is recorded of it."""
        own = config_of(config, instance)
        problem, rule = build.build_problem(own), build.build_rule(own)
        baselines = build.build_baselines(own, rule)
        folder = root.of_problem(instance.name, problem)
        write_text(folder.config, OmegaConf.to_yaml(own, resolve=True))
        recorded = record.read(folder.records) if folder.records.exists() else []
        return cls(instance, problem, rule, baselines, folder, build.plain(own), recorded)

    def finished(self, method: str) -> Record | None:
        """The newest record of the method as it is configured now, under this rule: it is not run again."""
        for row in (at.record for at in reversed(self.recorded)):
            if (
                row.method == method
                and row.fingerprint == self.problem.fingerprint
                and row.rule == asdict(self.rule)
                and row.config["baseline"].get(method) == self.config["baseline"][method]
            ):
                return row
        return None

    def left_out(self, method: str) -> str:
        """Why a method is not tried on this instance, for a cell of the table; empty if it is."""
        pattern = (self.config["instances"].get("only") or {}).get(method, "*")
        if not fnmatchcase(self.instance.name, pattern):
            return "-"
        path = self.config["baseline"][method].get("path")
        # A human expert has not split every network.
        return "" if path is None or Path(path).exists() else "no file"

    def solve(self, method: str) -> tuple[TableRow, str]:
        """Runs and records one method; the line of the table, and why there is no result if there is none."""
        try:
            made = solve_and_record(
                method, self.baselines[method], self.problem, self.folder, verb="solve", config=self.config
            )
        except (InfeasiblePlacement, InvalidProblem, MissingDependency) as error:
            # One that cannot solve this instance says nothing about the others; any other error is a mistake to mend.
            return nothing_found(method, status=short(error)), one_line(error)
        return row_of_record(made), ""


def short(error: InfeasiblePlacement | InvalidProblem | MissingDependency) -> str:
    """Why there is no result, in a word or two for a cell of the table."""
    if isinstance(error, InfeasiblePlacement):
        return "infeasible"
    if isinstance(error, MissingDependency):
        package = (error.__cause__.name or "").partition(".")[0] if isinstance(error.__cause__, ImportError) else ""
        return f"missing {package or 'package'}"
    return "unsuited"


def said_of(instance: str, row: TableRow, reason: str) -> str:
    """One line about a finished (instance, method)."""
    if reason:
        return f"{instance}  {row.method}: {row.status} ({reason})"
    return f"{instance}  {row.method}: {value_ms(row)} ms in {row.seconds:,.2f} s, {status_of(row)}"


class Campaign:
    """Runs what is not recorded yet, line by line, above a bar that counts instances times methods.

    Attributes:
        rows: Results so far by (instance, method).
        n_recorded: How many of them were recorded before.
    """

    def __init__(self, config: DictConfig, root: RunFolder, console: Console) -> None:
        self._config, self._root, self._console = config, root, console
        self._warm: set[str] = set()
        self.rows: dict[tuple[str, str], TableRow] = {}
        self.n_recorded = 0

    def run(self, instances: Sequence[Instance], methods: Sequence[str]) -> TrialGrid:
        """All methods on all instances."""
        columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(
            *columns, TextColumn("{task.description}", markup=False), console=self._console, transient=True
        ) as progress:
            bar = progress.add_task("", total=len(instances) * len(methods))
            for instance in instances:
                progress.update(bar, description=f"reading {instance.name}")
                task = Task.of(self._config, self._root, instance)
                for method in methods:
                    progress.update(bar, description=f"{method} on {instance.name}")
                    self.rows[instance.name, method] = self._row(task, method)
                    progress.advance(bar)
        return TrialGrid(tuple(instance.name for instance in instances), tuple(methods), self.rows)

    def _row(self, task: Task, method: str) -> TableRow:
        left_out, before = task.left_out(method), task.finished(method)
        if left_out:
            return nothing_found(method, status=left_out)
        if before is not None:
            self.n_recorded += 1
            return row_of_record(before)
        if method not in self._warm:
            warm_up(task.baselines[method])
            self._warm.add(method)
        row, reason = task.solve(method)
        said = said_of(task.instance.name, row, reason)
        self._console.print(said, highlight=False, markup=False, soft_wrap=True)
        return row


def run(config: DictConfig) -> int:
    """Runs the configured baselines on every instance; what is recorded already is not run again.

    Raises:
        InvalidFile: No instance was found.
        InfeasiblePlacement: No method found anything on any instance.
    """
    console = table.wide_console()
    instances = find_instances(Path(config.instances.folder), str(config.instances.pattern))
    methods = tuple(build.build_baselines(config, build.build_rule(config)))
    root, whole = RunFolder.of_hydra(), build.plain(config)
    tracking = instantiate(config.tracking)
    write_text(root.config, OmegaConf.to_yaml(config, resolve=True))
    console.print(f"{len(instances)} instances, {len(methods)} methods: {', '.join(methods)}", highlight=False)
    campaign = Campaign(config, root, console)
    with Tracker(root, whole, tracking, name=f"solve {len(instances)} instances seed {config.seed}") as tracker:
        try:
            grid = campaign.run(instances, methods)
        except KeyboardInterrupt:
            console.print(
                f"{len(campaign.rows)} of {len(instances) * len(methods)} are done; the same command goes on",
                highlight=False,
            )
            raise
        if not any(math.isfinite(row.objective_s) for row in grid.rows.values()):
            raise InfeasiblePlacement(f"{', '.join(methods)}: no placement of any of {len(instances)} instances found")
        tracker.instances(grid.rows)
    if campaign.n_recorded:
        console.print(f"{campaign.n_recorded} of {len(grid.rows)} were recorded before", highlight=False)
    for shown in on_terminal(grid):
        console.print(shown)
    console.print("bold: the best of its line; *: no placement of the method's kind is better", highlight=False)
    note = order_note(build.build_rule(config))
    console.print(note, highlight=False)
    write_text(root.table, f"{as_markdown(grid)}\n{note}\n")
    save_png(draw_ratios(grid), root.ratios)
    console.print(f"wrote {root.path}/: {root.table.name}, {root.ratios.name}, records by instance", highlight=False)
    return 0
