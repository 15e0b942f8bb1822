"""Learning curves against simulator calls and seconds, with the baselines as horizontal lines or as points."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.table import TableRow
from experiments.tracking import CALLS, SECONDS
from placement_gym.arrays import FloatArray
from placement_gym.files import replacing

Curve = Sequence[Mapping[str, float]]
MARKERS = "osD^vPX*<>"


@dataclass(frozen=True, slots=True)
class Panel:
    """One workload of a study.

    Attributes:
        title: Its name.
        curves: Learning curves of each learner, one per seed; their rows are those of `metrics.jsonl`.
        points: Results of each other method, joined by a line: one list per budget, in it one result per seed.
        lower_bound_s: No placement is faster.
    """

    title: str
    curves: Mapping[str, Sequence[Curve]]
    points: Mapping[str, Sequence[Sequence[TableRow]]]
    lower_bound_s: float


def best_by_calls(curves: Sequence[Curve]) -> tuple[FloatArray, FloatArray]:
    """The best makespan after so many simulator calls, of each curve at the calls of all of them.

    Returns:
        Calls, float64 [n], from where every curve has found something; makespans in seconds, float64 [n_curves, n].
    """
    steps = []
    for curve in curves:
        found = [(row[CALLS], row["train/best_makespan_s"]) for row in curve if "train/best_makespan_s" in row]
        steps.append(np.array(found, dtype=np.float64).reshape(-1, 2))
    steps = [step for step in steps if len(step)]
    if not steps:
        return np.empty(0), np.empty((0, 0))
    calls = np.unique(np.concatenate([step[:, 0] for step in steps]))
    calls = calls[calls >= max(step[0, 0] for step in steps)]
    best = [step[np.searchsorted(step[:, 0], calls, side="right") - 1, 1] for step in steps]
    return calls, np.stack(best)


def draw_samples(panels: Sequence[Panel], scale_s: float, unit: str) -> Figure:
    """Best found so far against simulator calls: mean over seeds and a band from least to most; others as points."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.5 * columns, 4.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(name for panel in panels for name in (*panel.curves, *panel.points)))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        for name, curves in panel.curves.items():
            _draw_band(axis, name, curves, scale_s, f"C{names.index(name) % 10}")
        for name, results in panel.points.items():
            _draw_points(axis, name, results, scale_s, names.index(name))
        axis.axhline(panel.lower_bound_s / scale_s, color="black", linestyle=":", linewidth=1, label="lower bound")
        axis.set_title(panel.title)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.yaxis.set_minor_formatter("{x:,g}")
        axis.set_xlabel("simulator calls")
        axis.set_ylabel(f"best found ({unit})")
        axis.grid(alpha=0.25)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    labels = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="outside right upper", fontsize="small")
    return figure


def _draw_band(axis: Axes, name: str, curves: Sequence[Curve], scale_s: float, colour: str) -> None:
    calls, best_s = best_by_calls(curves)
    if not calls.size:
        return
    best = best_s / scale_s
    axis.plot(calls, best.mean(axis=0), color=colour, label=name, drawstyle="steps-post")
    axis.fill_between(calls, best.min(axis=0), best.max(axis=0), color=colour, alpha=0.2, step="post", linewidth=0)


def _draw_points(axis: Axes, name: str, results: Sequence[Sequence[TableRow]], scale_s: float, i: int) -> None:
    """Mean of each budget, with bars from least to most."""
    by_calls = sorted(results, key=lambda rows: sum(row.simulator_calls for row in rows) / len(rows))
    calls = [max(1.0, sum(row.simulator_calls for row in rows) / len(rows)) for rows in by_calls]
    values = [np.array([row.objective_s / scale_s for row in rows]) for rows in by_calls]
    means = np.array([value.mean() for value in values])
    bars = np.array([(value.mean() - value.min(), value.max() - value.mean()) for value in values]).T
    marker = MARKERS[i % len(MARKERS)]
    axis.errorbar(calls, means, yerr=bars, fmt=f"{marker}--", color=f"C{i % 10}", label=name, capsize=3, linewidth=1)


def draw(curves: Mapping[str, Curve], baselines: Sequence[TableRow], lower_bound_s: float, title: str) -> Figure:
    """One panel per clock; one line per entry of `curves`, whose rows are those of `metrics.jsonl`."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(title)
    FigureCanvasAgg(figure)
    for axis, clock in zip(figure.subplots(1, 2, sharey=True), (CALLS, SECONDS), strict=True):
        for name, curve in curves.items():
            shown = [row for row in curve if "train/best_makespan_s" in row]
            x = [row[clock] for row in shown]
            (line,) = axis.plot(x, [row["train/best_makespan_s"] * 1e3 for row in shown], label=name, linewidth=2)
            means = [
                (row[clock], row["train/makespan_mean_s"] * 1e3) for row in shown if "train/makespan_mean_s" in row
            ]
            if means:
                axis.plot(
                    *zip(*means, strict=True), color=line.get_color(), alpha=0.3, label=f"{name}, mean of an update"
                )
        found = [row for row in baselines if math.isfinite(row.objective_s)]
        for i, row in enumerate(sorted(found, key=lambda row: row.objective_s)):
            axis.axhline(
                row.objective_s * 1e3, color=f"C{(i + len(curves)) % 10}", linestyle="--", linewidth=1, label=row.method
            )
        axis.axhline(lower_bound_s * 1e3, color="black", linestyle=":", linewidth=1, label="lower bound")
        axis.set_xlabel({CALLS: "simulator calls", SECONDS: "seconds"}[clock])
    figure.axes[0].set_ylabel("makespan (ms)")
    figure.axes[0].set_yscale("log")
    # Both panels share the axis; plain numbers instead of powers of ten.
    figure.axes[0].yaxis.set_major_formatter("{x:g}")
    figure.axes[0].yaxis.set_minor_formatter("{x:g}")
    figure.axes[1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def save_png(figure: Figure, path: Path) -> Path:
    """Writes the figure by way of a temporary file."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
