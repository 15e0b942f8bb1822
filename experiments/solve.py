"""solve: baselines place a workload.

python -m experiments.solve baseline=heft workload=pytorch cluster=4xp100_pcie
python -m experiments.solve baseline=[heft,simulated_annealing] baseline.simulated_annealing.simulator_calls=200000
python -m experiments.solve -m baseline=heft,m_etf seed=0,1,2
"""

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments import build, record, table
from experiments.build import Baseline
from experiments.command import command
from experiments.folder import RunFolder
from experiments.record import Effort, Record
from experiments.table import Row, row_of_record
from experiments.tracking import Tracker
from placement_gym.baselines import Result, lower_bound_s
from placement_gym.errors import InfeasiblePlacement, PlacementGymError
from placement_gym.files import write_text
from placement_gym.objectives import Objective
from placement_gym.problem import Problem
from placement_gym.workloads import layered


def run_baselines(
    problem: Problem,
    baselines: Mapping[str, Baseline],
    folder: RunFolder,
    *,
    verb: str,
    config: Mapping[str, Any],
    console: Console,
    by_makespan: bool = False,
) -> list[Row]:
    """Runs each baseline once; every result is checked, recorded and returned as a line of the table.

    `by_makespan`: results of methods with another objective are compared by their simulated makespan too.
    """
    rows = []
    with Progress(
        SpinnerColumn(),
        TextColumn("baselines: {task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        line = progress.add_task("", total=None)
        for name, solve in baselines.items():
            progress.update(line, description=f"compiling {name}")
            # On a machine's first run Numba compiles; that is not the baseline's time. What is made for one workload
            # (an expert's split) may refuse this one.
            with suppress(PlacementGymError):
                solve(layered(n_ops=4, n_devices=2))
            progress.update(line, description=name)
            try:
                result = solve(problem)
            except InfeasiblePlacement:
                # No single device holds every model: that is an answer, which the table shows.
                rows.append(nothing_found(name))
                continue
            result.schedule.check()
            made = Record.of(
                result.schedule,
                verb=verb,
                method=name,
                effort=effort_of(result),
                problem_file=folder.problem.name,
                config=config,
            )
            record.append(folder.records, made)
            rows.append(row_of_record(made, by_makespan=by_makespan))
    return rows


def effort_of(result: Result) -> Effort:
    """What a baseline says about its own result."""
    return Effort(
        lower_bound_s=result.lower_bound,
        simulator_calls=result.simulator_calls,
        seconds=result.runtime_s,
        seed=result.seed,
        status=result.status,
        objective=result.objective_name,
        op_subgraph=result.op_subgraph,
    )


def nothing_found(method: str, *, is_baseline: bool = True) -> Row:
    """The line of a method that found no feasible placement."""
    return Row(
        method=method,
        objective="makespan",
        objective_s=math.inf,
        lower_bound_s=0.0,
        simulator_calls=0,
        seconds=0.0,
        status="infeasible",
        is_baseline=is_baseline,
    )


def by_objective(rows: Sequence[Row]) -> dict[Objective, list[Row]]:
    """The rows of each objective; methods that found nothing go with the first that found something."""
    found = [row for row in rows if row.status != "infeasible"]
    groups: dict[Objective, list[Row]] = {}
    for row in rows:
        groups.setdefault((row if row in found else found[0]).objective, []).append(row)
    return groups


def describe(problem: Problem, rule: object) -> str:
    """One line about the problem, for the head of a run."""
    graph = problem.graph
    return f"{problem.name}: {graph.n_ops:,} ops, {graph.n_edges:,} edges, {problem.n_devices} devices; rule {rule}"


def run(config: DictConfig) -> int:
    """Runs the configured baselines, writes records and the table."""
    console = table.wide_console()
    folder = RunFolder.of_hydra()
    rule = build.build_rule(config)
    baselines = build.build_baselines(config, rule)
    problem = build.build_problem(config)
    whole = build.plain(config)
    write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    problem.save(folder.problem)
    console.print(describe(problem, config.rule), highlight=False)
    tracking = instantiate(config.tracking)
    with Tracker(folder, whole, tracking, name=f"solve {problem.name} seed {config.seed}") as tracker:
        rows = run_baselines(problem, baselines, folder, verb="solve", config=whole, console=console)
        if all(row.status == "infeasible" for row in rows):
            raise InfeasiblePlacement(f"{', '.join(baselines)}: no feasible placement of {problem.name} was found")
        tracker.baselines(rows, lower_bound_s(problem))
        tracker.finish(rows, lower_bound_s(problem))
    text = []
    for objective, group in by_objective(rows).items():
        bound = lower_bound_s(problem, objective)
        lines, columns = table.cells(group, bound), table.headings(objective)
        text.append(table.markdown(columns, lines))
        console.print(table.terminal(problem.name, columns, lines))
    write_text(folder.table, "\n".join(text))
    console.print(f"wrote {folder.path}/: {', '.join(sorted(p.name for p in folder.path.iterdir()))}", highlight=False)
    return 0


main = command("solve")(run)

if __name__ == "__main__":
    sys.exit(main(None))
