"""LinearProgram: yes-or-no variables, seconds and linear rows; OR-Tools CP-SAT on it (`solve.py` chooses)."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from placement_gym.arrays import FloatArray
from placement_gym.errors import InvalidOption, MissingDependency, unknown_name
from placement_gym.exact.deadline import Deadline

SolverName = Literal["cp_sat", "highs"]
SOLVERS: tuple[str, ...] = get_args(SolverName)
PACKAGES = {"cp_sat": "ortools", "highs": "highspy"}
# CP-SAT computes in whole numbers: the largest number of seconds has so many units, real coefficients are so large.
UNITS = 2.0**30
COEFFICIENT = 2.0**40
TINY_S = 1e-290
# Closing the last units between a value and a bound, which rounding makes, can take CP-SAT longer than all the rest.
ROUNDING_GAP = 1e-7


@dataclass(frozen=True, slots=True)
class Solver:
    """Which solver, and when it may stop.

    Attributes:
        name: "cp_sat" (OR-Tools) or "highs".
        time_limit_s: Wall-clock seconds of one call: heuristics, the building of models and all runs of the solver.
        gap: It may stop once (value - bound) / value is that small.
        workers: Threads, as many as there are cores by default. CP-SAT runs a different strategy on each, so more than
            that may find better placements, but take longer to prove them.
        seed: Of its random choices. Runs that end at the time limit differ from each other all the same.

    Raises:
        InvalidOption: An unknown name, or a number out of range.
    """

    name: SolverName = "cp_sat"
    time_limit_s: float = 300.0
    gap: float = 0.0
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise InvalidOption(unknown_name("solver", self.name, SOLVERS))
        for what, value, expected, fine in (
            ("time_limit_s", self.time_limit_s, "> 0", self.time_limit_s > 0),
            ("gap", self.gap, "0 <= gap < 1", 0 <= self.gap < 1),
            ("workers", self.workers, ">= 1", self.workers >= 1),
        ):
            if not fine:
                raise InvalidOption(f"{what} of the solver is {value}; expected {expected}")

    def check_installed(self) -> None:
        """Raises MissingDependency unless the solver's package is there."""
        try:
            if self.name == "cp_sat":
                from ortools.sat.python import cp_model  # noqa: F401
            else:
                import highspy  # noqa: F401
        except ImportError as error:
            raise MissingDependency(
                f"the solver {self.name} needs the package {PACKAGES[self.name]}: pip install placement-gym[exact]"
                f" ({error})"
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """What a solver says.

    Attributes:
        values: float64 [n_variables], None if it found nothing.
        bound: No solution has a lower objective.
        proven: Whether the search is over: `values` are optimal to the gap asked for and the solver's own rounding,
            or, without values, there is no solution.
    """

    values: FloatArray | None
    bound: float
    proven: bool


class Row(NamedTuple):
    """Sum of coefficient * variable >= least, if the variable `when` is yes."""

    coefficients: list[float]
    variables: list[int]
    least: float
    when: int | None


@dataclass(slots=True, eq=False)
class LinearProgram:
    """Rows sum(coefficient * variable) >= least over yes-or-no variables and seconds; seconds are minimised.

    Attributes:
        upper: Largest value of each variable; a yes-or-no variable has None.
        rows: The rows.
        objective: Variables whose sum is minimised; seconds.
        hint: Values of a solution that is known already.
        units: For CP-SAT, units of the largest number of seconds.
        deadline: Rows are added until then, and the solver runs until then.
    """

    upper: list[float | None] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    objective: list[int] = field(default_factory=list)
    hint: dict[int, float] = field(default_factory=dict)
    units: float = UNITS
    deadline: Deadline = field(default_factory=Deadline)

    def yes_or_no(self) -> int:
        """A new variable, 0 or 1."""
        self.upper.append(None)
        return len(self.upper) - 1

    def seconds(self, upper: float) -> int:
        """A new variable from 0 to `upper`."""
        self.upper.append(upper)
        return len(self.upper) - 1

    def at_least(self, terms: Sequence[tuple[float, int]], least: float, *, when: int | None = None) -> None:
        """sum(coefficient * variable) >= least, if `when` is yes. Coefficients of seconds are whole numbers.

        Raises:
            OutOfTimeError: The deadline is over.
        """
        self.deadline.check()
        self.rows.append(Row([float(c) for c, _ in terms], [v for _, v in terms], least, when))

    def at_most(self, terms: Sequence[tuple[float, int]], most: float) -> None:
        """sum(coefficient * variable) <= most."""
        self.at_least([(-c, v) for c, v in terms], -most)

    def any_of(self, variables: Sequence[int], *, unless: Sequence[int] = ()) -> None:
        """One of `variables` is yes, unless one of `unless` is no."""
        self.at_least([*((1, v) for v in variables), *((-1, v) for v in unless)], 1 - len(unless))

    def one_of(self, variables: Sequence[int]) -> None:
        """Exactly one of `variables` is yes."""
        self.at_least([(1, v) for v in variables], 1)
        self.at_most([(1, v) for v in variables], 1)


def solve_by_cp_sat(program: LinearProgram, solver: Solver) -> Solved:
    """CP-SAT on whole numbers, rounded so that no solution is lost: its bound holds for the unrounded program, too."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    largest = max((u for u in program.upper if u is not None), default=1.0)
    per_s = program.units / max(largest, TINY_S)
    variables = [
        model.new_bool_var("") if u is None else model.new_int_var(0, math.floor(u * per_s), "") for u in program.upper
    ]
    for row in program.rows:
        program.deadline.check()
        whole, least = _whole_row(program, row, per_s)
        total = cp_model.LinearExpr.weighted_sum([variables[v] for v in row.variables], whole)
        added = model.add_linear_constraint(total, least, cp_model.INT_MAX)
        if row.when is not None:
            added.only_enforce_if(variables[row.when])
    model.minimize(cp_model.LinearExpr.sum([variables[v] for v in program.objective]))
    for v, value in program.hint.items():
        model.add_hint(variables[v], round(value) if program.upper[v] is None else math.floor(value * per_s))
    engine = cp_model.CpSolver()
    engine.parameters.relative_gap_limit = max(solver.gap, ROUNDING_GAP)
    status = run_cp_sat(engine, model, solver, program.deadline)
    if status == cp_model.INFEASIBLE:
        return Solved(None, math.inf, True)
    bound = max(0.0, engine.best_objective_bound) / per_s
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Solved(None, bound, False)
    scale = [1.0 if u is None else per_s for u in program.upper]
    values = np.array([engine.value(v) for v in variables], dtype=np.float64) / np.array(scale)
    return Solved(values, bound, status == cp_model.OPTIMAL)


def run_cp_sat(engine: Any, model: Any, solver: Solver, deadline: Deadline, callback: Any = None) -> Any:  # noqa: ANN401  (CP-SAT has no types)
    """Solves within the limits, and returns CP-SAT's status."""
    engine.parameters.max_time_in_seconds = min(solver.time_limit_s, deadline.left_s)
    engine.parameters.num_workers = solver.workers
    engine.parameters.random_seed = solver.seed
    # By default it takes Ctrl-C for a time limit that is over, and what called it never knows.
    engine.parameters.catch_sigint_signal = False
    return deadline.run(lambda: engine.solve(model, callback), engine.stop_search)


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


def clipped(program: LinearProgram, row: Row) -> list[float]:
    """The coefficients of a row; very low ones of yes-or-no variables are raised, which changes no solution.

    A coefficient so low that its yes breaks the row, whatever the others are, may be any other that low. Without this,
    a device on which an op takes longer than any solution lasts would need numbers too large for the solvers.
    """
    uppers = [program.upper[v] for v in row.variables]
    largest = max((u for u in uppers if u is not None), default=None)
    if largest is None:
        return row.coefficients
    highest = math.fsum(c * (1.0 if u is None else u) for c, u in zip(row.coefficients, uppers, strict=True) if c > 0)
    # A yes below this breaks the row whatever the rest is, far more clearly than by rounding.
    lowest = 2 * min(0.0, row.least - highest) - max(largest, TINY_S)
    return [max(c, lowest) if u is None else c for c, u in zip(row.coefficients, uppers, strict=True)]
