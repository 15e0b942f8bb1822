"""Agreement: how well simulated makespans tell measured ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from placement_gym.arrays import FloatArray

MARKERS = {"baseline": "o", "adversarial": "^", "random": "."}
HEADINGS = ("program", "placements", "ops", "measured (ms)", "MAPE", "bias", "worst", "Pearson", "Spearman", "spread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One placement, simulated and run.

    Attributes:
        program: What was placed.
        graph: Fingerprint of its op graph.
        placement: The placement's name.
        kind: "baseline", "adversarial" or "random".
        op_device: Device of each op.
        simulated_s: Makespan in the simulator.
        measured_s: Makespans of the real runs.
        overhead_s: Median over ops of the time that the engine took beside the kernel, in the median run.
    """

    program: str
    graph: str
    placement: str
    kind: str
    op_device: list[int]
    simulated_s: float
    measured_s: list[float]
    overhead_s: float

    @property
    def median_s(self) -> float:
        """The median of the real runs."""
        return float(np.median(self.measured_s))

    def row(self) -> dict[str, object]:
        """As a JSON row."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Simulated against measured makespans of many placements of one program.

    Attributes:
        mape: Mean of |simulated - measured| / measured.
        bias: Mean of (simulated - measured) / measured: above 0 where the simulator is too slow.
        worst: The largest |simulated - measured| / measured.
        pearson: Linear correlation.
        spearman: Correlation of ranks (ties share their mean rank).
        spread: Mean over placements of the runs' (largest - smallest) / median: what the machine itself varies by.
    """

    mape: float
    bias: float
    worst: float
    pearson: float
    spearman: float
    spread: float

    @classmethod
    def of(cls, executions: Sequence[Execution]) -> "Agreement":
        """Over at least two executions; a correlation without variance is NaN."""
        simulated = np.array([e.simulated_s for e in executions])
        measured = np.array([e.median_s for e in executions])
        error = (simulated - measured) / measured
        spreads = [(max(e.measured_s) - min(e.measured_s)) / e.median_s for e in executions]
        return cls(
            mape=float(np.abs(error).mean()),
            bias=float(error.mean()),
            worst=float(np.abs(error).max()),
            pearson=correlation(simulated, measured),
            spearman=correlation(ranks(simulated), ranks(measured)),
            spread=float(np.mean(spreads)),
        )


def correlation(x: FloatArray, y: FloatArray) -> float:
    """Pearson's coefficient; NaN where one side does not vary."""
    dx, dy = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(dx @ dx) * float(dy @ dy))
    return float(dx @ dy) / norm if norm > 0 else math.nan


def ranks(x: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, count = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    shared: FloatArray = (last - (count - 1) / 2)[group]
    return shared


def line(program: str, n_ops: int, executions: Sequence[Execution]) -> tuple[str, ...]:
    """The line of a program in the table."""
    a = Agreement.of(executions)
    measured = [e.median_s * 1e3 for e in executions]
    return (
        program,
        str(len(executions)),
        str(n_ops),
        f"{min(measured):.1f}-{max(measured):.1f}",
        f"{100 * a.mape:.1f} %",
        f"{100 * a.bias:+.1f} %",
        f"{100 * a.worst:.1f} %",
        f"{a.pearson:.3f}",
        f"{a.spearman:.3f}",
        f"{100 * a.spread:.1f} %",
    )


def draw(programs: Mapping[str, Sequence[Execution]]) -> Figure:
    """Simulated against measured makespans, one panel per program; the line is equality, the band 10 %."""
    columns = min(3, len(programs))
    rows = math.ceil(len(programs) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(programs) :]:
        axis.axis("off")
    for axis, (name, executions) in zip(axes.flat, programs.items(), strict=False):
        for kind, marker in MARKERS.items():
            of_kind = [e for e in executions if e.kind == kind]
            x, y = [e.median_s * 1e3 for e in of_kind], [e.simulated_s * 1e3 for e in of_kind]
            ends = [
                [(e.median_s - min(e.measured_s)) * 1e3 for e in of_kind],
                [(max(e.measured_s) - e.median_s) * 1e3 for e in of_kind],
            ]
            axis.errorbar(x, y, xerr=ends, fmt=marker, label=kind, markersize=5, elinewidth=0.5, alpha=0.8)
        values = [v * 1e3 for e in executions for v in (e.median_s, e.simulated_s)]
        low, high = min(values) * 0.95, max(values) * 1.05
        edges = np.array([low, high])
        axis.plot(edges, edges, color="black", linewidth=0.8)
        axis.fill_between(edges, 0.9 * edges, 1.1 * edges, color="black", alpha=0.08)
        a = Agreement.of(executions)
        axis.set_title(f"{name}: MAPE {100 * a.mape:.1f} %, Spearman {a.spearman:.3f}", fontsize=9)
        axis.set_xlim(low, high)
        axis.set_ylim(low, high)
        axis.set_xlabel("measured makespan (ms)")
        axis.set_ylabel("simulated makespan (ms)")
    axes.flat[0].legend(fontsize="small")
    return figure
