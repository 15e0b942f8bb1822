"""Standings: the outcomes of a study by workload and method; tables, sentences and what its curves are drawn from."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich.markup import escape
from rich.table import Table

from experiments.curves import Panel
from experiments.report import mean_and_spread
from experiments.table import TableRow, markdown, terminal
from experiments.tracking import read_metrics
from experiments.trial import Outcome, Trial

UNITS = {"s": 1.0, "ms": 1e-3}
# Means of the same value, added up in another order.
EQUAL = 1e-9
# Shares are said in tenths of a percent: 0.0 % is no difference.
AS_GOOD = 5e-4


@dataclass(frozen=True, slots=True)
class Cell:
    """What one method's seeds found on one workload.

    Attributes:
        values_s: Makespans of those that found a placement, seconds.
        n: Of all seeds.
        status: Why there is no value, where there is none.
    """

    values_s: tuple[float, ...]
    n: int
    status: str

    @property
    def mean_s(self) -> float:
        """`inf` where nothing was found."""
        return mean_and_spread(self.values_s)[0] if self.values_s else math.inf

    @property
    def spread_s(self) -> float:
        """Sample standard deviation, 0 of one value."""
        return mean_and_spread(self.values_s)[1] if self.values_s else 0.0


@dataclass(frozen=True, slots=True)
class Standings:
    """The outcomes of a study, makespans all of them.

    Attributes:
        methods: Their names, in the order of the tables' lines.
        outcomes: Of each (workload, method), one per seed; absent where a method was not tried.
        bounds_s: Lower bound of each workload, seconds; the order is that of the tables' columns.
        compared: The method that the sentences compare with the others, None for none.
        unit: Of makespans in tables, one of UNITS.
    """

    methods: tuple[str, ...]
    outcomes: Mapping[tuple[str, str], Sequence[Outcome]]
    bounds_s: Mapping[str, float]
    compared: str | None
    unit: str

    @classmethod
    def of(
        cls,
        outcomes: Sequence[tuple[Trial, Outcome]],
        methods: Sequence[str],
        bounds_s: Mapping[str, float],
        compared: str | None,
        unit: str,
    ) -> Self:
        """The outcomes gathered; where no method is `compared`, it is the first learner."""
        gathered: dict[tuple[str, str], list[Outcome]] = {}
        for trial, outcome in outcomes:
            gathered.setdefault((trial.workload, trial.method), []).append(outcome)
        learners = {trial.method for trial, _ in outcomes if trial.learns}
        first = next((method for method in methods if method in learners), None)
        return cls(tuple(methods), gathered, bounds_s, compared or first, unit)

    def found(self, workload: str, method: str) -> list[Outcome]:
        """The outcomes of the seeds that found a placement."""
        outcomes = self.outcomes.get((workload, method), ())
        return [outcome for outcome in outcomes if math.isfinite(outcome.best.objective_s)]

    def cell(self, workload: str, method: str, *, greedy: bool = False) -> Cell:
        """The best found, or the greedy placements."""
        outcomes = self.outcomes.get((workload, method), ())
        rows = [outcome.greedy if greedy else outcome.best for outcome in self.found(workload, method)]
        values = tuple(row.objective_s for row in rows if row is not None)
        # A learner that has found a placement has a greedy one, if only one that does not fit.
        status = "infeasible" if greedy and rows else outcomes[0].best.status if outcomes else "-"
        return Cell(values, len(outcomes), status)

    def calls(self, workload: str, method: str) -> float:
        """Mean simulator calls of the seeds that found a placement, 0 if none did."""
        calls = [outcome.best.simulator_calls for outcome in self.found(workload, method)]
        return math.fsum(calls) / len(calls) if calls else 0.0

    def number(self, seconds: float, like_s: float | None = None) -> str:
        """As `number_in`, in the unit."""
        return number_in(self.unit, seconds, like_s)

    def said(self, cell: Cell) -> str:
        """Mean and spread; how many seeds found something, if not all."""
        if not cell.values_s:
            return cell.status
        spread = f" ± {self.number(cell.spread_s, cell.mean_s)}" if len(cell.values_s) > 1 else ""
        some = f" [{len(cell.values_s)} of {cell.n}]" if len(cell.values_s) < cell.n else ""
        return f"{self.number(cell.mean_s)}{spread}{some}"


def number_in(unit: str, seconds: float, like_s: float | None = None) -> str:
    """Seconds in a unit with five significant digits, or with the decimals that `like_s` has."""
    value, like = (x / UNITS[unit] for x in (seconds, seconds if like_s is None else like_s))
    decimals = 2 if like <= 0 else max(0, 4 - math.floor(math.log10(like)))
    return f"{value:,.{decimals}f}"


# Lines of a table.
Lines = list[tuple[str, ...]]


def _makespans(standings: Standings, marked: Callable[[str], str], *, greedy: bool) -> Lines:
    """Mean, spread and least per method and workload, lower bound last; `marked` is the least mean of its column."""
    workloads = list(standings.bounds_s)
    cells = {
        method: {workload: standings.cell(workload, method, greedy=greedy) for workload in workloads}
        for method in standings.methods
    }
    if greedy:
        cells = {method: row for method, row in cells.items() if any(cell.values_s for cell in row.values())}
    best = {w: min((column[w].mean_s for column in cells.values()), default=math.inf) for w in workloads}
    lines: Lines = []
    for method, row in cells.items():
        texts = []
        for workload, cell in row.items():
            text = standings.said(cell)
            if len(cell.values_s) > 1:
                text += f" ({standings.number(min(cell.values_s), cell.mean_s)})"
            is_best = bool(cell.values_s) and cell.mean_s <= best[workload] * (1 + EQUAL)
            texts.append(marked(text) if is_best else text)
        lines.append((method, *texts))
    return [*lines, ("(lower bound)", *(standings.number(bound) for bound in standings.bounds_s.values()))]


def _means(standings: Standings, value: Callable[[Outcome], float], form: str) -> Lines:
    """Means over the seeds per method and workload; methods whose values are all 0 are left out."""
    lines: Lines = []
    for method in standings.methods:
        columns = [[value(o) for o in standings.found(workload, method)] for workload in standings.bounds_s]
        if any(map(any, columns)):
            lines.append((method, *(format(math.fsum(c) / len(c), form) if c else "" for c in columns)))
    return lines


def _tables(standings: Standings, marked: Callable[[str], str]) -> dict[str, Lines]:
    """Lines by title."""
    unit = standings.unit
    return {
        f"Best found ({unit}): mean ± standard deviation over seeds (least)": _makespans(
            standings, marked, greedy=False
        ),
        f"Greedy placement after training ({unit})": _makespans(standings, marked, greedy=True),
        "Simulator calls (mean)": _means(standings, lambda o: o.best.simulator_calls, ",.0f"),
        "Milliseconds per episode, learning included (mean)": _means(
            standings, lambda o: 1e3 * o.best.seconds / o.episodes if o.episodes else 0.0, ".2f"
        ),
        "Seconds in all (mean)": _means(standings, lambda o: o.best.seconds, ",.2f"),
    }


def on_terminal(standings: Standings) -> list[Table]:
    """The tables for the terminal."""
    tables = _tables(standings, lambda text: f"[bold]{text}[/bold]")
    return [
        terminal(title, ("method", *map(escape, standings.bounds_s)), lines)
        for title, lines in tables.items()
        if len(lines) > 1 or title.startswith("Best")
    ]


def as_markdown(standings: Standings) -> str:
    """The tables and the sentences."""
    tables = _tables(standings, lambda text: f"**{text}**")
    parts = [
        f"## {title}\n\n{markdown(('method', *standings.bounds_s), lines)}" for title, lines in tables.items() if lines
    ]
    said = sentences(standings)
    return "\n".join([*parts, *(["## In words", "", *(f"- {sentence}" for sentence in said), ""] if said else [])])


def sentences(standings: Standings) -> list[str]:
    """One sentence per workload: which methods `compared` is better than, worse than, or not told apart from."""
    compared = standings.compared
    if compared is None:
        return []
    said = []
    for workload in standings.bounds_s:
        own = standings.cell(workload, compared)
        if not own.values_s:
            said.append(f"{workload}: {compared} has found nothing ({own.status}).")
            continue
        groups: dict[str, list[str]] = {}
        for method in standings.methods:
            other = standings.cell(workload, method)
            if method != compared and other.values_s:
                groups.setdefault(relation(own, other), []).append(_against(standings, workload, method))
        parts = [f"{how} {', '.join(groups[how])}" for how in RELATIONS if how in groups]
        calls = f"{standings.calls(workload, compared):,.0f} calls, {_seeds(own)}"
        said.append(f"{workload}: {compared} ({standings.said(own)}; {calls}) is {'; '.join(parts) or 'alone'}.")
    return said


RELATIONS = ("better than", "as good as", "worse than", "not told apart from")


def relation(own: Cell, other: Cell) -> str:
    """How the means compare; two that differ by less than twice the standard error are not told apart."""
    if abs(own.mean_s - other.mean_s) <= AS_GOOD * own.mean_s:
        return "as good as"
    error_s = math.hypot(*(cell.spread_s / math.sqrt(len(cell.values_s)) for cell in (own, other)))
    if abs(own.mean_s - other.mean_s) < 2 * error_s:
        return "not told apart from"
    return "better than" if own.mean_s < other.mean_s else "worse than"


def _against(standings: Standings, workload: str, method: str) -> str:
    """Another method with its mean, how much longer or shorter it takes, and its calls where they are not the same."""
    assert standings.compared is not None
    own, other = standings.cell(workload, standings.compared), standings.cell(workload, method)
    notes = [standings.said(other)]
    if abs(other.mean_s - own.mean_s) > AS_GOOD * own.mean_s > 0:
        notes.append(f"{100 * (other.mean_s / own.mean_s - 1):+.1f} %")
    mine, theirs = standings.calls(workload, standings.compared), standings.calls(workload, method)
    if abs(mine - theirs) > 0.02 * mine:
        notes.append(f"{theirs:,.0f} {'call' if theirs == 1 else 'calls'}")
    return f"{method} ({', '.join(notes)})"


def _seeds(cell: Cell) -> str:
    return f"{cell.n} {'seed' if cell.n == 1 else 'seeds'}"


def panels(
    outcomes: Sequence[tuple[Trial, Outcome]], bounds_s: Mapping[str, float], like: Mapping[str, str]
) -> list[Panel]:
    """What the curves of sample efficiency are drawn from, one panel per workload.

    Args:
        outcomes: All of the study.
        bounds_s: Lower bound of each workload, seconds.
        like: For each method the one whose points it is joined with, as a search with another budget; or itself.
    """
    found = []
    for workload, bound in bounds_s.items():
        curves: dict[str, list[list[dict[str, float]]]] = {}
        points: dict[str, dict[str, list[TableRow]]] = {}
        for trial, outcome in outcomes:
            if trial.workload != workload or not math.isfinite(outcome.best.objective_s):
                continue
            if trial.learns:
                curves.setdefault(trial.method, []).append(read_metrics(trial.folder.metrics))
            else:
                points.setdefault(like[trial.method], {}).setdefault(trial.method, []).append(outcome.best)
        joined = {name: list(results.values()) for name, results in points.items()}
        found.append(Panel(workload, curves, joined, bound))
    return found
