"""Grid: the results of many methods on many instances; its tables and its picture."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from experiments.table import TableRow, gap, markdown, terminal
from placement_gym.objectives import Objective

MARKERS = "oDs^vPX*<>"
TICKS = (1, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 3, 4, 5, 7, 10, 20, 50, 100, 1000, 10_000)


@dataclass(frozen=True, slots=True)
class TrialGrid:
    """Results of every method on every instance.

    Attributes:
        instances: Names of the instances, in the order of the tables' lines.
        methods: Names of the methods, in the order of the columns.
        rows: Result of each (instance, method); `objective_s` is `inf` where there is none, and `status` says why.
    """

    instances: tuple[str, ...]
    methods: tuple[str, ...]
    rows: Mapping[tuple[str, str], TableRow]

    def objective_methods(self) -> dict[Objective, list[str]]:
        """The methods of each objective; those that found nothing anywhere go with the first that found something."""
        found: dict[str, Objective] = {}
        for (_, method), row in self.rows.items():
            if math.isfinite(row.objective_s):
                found.setdefault(method, row.objective)
        groups: dict[Objective, list[str]] = {}
        first: Objective = next((found[method] for method in self.methods if method in found), "makespan")
        for method in self.methods:
            groups.setdefault(found.get(method, first), []).append(method)
        return groups

    def best_s(self, instance: str, methods: Sequence[str]) -> float:
        """The least value of these methods on an instance, `inf` if none found anything."""
        return min(self.rows[instance, method].objective_s for method in methods)

    def labels(self) -> dict[str, str]:
        """Names of the instances without the folders that all of them lie in."""
        parents = [os.path.dirname(name) for name in self.instances]
        common = os.path.commonpath(parents) if all(parents) else ""
        return {name: os.path.relpath(name, common) if common else name for name in self.instances}

    def lines(self, methods: Sequence[str], cell: Callable[[TableRow], str]) -> list[tuple[str, ...]]:
        """One line per instance, one cell per method."""
        labels = self.labels()
        return [(labels[name], *(cell(self.rows[name, method]) for method in methods)) for name in self.instances]

    def values(self, methods: Sequence[str], marked: Callable[[str, bool, str], str]) -> list[tuple[str, ...]]:
        """The values in ms or why there is none, written by `marked(text, is the line's best, mark)`.

        The mark is "*" for an optimum of all placements, "+" for one of the kind that the method searched.
        """
        lines = []
        for name, label in self.labels().items():
            # Two methods may add up the same loads in another order.
            best = self.best_s(name, methods) * (1 + 1e-9)
            rows = [self.rows[name, method] for method in methods]
            cells = (marked(value_ms(row), row.objective_s <= best and math.isfinite(best), _mark(row)) for row in rows)
            lines.append((label, *cells))
        return lines


def _mark(row: TableRow) -> str:
    if row.status != "optimal":
        return " "
    return "*" if row.restricted_to is None else "+"


def value_ms(row: TableRow) -> str:
    """The value in ms, or why there is none."""
    return f"{row.objective_s * 1e3:,.4f}" if math.isfinite(row.objective_s) else row.status


def on_terminal(grid: TrialGrid) -> list[Table]:
    """The values by each objective, for the terminal."""

    def marked(text: str, is_best: bool, mark: str) -> str:
        return f"{f'[bold]{text}[/bold]' if is_best else text}{mark}"

    tables = []
    for objective, methods in grid.objective_methods().items():
        lines = [(escape(label), *cells) for label, *cells in grid.values(methods, marked)]
        title = (
            f"{_readable(objective)} (ms; * optimal, + optimal among the kind of placements that the method searched)"
        )
        tables.append(terminal(title, _headings(methods), lines))
    return tables


def as_markdown(grid: TrialGrid) -> str:
    """The values, the seconds and the gaps by each objective."""
    text = []
    for objective, methods in grid.objective_methods().items():
        values = grid.values(methods, lambda value, is_best, _: f"**{value}**" if is_best else value)
        seconds = grid.lines(methods, lambda row: f"{row.seconds:,.2f}" if math.isfinite(row.objective_s) else "")
        gaps = grid.lines(methods, _gap)
        for title, lines in (
            (f"{_readable(objective)} (ms)", values),
            (f"Seconds to find it ({_readable(objective)})", seconds),
            (f"Gap to what the method has proved, in percent ({_readable(objective)})", gaps),
        ):
            text.append(f"## {title}\n\n{markdown(_headings(methods), lines)}")
    return "\n".join(text)


def _gap(row: TableRow) -> str:
    """The gap in percent, and the kind of placements that it is about where that is not all."""
    percent = gap(row).removesuffix(" %")
    return f"{percent} ({row.restricted_to})" if percent and row.restricted_to else percent


def _headings(methods: Sequence[str]) -> tuple[str, ...]:
    """Of words, so that a column of the terminal is no wider than its values."""
    return ("instance", *(method.replace("_", " ") for method in methods))


def _readable(objective: Objective) -> str:
    return objective.replace("_", "-")


def draw_ratios(grid: TrialGrid) -> Figure:
    """One panel per objective: a line per instance, a dot per method at its ratio to the best value there."""
    # One method alone is always the best.
    groups = {key: methods for key, methods in grid.objective_methods().items() if len(methods) > 1}
    groups, labels = groups or grid.objective_methods(), list(grid.labels().values())
    figure = Figure(figsize=(10, (1.2 + 0.38 * len(labels)) * len(groups) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axis, (objective, methods) in zip(panels, groups.items(), strict=True):
        highest = max(_draw_method(axis, grid, methods, i) for i in range(len(methods)))
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.set_xscale("log")
        axis.set_xlim(0.98, max(1.1, highest * 1.05))
        axis.set_xticks(_ticks(max(1.1, highest)))
        axis.set_xticks([], minor=True)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.25)
        axis.set_xlabel(f"{_readable(objective)} over the best found (log)")
        axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _ticks(highest: float) -> list[float]:
    """Round ratios up to the highest one, far enough apart to be read on a logarithmic axis."""
    chosen = [1.0]
    for tick in TICKS:
        if tick <= highest and math.log(tick / chosen[-1]) >= math.log(highest) / 14:
            chosen.append(float(tick))
    return chosen


def _draw_method(axis: Axes, grid: TrialGrid, methods: Sequence[str], i: int) -> float:
    """The dots of the i-th method; returns its largest ratio, 1 if it has none."""
    # Dots of equal ratio would hide each other.
    shift = 0.7 * ((i + 0.5) / len(methods) - 0.5)
    heights, ratios = [], []
    for line, name in enumerate(grid.instances):
        value, best = grid.rows[name, methods[i]].objective_s, grid.best_s(name, methods)
        if math.isfinite(value):
            heights.append(line + shift)
            ratios.append(value / best if best > 0 else 1.0)
    marker = MARKERS[i % len(MARKERS)]
    axis.plot(ratios, heights, marker, label=methods[i], markersize=6, alpha=0.85, color=f"C{i % 10}")
    return max(ratios, default=1.0)
