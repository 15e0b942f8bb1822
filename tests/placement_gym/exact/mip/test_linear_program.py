"""LinearProgram: both solvers, whole numbers that lose no solution, and clear words where a solver is missing."""

import builtins
import itertools
import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from placement_gym.errors import InvalidOption, MissingDependency
from placement_gym.exact.mip.linear_program import UNITS, LinearProgram, Row, Solved, Solver, _whole_row
from placement_gym.exact.mip.solve import solve_program

pytest.importorskip("ortools")
# Only where it is absent: a package that is there and does not load is a failure.
pytest.importorskip("highspy", exc_type=ModuleNotFoundError)
SOLVER_NAMES = ("cp_sat", "highs")
BOTH = [Solver(name=name, time_limit_s=20.0, workers=1) for name in ("cp_sat", "highs")]  # type: ignore[arg-type]
# Beside the longest seconds of a programme, CP-SAT's units, HiGHS's tolerances and what its bounds are taken down
# by are smaller than this.
PRECISION = 5e-7


def row_holds(program: LinearProgram, row: Row, value: Sequence[float], slack: float = 0.0) -> bool:
    """Whether exact values satisfy a row."""
    if row.when is not None and value[row.when] < 0.5:
        return True
    total = sum(Fraction(c) * Fraction(value[v]) for c, v in zip(row.coefficients, row.variables, strict=True))
    return total >= Fraction(row.least) - Fraction(slack)


def least_value(program: LinearProgram, choice: Sequence[int]) -> float:
    """Least sum of the seconds for fixed binaries, inf if there is none, of a programme made by `random_program`.

    There every row has at most one coefficient above 0 on seconds, so the least seconds are those that the rows push
    up to; except that the last row may ask for a sum of all of them.
    """
    value = [float(c) for c in choice] + [0.0] * (len(program.upper) - len(choice))
    last: Row | None = None
    for _ in range(len(program.upper)):
        for row in program.rows:
            if row.when is not None and value[row.when] < 0.5:
                continue
            risers = [
                i for i, v in enumerate(row.variables) if program.upper[v] is not None and row.coefficients[i] > 0
            ]
            if len(risers) > 1:
                last = row
                continue
            rest = sum(
                c * value[v]
                for i, (c, v) in enumerate(zip(row.coefficients, row.variables, strict=True))
                if i not in risers
            )
            if risers:
                riser = row.variables[risers[0]]
                value[riser] = max(value[riser], (row.least - rest) / row.coefficients[risers[0]])
            elif rest < row.least:
                return math.inf
    uppers = [u for u in program.upper if u is not None]
    seconds = value[len(choice) :]
    if any(s > u for s, u in zip(seconds, uppers, strict=True)):
        return math.inf
    if last is None:
        return sum(seconds)
    wanted = last.least - sum(
        c * value[v] for c, v in zip(last.coefficients, last.variables, strict=True) if program.upper[v] is None
    )
    return max(sum(seconds), wanted) if wanted <= sum(uppers) else math.inf


def random_program(rng: np.random.Generator) -> tuple[LinearProgram, int]:
    """(programme, number of binaries): packing rows with real coefficients, loads, chains of seconds, conditions."""
    program, n = LinearProgram(), int(rng.integers(1, 6))
    unit = float(rng.choice([1e-9, 1e-3, 1.0, 1e6]))
    y = [program.yes_or_no() for _ in range(n)]
    upper = float(rng.uniform(0.3, 3.0) * n)
    seconds = [program.seconds(unit * upper * float(rng.uniform(0.5, 1.0))) for _ in range(int(rng.integers(1, 4)))]
    program.objective = seconds
    if rng.random() < 0.7:
        program.any_of(y)
    for _ in range(int(rng.integers(0, 3))):
        claim = rng.uniform(-1.0, 1.0, n) * rng.choice([1e-3, 1.0, 1e12])
        program.at_most(
            [(float(c), v) for c, v in zip(claim, y, strict=True)], float(rng.uniform(-0.2, 0.6) * abs(claim).sum())
        )
    if rng.random() < 0.5:
        program.at_most(
            [(float(c), v) for c, v in zip(rng.integers(-3, 4, n), y, strict=True)], float(rng.uniform(-3, 4))
        )
    for _ in range(int(rng.integers(1, 4))):
        cost = rng.uniform(-0.5, 2.0, n) * (rng.random(n) < 0.8)
        # On some devices some ops last far longer than any solution.
        cost[(cost > 0) & (rng.random(n) < 0.15)] *= 1e15
        i = int(rng.integers(0, len(seconds)))
        terms = [
            (float(rng.integers(1, 3)), seconds[i]),
            *((-float(c) * unit, v) for c, v in zip(cost, y, strict=True)),
        ]
        if i and rng.random() < 0.5:
            terms.append((-1.0, seconds[i - 1]))
        when = y[int(rng.integers(0, n))] if rng.random() < 0.4 else None
        program.at_least(terms, unit * float(rng.uniform(-1.0, 1.0)), when=when)
    if len(seconds) > 1 and rng.random() < 0.5 and all(row.coefficients[-1] != -1.0 for row in program.rows[-4:]):
        weights = rng.uniform(0.0, 2.0, n)
        program.at_least(
            [*((1.0, s) for s in seconds), *((-float(w) * unit, v) for w, v in zip(weights, y, strict=True))], 0.0
        )
    return program, n


def check(seed: int) -> bool:
    """Both solvers against brute force over the binaries; whether both have proved what they say."""
    program, n = random_program(np.random.default_rng(seed))
    scale = max(u for u in program.upper if u is not None)
    best = min(least_value(program, choice) for choice in itertools.product((0, 1), repeat=n))
    proven = True
    for solver in BOTH:
        solved = solve_program(program, solver)
        if not solved.proven:
            proven = False
            assert solved.bound <= best * (1 + 1e-9), (seed, solver.name)
            continue
        if best == math.inf:
            assert solved.values is None, (seed, solver.name)
            continue
        assert solved.values is not None, (seed, solver.name)
        assert solved.bound <= best * (1 + 1e-9), (seed, solver.name)
        assert solved.bound >= best - PRECISION * scale, (seed, solver.name)
        chosen = least_value(program, [round(float(v)) for v in solved.values[:n]])
        assert chosen <= best + PRECISION * scale, (seed, solver.name)
    return proven


@pytest.mark.parametrize("part", range(4))
def test_equals_brute_force(part: int) -> None:
    """Real coefficients, times of 1e-9 s to 1e6 s: no solution is lost, none is invented, no bound is too high."""
    for seed in range(50 * part, 50 * part + 50):
        assert check(seed), seed


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_equal_brute_force(part: int) -> None:
    """As above, on many programmes; now and then CP-SAT's bound on seconds creeps upwards, too slowly for the limit."""
    proven = [check(seed) for seed in range(1000 + 200 * part, 1200 + 200 * part)]
    assert sum(proven) >= 0.98 * len(proven)


@pytest.mark.parametrize("part", range(4))
def test_whole_rows_keep_every_solution_and_hardly_more(part: int) -> None:
    """What satisfies a row, tightly or not, satisfies the row in whole numbers; what misses it clearly does not."""
    for seed in range(500 * part, 500 * part + 500):
        rng = np.random.default_rng(seed)
        program = LinearProgram()
        y = [program.yes_or_no() for _ in range(int(rng.integers(1, 5)))]
        upper = 10.0 ** float(rng.uniform(-9, 6))
        seconds = [program.seconds(upper * float(rng.uniform(0.1, 1.0))) for _ in range(int(rng.integers(0, 4)))]
        value = [*rng.integers(0, 2, len(y)).astype(float), *(float(rng.random()) * program.upper[s] for s in seconds)]  # type: ignore[operator]
        unit = upper if seconds else 10.0 ** float(rng.uniform(-3, 13))
        whole_numbers = not seconds and rng.random() < 0.3
        factors = rng.integers(-9, 10, len(y)).astype(float) if whole_numbers else rng.uniform(-1, 1, len(y)) * unit
        terms = [*zip(factors.tolist(), y, strict=True), *((float(rng.integers(-3, 4)), s) for s in seconds)]
        total = sum(Fraction(c) * Fraction(value[v]) for c, v in terms)
        size = sum(abs(c) * (u or 1.0) for c, v in terms for u in [program.upper[v]])
        largest = max((u for u in program.upper if u is not None), default=1.0)
        per_s = UNITS / largest
        floors = [math.floor(x * per_s) if program.upper[v] is not None else int(x) for v, x in enumerate(value)]
        for slack, holds in ((0.0, True), (0.1 * size, True), (-1e-6 * (size + largest), False)):
            least = float(total) - slack
            if slack == 0.0:
                least = math.nextafter(least, -math.inf)
            program.rows.clear()
            program.at_least(terms, least)
            row = program.rows[0]
            assert row_holds(program, row, value) == holds
            whole, low = _whole_row(program, row, per_s)
            kept = sum(c * floors[v] for c, v in zip(whole, row.variables, strict=True)) >= low
            assert kept == holds, (seed, slack)


def test_conditional_rows_are_switched_off_and_on() -> None:
    """The large coefficient leaves a row without its condition free, and the row as it was with it."""
    program = LinearProgram()
    when, y, s = program.yes_or_no(), program.yes_or_no(), program.seconds(5.0)
    program.at_least([(1.0, s), (-3.0, y)], 1.0, when=when)
    from placement_gym.exact.mip.highs import _unconditional

    coefficients, variables, least = _unconditional(program, program.rows[0])
    for on, chosen, seconds in itertools.product((0.0, 1.0), (0.0, 1.0), (0.0, 1.0, 3.9, 4.0, 5.0)):
        value = {when: on, y: chosen, s: seconds}
        total = sum(c * value[v] for c, v in zip(coefficients, variables, strict=True))
        assert (total >= least) == (on == 0 or seconds - 3 * chosen >= 1)


def by_hand(least_s: float = 0.0) -> tuple[LinearProgram, list[int]]:
    """Items of 3, 4, 5 s on one of two machines each: the longer one has 7 s of the 12 s."""
    program = LinearProgram()
    on = [[program.yes_or_no() for _ in range(2)] for _ in range(3)]
    longest = program.seconds(12.0)
    program.objective = [longest]
    for row in on:
        program.one_of(row)
    for machine in range(2):
        program.at_least([(1, longest), *((-t, row[machine]) for t, row in zip((3.0, 4.0, 5.0), on, strict=True))], 0.0)
    program.at_least([(1, longest)], least_s)
    return program, [v for row in on for v in row]


@pytest.mark.parametrize("solver", BOTH, ids=SOLVER_NAMES)
def test_by_hand(solver: Solver) -> None:
    """Three items on two machines: 7 s, proven; a hint, right or wrong, changes neither."""
    for hint in ([], [1, 0, 1, 0, 0, 1], [1, 0, 1, 0, 1, 0], [0] * 6):
        program, on = by_hand()
        program.hint = {v: float(h) for v, h in zip(on, hint, strict=False)}
        solved = solve_program(program, solver)
        assert solved.proven
        assert solved.values is not None
        assert solved.bound == pytest.approx(7.0, rel=2e-7)
        assert solved.values[program.objective[0]] == pytest.approx(7.0, rel=1e-8)
        machine = [round(float(solved.values[v])) for v in on]
        assert [machine[i] + machine[i + 1] for i in (0, 2, 4)] == [1, 1, 1]


@pytest.mark.parametrize("solver", BOTH, ids=SOLVER_NAMES)
def test_conditions(solver: Solver) -> None:
    """A row counts only if its condition is yes."""
    for forced, expected in ((0, 0.0), (1, 2.5)):
        program = LinearProgram()
        when, s = program.yes_or_no(), program.seconds(10.0)
        program.objective = [s]
        program.at_least([(1, s)], 2.5, when=when)
        program.at_least([(1, when)], forced)
        solved = solve_program(program, solver)
        assert solved.bound == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("solver", BOTH, ids=SOLVER_NAMES)
def test_infeasible(solver: Solver) -> None:
    """No solution: proven, no values; also where a choice has no variable, and where a condition is forced."""
    too_long, _ = by_hand(12.5)
    nowhere = LinearProgram()
    nowhere.yes_or_no()
    nowhere.one_of([])
    clash = LinearProgram()
    y = clash.yes_or_no()
    clash.at_least([(1, y)], 1)
    clash.at_most([(0.4, y)], 0.3)
    for program in (too_long, nowhere, clash):
        solved = solve_program(program, solver)
        assert (solved.values, solved.bound, solved.proven) == (None, math.inf, True)


@pytest.mark.parametrize("solver", BOTH, ids=SOLVER_NAMES)
def test_seconds_that_are_all_zero(solver: Solver) -> None:
    """Where nothing may take any time, the optimum is 0 and a choice that takes time is out."""
    program = LinearProgram()
    y, z, s = program.yes_or_no(), program.yes_or_no(), program.seconds(0.0)
    program.objective = [s]
    program.one_of([y, z])
    program.at_least([(1, s), (-1e6, y)], 0.0)
    solved = solve_program(program, solver)
    assert solved.values is not None
    assert (solved.bound, round(float(solved.values[z]))) == (0.0, 1)


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_time_limit(name: str) -> None:
    """A search cut short says so; its bound holds."""
    rng = np.random.default_rng(0)
    program = LinearProgram()
    longest = program.seconds(1e3)
    program.objective = [longest]
    on = [[program.yes_or_no() for _ in range(7)] for _ in range(200)]
    times = rng.uniform(1, 2, (200, 7))
    for row in on:
        program.one_of(row)
    for machine in range(7):
        program.at_least(
            [(1, longest), *((-float(t[machine]), row[machine]) for t, row in zip(times, on, strict=True))], 0.0
        )
    solved = solve_program(program, Solver(name=name, time_limit_s=0.01, workers=1))  # type: ignore[arg-type]
    assert not solved.proven
    assert 0 <= solved.bound <= times.max(axis=1).sum() / 7


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_gap(name: str) -> None:
    """A gap allowed ends the search early, and the bound is honest: within the gap, not above the optimum."""
    program, _ = by_hand()
    solved = solve_program(program, Solver(name=name, gap=0.5, workers=1))  # type: ignore[arg-type]
    assert solved.values is not None
    assert 0.5 * solved.values[program.objective[0]] <= solved.bound * (1 + 1e-9)
    assert solved.bound <= 7.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "gurobi"}, r"unknown solver 'gurobi'.*cp_sat.*highs"),
        ({"time_limit_s": 0.0}, "time_limit_s of the solver is 0.0; expected > 0"),
        ({"time_limit_s": math.nan}, "time_limit_s of the solver is nan; expected > 0"),
        ({"gap": -0.1}, "gap of the solver is -0.1; expected 0 <= gap < 1"),
        ({"gap": 1.0}, "gap of the solver is 1.0; expected 0 <= gap < 1"),
        ({"workers": 0}, "workers of the solver is 0; expected >= 1"),
    ],
)
def test_impossible_options(options: dict[str, Any], said: str) -> None:
    """Each says what was got and what was expected."""
    with pytest.raises(InvalidOption, match=said):
        Solver(**options)


@pytest.mark.parametrize(("name", "package"), [("cp_sat", "ortools"), ("highs", "highspy")])
def test_missing_package(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package a solver says which one, and the extra that brings it."""
    real = builtins.__import__

    def without(module: str, *arguments: Any, **named: Any) -> Any:
        if module.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {module!r}")
        return real(module, *arguments, **named)

    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    solver = Solver(name=name)  # type: ignore[arg-type]
    for call in (solver.check_installed, lambda: solve_program(LinearProgram(), solver)):
        with pytest.raises(MissingDependency, match=rf"{name} needs the package {package}: pip install .*\[exact\]"):
            call()


def test_solved_is_what_is_said() -> None:
    """A solution found is one: the rows hold for the values that CP-SAT and HiGHS give."""
    for seed in range(30):
        program, _ = random_program(np.random.default_rng(seed))
        scale = max(u for u in program.upper if u is not None)
        for solver in BOTH:
            solved: Solved = solve_program(program, solver)
            if solved.values is None:
                continue
            for row in program.rows:
                size = max(map(abs, row.coefficients))
                assert row_holds(program, row, solved.values.tolist(), 1e-6 * max(scale, min(size, 1e13))), (
                    seed,
                    solver.name,
                )
