"""LinearProgram: yes-or-no variables, seconds and linear rows; which solver, and within what limits."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from placement_gym.arrays import FloatArray
from placement_gym.errors import InvalidOption, MissingDependency, unknown_name

SolverName = Literal["cp_sat", "highs"]
SOLVERS: tuple[str, ...] = get_args(SolverName)
PACKAGES = {"cp_sat": "ortools", "highs": "highspy"}
# CP-SAT computes in whole numbers: the largest number of seconds has so many units, real coefficients are so large.
UNITS = 2.0**30
COEFFICIENT = 2.0**40
TINY_S = 1e-290


@dataclass(frozen=True, slots=True)
class Solver:
    """Which solver, and when it may stop.

    Attributes:
        name: "cp_sat" (OR-Tools) or "highs".
        time_limit_s: Wall-clock seconds for all its runs of one call.
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
    """

    upper: list[float | None] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    objective: list[int] = field(default_factory=list)
    hint: dict[int, float] = field(default_factory=dict)

    def yes_or_no(self) -> int:
        """A new variable, 0 or 1."""
        self.upper.append(None)
        return len(self.upper) - 1

    def seconds(self, upper: float) -> int:
        """A new variable from 0 to `upper`."""
        self.upper.append(upper)
        return len(self.upper) - 1

    def at_least(self, terms: Sequence[tuple[float, int]], least: float, *, when: int | None = None) -> None:
        """sum(coefficient * variable) >= least, if `when` is yes. Coefficients of seconds are whole numbers."""
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


def clipped(program: LinearProgram, row: Row) -> list[float]:
    """The coefficients, those of yes-or-no variables not far beyond what the seconds in the row can make good for.

    A device on which an op takes longer than any solution lasts would else need numbers too large for the solvers.
    """
    uppers = [program.upper[v] for v in row.variables]
    largest = max((u for u in uppers if u is not None), default=None)
    if largest is None:
        return row.coefficients
    highest = math.fsum(c * (1.0 if u is None else u) for c, u in zip(row.coefficients, uppers, strict=True) if c > 0)
    # A yes below this breaks the row whatever the rest is, far more clearly than by rounding.
    lowest = 2 * min(0.0, row.least - highest) - max(largest, TINY_S)
    return [max(c, lowest) if u is None else c for c, u in zip(row.coefficients, uppers, strict=True)]
