"""solve_program: a linear programme to OR-Tools CP-SAT or to HiGHS."""

import math
from typing import Any

import numpy as np

from placement_gym.exact.mip.interruptible import interruptible
from placement_gym.exact.mip.linear_program import (
    COEFFICIENT,
    TINY_S,
    UNITS,
    LinearProgram,
    Row,
    Solved,
    Solver,
    clipped,
)


def solve_program(program: LinearProgram, solver: Solver) -> Solved:
    """Minimises the programme; see `Solver`.

    Raises:
        MissingDependency: The solver's package is not installed.
    """
    solver.check_installed()
    if solver.name == "cp_sat":
        return _cp_sat(program, solver)
    # Its package may be missing.
    from placement_gym.exact.mip.highs import solve

    return solve(program, solver)


def _cp_sat(program: LinearProgram, solver: Solver) -> Solved:
    """CP-SAT on whole numbers, rounded so that no solution is lost: its bound holds for the program as it is."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    largest = max((u for u in program.upper if u is not None), default=1.0)
    per_s = UNITS / max(largest, TINY_S)
    variables = [
        model.new_bool_var("") if u is None else model.new_int_var(0, math.floor(u * per_s), "") for u in program.upper
    ]
    for row in program.rows:
        whole, least = _whole_row(program, row, per_s)
        total = cp_model.LinearExpr.weighted_sum([variables[v] for v in row.variables], whole)
        added = model.add_linear_constraint(total, least, cp_model.INT_MAX)
        if row.when is not None:
            added.only_enforce_if(variables[row.when])
    model.minimize(cp_model.LinearExpr.sum([variables[v] for v in program.objective]))
    for v, value in program.hint.items():
        model.add_hint(variables[v], round(value) if program.upper[v] is None else math.floor(value * per_s))
    engine = cp_model.CpSolver()
    engine.parameters.relative_gap_limit = solver.gap
    status = run_cp_sat(engine, model, solver)
    if status == cp_model.INFEASIBLE:
        return Solved(None, math.inf, True)
    bound = max(0.0, engine.best_objective_bound) / per_s
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Solved(None, bound, False)
    scale = [1.0 if u is None else per_s for u in program.upper]
    values = np.array([engine.value(v) for v in variables], dtype=np.float64) / np.array(scale)
    return Solved(values, bound, status == cp_model.OPTIMAL)


def run_cp_sat(engine: Any, model: Any, solver: Solver, callback: Any = None) -> Any:  # noqa: ANN401  (CP-SAT has no types)
    """Solves within the limits, and returns CP-SAT's status; Ctrl-C ends the search and is raised again."""
    engine.parameters.max_time_in_seconds = solver.time_limit_s
    engine.parameters.num_workers = solver.workers
    engine.parameters.random_seed = solver.seed
    # By default it takes Ctrl-C for a time limit that is over, and what called it never knows.
    engine.parameters.catch_sigint_signal = False
    return interruptible(lambda: engine.solve(model, callback), engine.stop_search)


def _whole_row(program: LinearProgram, row: Row, per_s: float) -> tuple[list[int], int]:
    """The row in whole numbers; whatever satisfies it, seconds rounded down to units, satisfies the result.

    In a row with seconds each sum of n of them on the large side may lose n - 1 units more than the sum itself.
    """
    with_seconds = [program.upper[v] is not None for v in row.variables]
    coefficients, least = clipped(program, row), row.least
    if any(with_seconds):
        whole = [
            round(c) if seconds else math.ceil(c * per_s) for c, seconds in zip(coefficients, with_seconds, strict=True)
        ]
        lost = sum(c for c, seconds in zip(whole, with_seconds, strict=True) if seconds and c > 0) - 1
        return whole, math.floor(least * per_s) - max(0, lost)
    if all(c == round(c) for c in coefficients) and max(map(abs, coefficients), default=0.0) <= 2.0**50:
        return [round(c) for c in coefficients], math.ceil(least)
    scale = COEFFICIENT / max(map(abs, coefficients))
    return [math.ceil(c * scale) for c in coefficients], math.floor(least * scale)
