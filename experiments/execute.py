"""execute: placements of many kinds, run on real devices, and how well the simulator tells what they take.

python -m experiments.execute workload=llama_block workload.program.tokens=512 workload.program.width=512
python -m experiments.execute experiment=sim_vs_real
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from experiments import build
from experiments.agreement import HEADINGS, Execution, draw, line
from experiments.command import command
from experiments.curves import save_png
from experiments.folder import RunFolder
from experiments.placements import NamedPlacement, all_kinds
from experiments.profile import measured
from experiments.table import markdown, terminal, wide_console
from placement_gym.costs import ProfiledCost
from placement_gym.errors import InvalidFile, InvalidProblem
from placement_gym.files import write_text
from placement_gym.graph import OpGraph
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.simulator import simulate

if TYPE_CHECKING:
    from placement_gym.pytorch.measured import MeasuredSchedule


def graphs_of(config: DictConfig) -> dict[str, OpGraph]:
    """The op graphs of `config.programs`, by name, or that of the one workload.

    Raises:
        InvalidProblem: One of them cannot be run.
    """
    sections = config.programs or {config.workload_name: config.workload}
    graphs = {}
    for name, section in sections.items():
        graph = instantiate(section, _convert_="all")
        if not isinstance(graph, OpGraph) or graph.kernels is None:
            raise InvalidProblem(
                f"{name}: a {type(graph).__name__} without kernels cannot be run; expected a split program "
                "(placement_gym.programs.shard) or a captured module"
            )
        graphs[name] = graph
    return graphs


def fingerprint(graph: OpGraph) -> str:
    """Of the op graph alone, whatever its ops cost."""
    return Problem.from_times(graph, np.zeros((graph.n_ops, 1))).fingerprint


def read_executions(path: Path) -> list[Execution]:
    """What was run before.

    Raises:
        InvalidFile: A malformed row.
    """
    if not path.exists():
        return []
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Execution(**json.loads(text)))
        except (ValueError, TypeError) as error:
            raise InvalidFile(f"{path}:{number}: not an execution, or truncated ({error})") from error
    return found


class Comparison:
    """Runs what was not run yet, and simulates it.

    Attributes:
        executions: Per program, in the order of the placements.
    """

    def __init__(self, config: DictConfig, path: Path, console: Console) -> None:
        self._config, self._path, self._console = config, path, console
        self._rows = [execution.row() for execution in read_executions(path)]
        self.executions: dict[str, list[Execution]] = {}

    def run(self, problems: Mapping[str, Problem], placements: Mapping[str, list[NamedPlacement]], rule: Rule) -> None:
        """Every placement of every program."""
        columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True) as progress:
            bar = progress.add_task("", total=sum(len(found) for found in placements.values()))
            for name, problem in problems.items():
                graph = fingerprint(problem.graph)
                for placement in placements[name]:
                    progress.update(bar, description=f"{name}: {placement.name}")
                    self._one(name, graph, problem, placement, rule)
                    progress.advance(bar)

    def _one(self, name: str, graph: str, problem: Problem, placement: NamedPlacement, rule: Rule) -> None:
        simulated = simulate(problem, placement.op_device, rule=rule)
        key = {"program": name, "graph": graph, "op_device": placement.op_device.tolist()}
        row = next((row for row in self._rows if key.items() <= row.items()), None)
        if row is None:
            schedule = self._executed(problem, placement, rule)
            row = {
                **key,
                "placement": placement.name,
                "kind": placement.kind,
                "simulated_s": simulated.makespan_s,
                "measured_s": schedule.makespans_s.tolist(),
                "overhead_s": float(np.median(schedule.op_overhead_s)),
            }
            self._rows.append(row)
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in self._rows))
        # The costs may have been measured again since.
        self.executions.setdefault(name, []).append(Execution(**{**row, "simulated_s": simulated.makespan_s}))

    def _executed(self, problem: Problem, placement: NamedPlacement, rule: Rule) -> "MeasuredSchedule":
        from placement_gym.pytorch import RunOptions, execute

        schedule = execute(
            problem,
            placement.op_device,
            torch_devices=list(self._config.torch_devices),
            repeats=self._config.repeats,
            rule=rule,
            options=RunOptions(seed=self._config.seed, timeout_s=self._config.timeout_s),
        )
        schedule.check()
        return schedule


def run(config: DictConfig) -> int:
    """Measures kernels and copies, then runs and simulates every placement; writes rows, table and picture.

    Raises:
        InvalidProblem: A workload that cannot be run.
        ExecutionError: A run that failed.
    """
    from placement_gym.pytorch.profiler import describe

    console, folder = wide_console(), RunFolder.of_hydra()
    rule, graphs = build.build_rule(config), graphs_of(config)
    baselines = build.build_baselines(config, rule)
    write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    profile = measured(list(graphs.values()), config, console)
    cluster = profile.cluster([device.name for device in describe(list(config.torch_devices))], load=config.load)
    costs = ProfiledCost(profile, load=config.load, overhead_s=config.overhead_s)
    problems = {name: Problem.build(graph, cluster, costs=costs, name=name) for name, graph in graphs.items()}
    placements = {
        name: all_kinds(problem, rule, baselines, n_random=config.n_random, seed=config.seed)
        for name, problem in problems.items()
    }
    comparison = Comparison(config, folder.path / "executions.jsonl", console)
    try:
        comparison.run(problems, placements, rule)
    except KeyboardInterrupt:
        console.print("interrupted; the same command, with the same hydra.run.dir, goes on", highlight=False)
        raise
    lines = [line(name, problems[name].n_ops, found) for name, found in comparison.executions.items()]
    console.print(terminal("simulated against measured makespans", HEADINGS, lines))
    overhead_s = np.median([e.overhead_s for found in comparison.executions.values() for e in found])
    console.print(f"the engine's own time: {overhead_s * 1e6:.0f} µs per op (median)", highlight=False)
    write_text(folder.table, markdown(HEADINGS, lines))
    save_png(draw(comparison.executions), folder.path / "scatter.png")
    console.print(f"wrote {folder.path}/: executions.jsonl, {folder.table.name}, scatter.png", highlight=False)
    return 0


main = command("execute")(run)

if __name__ == "__main__":
    sys.exit(main(None))
