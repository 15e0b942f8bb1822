"""execute: placements of many kinds, run on real devices, and how well the simulator tells what they take.

python -m experiments.execute workload=llama_block workload.program.tokens=512 workload.program.width=512
python -m experiments.execute experiment=sim_vs_real
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from experiments import build
from experiments.agreement import HEADINGS, Comparison, Execution, draw
from experiments.command import command
from experiments.curves import save_png
from experiments.folder import RunFolder
from experiments.placements import NamedPlacement, all_kinds, random
from experiments.profile import profiled_problems
from experiments.table import markdown, terminal, wide_console
from placement_gym.calibration import calibrated
from placement_gym.errors import InvalidFile
from placement_gym.files import write_text
from placement_gym.graph import OpGraph
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.simulator import simulate

if TYPE_CHECKING:
    from torch import Tensor


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


class MeasuredRuns:
    """Runs every placement once in each of several passes, so that a slow minute of the machine is no placement's own.

    The first pass does not count. What was run before is not run again.
    """

    def __init__(self, config: DictConfig, path: Path, console: Console) -> None:
        self._config, self._path, self._console = config, path, console
        self.executions = read_executions(path)

    def run(self, problems: Mapping[str, Problem], placements: Mapping[str, list[NamedPlacement]], rule: Rule) -> None:
        """All passes over all placements of all programs."""
        todo = [
            (problem, self._execution(name, fingerprint(problem.graph), placement))
            for name, problem in problems.items()
            for placement in placements[name]
        ]
        passes, before = self._config.repeats, {id(e): len(e.makespans_s) for _, e in todo}
        values = {name: self._values(problem) for name, problem in problems.items()}
        columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True) as progress:
            bar = progress.add_task("", total=(passes + 1) * len(todo))
            for number in range(-1, passes):
                for problem, execution in todo:
                    progress.update(bar, description=f"{execution.program}: {execution.placement}")
                    if number >= before[id(execution)] or (number < 0 and before[id(execution)] < passes):
                        self._one(problem, execution, rule, values[execution.program], counts=number >= 0)
                    progress.advance(bar)
                self._save()

    def _execution(self, name: str, graph: str, placement: NamedPlacement) -> Execution:
        """That of the placement, from the file or empty."""
        op_device = placement.op_device.tolist()
        for known in self.executions:
            if known.is_of(name, graph, op_device):
                return known
        made = Execution(
            program=name,
            graph=graph,
            placement=placement.name,
            kind=placement.kind,
            op_device=op_device,
            makespans_s=[],
            overheads_s=[],
            op_s=[],
            edge_s=[],
        )
        self.executions.append(made)
        return made

    def _values(self, problem: Problem) -> "dict[str, Tensor]":
        from placement_gym.pytorch.programs import random_sources

        assert problem.graph.kernels is not None
        return random_sources(problem.graph.kernels.sources, self._config.seed)

    def _one(
        self, problem: Problem, execution: Execution, rule: Rule, values: "dict[str, Tensor]", *, counts: bool
    ) -> None:
        from placement_gym.pytorch import RunOptions, execute

        schedule = execute(
            problem,
            execution.op_device,
            torch_devices=list(self._config.torch_devices),
            repeats=1,
            rule=rule,
            options=RunOptions(values=values, warmup=0, timeout_s=self._config.timeout_s),
        )
        schedule.check()
        if not counts:
            return
        execution.makespans_s.append(schedule.makespan_s)
        execution.overheads_s.append(float(np.median(schedule.op_overhead_s)))
        if execution.kind == "calibration":
            trace = schedule.trace
            edge_s = trace.transfer_arrival_s - trace.transfer_start_s
            execution.op_s.append((trace.op_finish_s - trace.op_start_s).tolist())
            execution.edge_s.append([None if np.isnan(x) else x for x in edge_s.tolist()])

    def _save(self) -> None:
        write_text(self._path, "".join(json.dumps(execution.row()) + "\n" for execution in self.executions))


def compared(
    campaign: MeasuredRuns, problems: Mapping[str, Problem], placements: Mapping[str, list[NamedPlacement]], rule: Rule
) -> list[Comparison]:
    """What was run beside what is simulated, with profiled and with calibrated costs.

    Calibrated costs come from runs of placements that are not compared.
    """
    found = []
    for name, problem in problems.items():
        graph = fingerprint(problem.graph)
        kept = [placement.op_device.tolist() for placement in placements[name]]
        own = [e for e in campaign.executions if e.graph == graph and e.program == name and e.op_device in kept]
        evaluated = [e for e in own if e.kind != "calibration"]
        runs = [run for e in own if e.kind == "calibration" for run in e.runs()]
        ways = {"profiled": problem, **({"calibrated": calibrated(problem, runs)} if runs else {})}
        simulated_s = {
            costs: [simulate(way, e.op_device, rule=rule).makespan_s for e in evaluated] for costs, way in ways.items()
        }
        op_s = list(ways.values())[-1].op_time_s[:, 0]
        found.append(Comparison(program=name, op_s=op_s, executions=evaluated, simulated_s=simulated_s))
    return found


def placements_of(
    problem: Problem, rule: Rule, baselines: Mapping[str, build.Baseline], config: DictConfig
) -> list[NamedPlacement]:
    """Placements to be compared, and `config.n_calibration` random ones, drawn apart, to calibrate costs with."""
    evaluated = all_kinds(problem, rule, baselines, n_random=config.n_random, seed=config.seed)
    taken = {placement.op_device.tobytes() for placement in evaluated}
    drawn = random(problem, config.n_calibration, np.random.default_rng([config.seed, 1]))
    apart = [replace(placement, kind="calibration") for placement in drawn]
    return [*evaluated, *(p for p in apart if p.op_device.tobytes() not in taken)]


def run(config: DictConfig) -> int:
    """Measures kernels and copies, then runs and simulates every placement; writes rows, table and picture.

    Raises:
        InvalidProblem: A workload that cannot be run.
        ExecutionError: A run that failed.
    """
    console, folder = wide_console(), RunFolder.of_hydra()
    sections = config.programs or {config.workload_name: config.workload}
    rule, graphs = build.build_rule(config), {n: build.build_executable(s, n) for n, s in sections.items()}
    baselines = build.build_baselines(config, rule)
    write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    problems = profiled_problems(graphs, config, console)
    placements = {name: placements_of(problem, rule, baselines, config) for name, problem in problems.items()}
    campaign = MeasuredRuns(config, folder.path / "executions.jsonl", console)
    try:
        campaign.run(problems, placements, rule)
    except KeyboardInterrupt:
        console.print("interrupted; the same command, with the same hydra.run.dir, goes on", highlight=False)
        raise
    comparisons = compared(campaign, problems, placements, rule)
    lines = [line for one in comparisons for line in one.lines()]
    console.print(terminal("simulated against measured makespans", HEADINGS, lines))
    overhead_s = np.median([x for one in comparisons for e in one.executions for x in e.overheads_s])
    console.print(f"the engine's own time: {overhead_s * 1e6:.0f} µs per op (median)", highlight=False)
    write_text(folder.table, markdown(HEADINGS, lines))
    rows = [json.dumps(row) + "\n" for one in comparisons for row in one.rows()]
    write_text(folder.path / "agreement.jsonl", "".join(rows))
    written = [save_png(draw(comparisons, costs), folder.path / f"{costs}.png") for costs in comparisons[0].simulated_s]
    names = ", ".join(["executions.jsonl", "agreement.jsonl", folder.table.name, *(path.name for path in written)])
    console.print(f"wrote {folder.path}/: {names}", highlight=False)
    return 0


main = command("execute")(run)

if __name__ == "__main__":
    sys.exit(main(None))
