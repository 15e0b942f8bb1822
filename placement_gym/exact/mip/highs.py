"""HiGHS on a linear programme; to be imported only where highspy is known to be installed."""

import math

import highspy
import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray
from placement_gym.exact.mip.linear_program import TINY_S, LinearProgram, Row, Solved, Solver, clipped

# A row may be short of its least by 1e-9 where the largest time is 1,000, and a bound adds up many rows: the excess
# seen over brute force on 2,000 random programmes was 6.5e-9 of the bound, where the bound is near the largest time.
BOUND_SLACK = 1e-7
BOUND_SLACK_OF_LARGEST = 1e-9


def solve(program: LinearProgram, solver: Solver) -> Solved:
    """HiGHS on the program; its bound is lowered a little, because it may break rows by a tolerance."""
    # Seconds are brought to a size at which the solver's absolute tolerances are small beside them.
    largest = max((u for u in program.upper if u is not None), default=1.0)
    per_s = 1e3 / max(largest, TINY_S)
    upper = np.array([1.0 if u is None else u * per_s for u in program.upper])
    cost = np.zeros(len(upper))
    cost[program.objective] = 1.0
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    # With presolve, version 1.14 called a placement optimal where a better one exists on 2 of 2,000 random programmes.
    engine.setOptionValue("presolve", "off")
    engine.setOptionValue("time_limit", min(solver.time_limit_s, program.deadline.left_s))
    engine.setOptionValue("mip_rel_gap", max(solver.gap, 1e-9))
    engine.setOptionValue("threads", solver.workers)
    engine.setOptionValue("random_seed", solver.seed)
    engine.setOptionValue("mip_feasibility_tolerance", 1e-9)
    engine.setOptionValue("primal_feasibility_tolerance", 1e-9)
    if engine.passModel(_model(program, per_s, upper, cost)) == highspy.HighsStatus.kError:
        raise AssertionError("HiGHS refuses the programme")
    if program.hint:
        index = np.array(list(program.hint), dtype=np.int32)
        value = np.array([h * (1.0 if program.upper[v] is None else per_s) for v, h in program.hint.items()])
        engine.setSolution(len(index), index, value)
    # It can be stopped at its callbacks only.
    engine.HandleUserInterrupt = True
    program.deadline.run(engine.run, engine.cancelSolve)
    status, info = engine.getModelStatus(), engine.getInfo()
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return Solved(None, math.inf, True)
    dual = float(info.mip_dual_bound) / per_s
    bound = max(0.0, dual * (1 - BOUND_SLACK) - BOUND_SLACK_OF_LARGEST * largest)
    if info.primal_solution_status != highspy.kSolutionStatusFeasible:
        return Solved(None, bound if math.isfinite(bound) else 0.0, False)
    scale = np.array([1.0 if u is None else per_s for u in program.upper])
    values: NDArray[np.float64] = np.array(engine.getSolution().col_value) / scale
    return Solved(values, bound, status == highspy.HighsModelStatus.kOptimal)


def _unconditional(program: LinearProgram, row: Row) -> tuple[list[float], list[int], float]:
    """The row with a large coefficient that switches it off where its condition is no (big-M)."""
    coefficients = clipped(program, row)
    if row.when is None:
        return coefficients, row.variables, row.least
    uppers = [1.0 if (u := program.upper[v]) is None else u for v in row.variables]
    lowest = math.fsum(min(0.0, c * u) for c, u in zip(coefficients, uppers, strict=True))
    large = max(0.0, row.least - lowest)
    merged = dict.fromkeys([*row.variables, row.when], 0.0)
    for c, v in zip([*coefficients, -large], [*row.variables, row.when], strict=True):
        merged[v] += c
    return list(merged.values()), list(merged), row.least - large


def _model(program: LinearProgram, per_s: float, upper: FloatArray, cost: FloatArray) -> highspy.HighsLp:
    """The model object of HiGHS; a row with seconds counts in its unit of time."""
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(upper), len(program.rows)
    model.col_cost_, model.col_lower_, model.col_upper_ = cost, np.zeros(len(upper)), upper
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    model.integrality_ = [kinds[u is None] for u in program.upper]
    start: list[int] = [0]
    index: list[int] = []
    value: list[float] = []
    least: list[float] = []
    for coefficients, members, low in (_unconditional(program, row) for row in program.rows):
        program.deadline.check()
        with_seconds = [program.upper[v] is not None for v in members]
        scale = per_s if any(with_seconds) else 1.0 / max([1.0, *map(abs, coefficients)])
        index += members
        value += [c if seconds else c * scale for c, seconds in zip(coefficients, with_seconds, strict=True)]
        start.append(len(index))
        least.append(low * scale)
    model.row_lower_, model.row_upper_ = np.array(least), np.full(len(least), highspy.kHighsInf)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(start, dtype=np.int32)
    model.a_matrix_.index_ = np.array(index, dtype=np.int32)
    model.a_matrix_.value_ = np.array(value)
    return model
