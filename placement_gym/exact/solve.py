"""mip: integer and constraint programmes for every objective, solved by free solvers."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.arrays import IntArray
from placement_gym.baselines.heuristics import single_device
from placement_gym.baselines.list_methods import critical_path
from placement_gym.baselines.partitioning import greedy_latency, load_local_search
from placement_gym.baselines.search import simulated_annealing
from placement_gym.errors import InfeasiblePlacement, InvalidOption, InvalidProblem, unknown_name
from placement_gym.exact.latency.mip import solve_latency
from placement_gym.exact.makespan.program import solve_makespan
from placement_gym.exact.max_load.mip import solve_load
from placement_gym.exact.max_load.pipeline import dp
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.objectives import OBJECTIVES, Objective, gpipe_load_s, latency_s, max_load_s
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.result import Answer, Evaluator, Result, Status
from placement_gym.rule import Rule

# The most seconds, and the share of the time limit, for the best pipeline to begin from.
IDEALS_S = 20.0
IDEALS_SHARE = 0.2


def mip(
    problem: Problem,
    *,
    rule: str | Rule = "physical",
    objective: Objective = "makespan",
    contiguous: bool = False,
    subgraphs: int = 1,
    start: ArrayLike | None = None,
    solver: Solver | None = None,
) -> Result:
    """The best placement by integer programming, with a proven bound.

    Objectives:

    - "max_load", "gpipe_load": the programmes for throughput (`max_load.mip.solve_load`), `contiguous` or not.
    - "latency": every accelerator runs up to `subgraphs` contiguous subgraphs (`latency.mip.solve_latency`).
    - "makespan": a scheduling model of the simulator's rule (`makespan.program.solve_makespan`).

    The search begins from the best of a few heuristics, or from `start` where that is given. Solvers round, the result
    does not: its placement is evaluated like any other, and the bound is true. Status "optimal" where the solver has
    proved that no placement is better, to its tolerance of about 1e-6 and the gap asked for; else "limit_reached".
    With `contiguous`, and for the latency, status and bound are about such placements alone (`Result.restricted_to`).
    Ctrl-C while the solver runs gives the placement that the search began from, status "limit_reached".

    Args:
        problem: Any.
        rule: Of the makespan; of the schedule that comes with the result for any objective.
        objective: What is minimised.
        contiguous: For the loads: forward ops leave each device once, see `solve_load`.
        subgraphs: For the latency: contiguous subgraphs per accelerator.
        start: int [n_ops], a feasible placement, contiguous if that is asked for.
        solver: Solver and limits; CP-SAT for 300 s by default.

    Raises:
        InfeasiblePlacement: No placement is feasible, or none was found in time (the message says which).
        InvalidOption: An option that the objective does not have, or a value out of range.
        MissingDependency: The solver is not installed.
    """
    solver = solver or Solver()
    solver.check_installed()
    if objective not in OBJECTIVES:
        raise InvalidOption(unknown_name("objective", objective, OBJECTIVES))
    if contiguous and objective not in ("max_load", "gpipe_load"):
        raise InvalidOption(f"contiguous is an option of max_load and gpipe_load, not of {objective}")
    if subgraphs < 1 or (subgraphs > 1 and objective != "latency"):
        raise InvalidOption(f"subgraphs is {subgraphs}; expected >= 1, and 1 unless the objective is latency")
    evaluator, began = Evaluator("mip", problem, rule, solver.seed, objective), time.perf_counter()
    if start is not None:
        known: IntArray | None = Placement(np.asarray(start)).op_device
        Placement(np.asarray(start)).check(problem)
    else:
        known = _best_known(problem, objective, contiguous, rule, solver)
    spent = time.perf_counter() - began
    left = replace(solver, time_limit_s=max(solver.time_limit_s - spent, 0.01 * solver.time_limit_s))
    try:
        answer = _solve(evaluator, left, known, contiguous, subgraphs)
    except KeyboardInterrupt:
        if known is None:
            raise
        answer = Answer(known, 0.0, False)
    return _result(evaluator, answer, known, _kind(objective, contiguous, subgraphs))


def _best_known(
    problem: Problem, objective: Objective, contiguous: bool, rule: str | Rule, solver: Solver
) -> IntArray | None:
    """The best placement that heuristics find, None if they find none."""
    seed, ideals_s = solver.seed, min(IDEALS_S, IDEALS_SHARE * solver.time_limit_s)
    finders: dict[Objective, list[Callable[[], Result]]] = {
        "max_load": [lambda: dp(problem, time_limit_s=ideals_s)],
        "latency": [lambda: greedy_latency(problem)],
        "makespan": [
            lambda: single_device(problem, rule=rule),
            lambda: critical_path(problem, rule=rule, seed=seed),
            lambda: simulated_annealing(problem, rule=rule, simulator_calls=20_000, seed=seed),
        ],
    }
    finders["gpipe_load"] = finders["max_load"]
    if not contiguous:
        finders["max_load"].append(lambda: load_local_search(problem, restarts=20, seed=seed))
    value = {"max_load": max_load_s, "gpipe_load": gpipe_load_s, "latency": latency_s}.get(objective)
    found: list[tuple[float, IntArray]] = []
    for find in finders[objective]:
        try:
            result = find()
        except (InfeasiblePlacement, InvalidProblem):
            # A heuristic that does not apply here, or finds nothing, leaves the search without its start.
            continue
        seconds = result.objective if value is None else value(problem, result.placement.op_device)
        found.append((seconds, result.placement.op_device))
    return min(found, key=lambda one: one[0])[1] if found else None


def _solve(evaluator: Evaluator, solver: Solver, start: IntArray | None, contiguous: bool, subgraphs: int) -> Answer:
    """What the programme of the objective finds and proves."""
    problem, objective = evaluator.problem, evaluator.objective
    if objective == "makespan":
        return solve_makespan(evaluator, solver, start=start)
    if objective == "latency":
        return solve_latency(problem, solver, start=start, subgraphs=subgraphs)
    return solve_load(problem, solver, start=start, contiguous=contiguous, gpipe=objective == "gpipe_load")


def _kind(objective: Objective, contiguous: bool, subgraphs: int) -> str | None:
    """The kind of placements that are searched, None if all are."""
    if objective == "latency":
        return "one subgraph per accelerator" if subgraphs == 1 else f"{subgraphs} subgraphs per accelerator"
    return "contiguous" if contiguous else None


def _result(evaluator: Evaluator, answer: Answer, start: IntArray | None, restricted_to: str | None) -> Result:
    """Evaluates the answer, or the start where the solver has found nothing better in time."""
    op_device = start if answer.op_device is None else answer.op_device
    if op_device is None:
        raise InfeasiblePlacement(
            f"no placement of {evaluator.problem.name!r} is feasible"
            if answer.proven
            else f"no feasible placement of {evaluator.problem.name!r} was found within the solver's time limit"
        )
    subgraph = answer.op_subgraph if answer.op_device is not None else None
    status: Status = "optimal" if answer.proven else "limit_reached"
    return evaluator.result(
        op_device, status, lower_bound=answer.lower_bound, op_subgraph=subgraph, restricted_to=restricted_to
    )
