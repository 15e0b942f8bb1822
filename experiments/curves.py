"""Learning curves against simulator calls and seconds, with the baselines as horizontal lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.table import Row
from experiments.tracking import CALLS, SECONDS
from placement_gym.files import replacing

Curve = Sequence[Mapping[str, float]]


def draw(curves: Mapping[str, Curve], baselines: Sequence[Row], lower_bound_s: float, title: str) -> Figure:
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
        found = [row for row in baselines if row.status != "infeasible"]
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
