"""Baselines on a problem: each result is checked, recorded and returned as a line of the table."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments import record
from experiments.build import Baseline
from experiments.folder import RunFolder
from experiments.record import Effort, Record
from experiments.table import TableRow, row_of_record
from placement_gym.errors import InfeasiblePlacement, PlacementGymError
from placement_gym.problem import Problem
from placement_gym.result import Result
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
) -> list[TableRow]:
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
            warm_up(solve)
            progress.update(line, description=name)
            try:
                made = solve_and_record(name, solve, problem, folder, verb=verb, config=config)
            except InfeasiblePlacement as error:
                # No single device holds every model: that is an answer, which the table shows.
                rows.append(nothing_found(name))
                console.print(str(error), highlight=False)
                continue
            rows.append(row_of_record(made, by_makespan=by_makespan))
    return rows


def warm_up(solve: Baseline) -> None:
    """Has Numba compile what the baseline needs, so that its first run on a machine does not include this time."""
    # What is made for one workload (an expert's split) may refuse this one.
    with suppress(PlacementGymError):
        solve(layered(n_ops=4, n_devices=2))


def solve_and_record(
    method: str, solve: Baseline, problem: Problem, folder: RunFolder, *, verb: str, config: Mapping[str, Any]
) -> Record:
    """Runs one baseline, checks its result and adds it to the folder's records; returns it.

    Raises:
        InfeasiblePlacement: It found nothing that fits into memory.
        KeyboardInterrupt: The user ended it; nothing is recorded.
        PlacementGymError: As the baseline.
    """
    result = solve(problem)
    if result.interrupted:
        # It has the best so far, which a record would take for all that the method can do.
        raise KeyboardInterrupt
    if result.excess_bytes > 0:
        raise InfeasiblePlacement(
            f"{method} found no placement of {problem.name!r} that fits into memory; the best it saw exceeds it by "
            f"{result.excess_bytes:.4g} bytes: {result.schedule.overfull()}"
        )
    result.schedule.check()
    made = Record.of(
        result.schedule,
        verb=verb,
        method=method,
        effort=effort_of(result),
        problem_file=folder.problem.name,
        config=config,
    )
    record.append(folder.records, made)
    return made


def effort_of(result: Result) -> Effort:
    """Budget, bound and status of a baseline's result, for its record."""
    return Effort(
        lower_bound_s=result.lower_bound,
        simulator_calls=result.simulator_calls,
        seconds=result.runtime_s,
        seed=result.seed,
        status=result.status,
        objective=result.objective_name,
        op_subgraph=result.op_subgraph,
        restricted_to=result.restricted_to,
        class_lower_bound_s=result.class_lower_bound,
        own_order=result.priority is not None,
    )


def nothing_found(method: str, *, is_baseline: bool = True, status: str = "infeasible") -> TableRow:
    """The line of a method that found no feasible placement, or that could not be run (`status` says why)."""
    return TableRow(
        method=method,
        objective="makespan",
        objective_s=math.inf,
        lower_bound_s=0.0,
        simulator_calls=0,
        seconds=0.0,
        status=status,
        is_baseline=is_baseline,
    )
