"""Agreement: how well simulated makespans tell measured ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from placement_gym.arrays import FloatArray
from placement_gym.calibration import Run

MARKERS = {"baseline": "o", "adversarial": "^", "random": "."}
HEADINGS = (
    *("program", "costs", "placements", "ops", "mean op (ms)", "measured (ms)"),
    *("MAPE", "bias", "worst", "Pearson", "Spearman", "ceiling", "spread"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One placement, run on real devices.

    Attributes:
        program: What was placed.
        graph: Fingerprint of its op graph.
        placement: The placement's name.
        kind: "baseline", "agent", "adversarial", "random" or "calibration".
        op_device: Device of each op.
        makespans_s: Of the runs that count.
        overheads_s: Of each run, the median over ops of the time that the engine took beside the kernel.
        op_s: Of each run of a calibration, seconds of every op; else empty.
        edge_s: Of each run of a calibration, seconds of the transfer at every edge, None where none is; else empty.
    """

    program: str
    graph: str
    placement: str
    kind: str
    op_device: list[int]
    makespans_s: list[float]
    overheads_s: list[float]
    op_s: list[list[float]]
    edge_s: list[list[float | None]]

    @property
    def median_s(self) -> float:
        """The median of the runs."""
        return float(np.median(self.makespans_s))

    def is_of(self, program: str, graph: str, op_device: list[int]) -> bool:
        """Whether it is of this placement."""
        return (self.program, self.graph, self.op_device) == (program, graph, op_device)

    def runs(self) -> list[Run]:
        """What its runs took, for a calibration."""
        op_device = np.array(self.op_device, dtype=np.int32)
        return [
            Run(op_device, np.array(op_s), np.array(edge_s, dtype=np.float64))
            for op_s, edge_s in zip(self.op_s, self.edge_s, strict=True)
        ]

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
        ceiling: Spearman's correlation that a perfect simulator would have with these runs in the mean, since the
            machine does not repeat itself: the root of the reliability of their medians, which is the correlation of
            ranks between two halves of the runs, stepped up to all of them (Spearman and Brown, 1910); NaN for one run.
        spread: Mean over placements of the runs' (largest - smallest) / median: what the machine itself varies by.
    """

    mape: float
    bias: float
    worst: float
    pearson: float
    spearman: float
    ceiling: float
    spread: float

    @classmethod
    def of(cls, simulated_s: Sequence[float], executions: Sequence[Execution]) -> "Agreement":
        """Over at least two executions, in the same order; a correlation without variance is NaN."""
        simulated = np.array(simulated_s)
        measured = np.array([e.median_s for e in executions])
        error = (simulated - measured) / measured
        spreads = [(max(e.makespans_s) - min(e.makespans_s)) / e.median_s for e in executions]
        return cls(
            mape=float(np.abs(error).mean()),
            bias=float(error.mean()),
            worst=float(np.abs(error).max()),
            pearson=correlation(simulated, measured),
            spearman=correlation(ranks(simulated), ranks(measured)),
            ceiling=ceiling([e.makespans_s for e in executions]),
            spread=float(np.mean(spreads)),
        )


def correlation(x: FloatArray, y: FloatArray) -> float:
    """Pearson's coefficient; NaN where one side does not vary."""
    dx, dy = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(dx @ dx) * float(dy @ dy))
    return float(dx @ dy) / norm if norm > 0 else math.nan


def ceiling(makespans_s: Sequence[Sequence[float]]) -> float:
    """See `Agreement`; the mean over all ways to part the runs into two halves (of an odd number, one is left out).

    Args:
        makespans_s: [n_placements][n_runs].
    """
    runs = np.array(makespans_s)
    half = runs.shape[1] // 2
    if half == 0:
        return math.nan
    everyone = range(2 * half)
    found = []
    for one in combinations(everyone, half):
        other = [k for k in everyone if k not in one]
        halves = (np.median(runs[:, part], axis=1) for part in (list(one), other))
        found.append(correlation(*(ranks(x) for x in halves)))
    reliability = max(0.0, float(np.mean(found)))
    return math.sqrt(2 * reliability / (1 + reliability))


def ranks(x: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, count = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    shared: FloatArray = (last - (count - 1) / 2)[group]
    return shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Placements of one program, run and simulated.

    Attributes:
        program: Its name.
        op_s: Seconds of its ops, as calibrated on the first device.
        executions: The runs.
        simulated_s: Per way of costing ("profiled", "calibrated"), the makespans, in the same order.
    """

    program: str
    op_s: FloatArray
    executions: list[Execution]
    simulated_s: Mapping[str, list[float]]

    def rows(self) -> list[dict[str, object]]:
        """As JSON rows, one per way of costing."""
        runs = min(len(e.makespans_s) for e in self.executions)
        about = {"program": self.program, "placements": len(self.executions), "runs": runs, "n_ops": len(self.op_s)}
        return [
            {**about, "mean_op_s": float(self.op_s.mean()), "costs": costs, **asdict(Agreement.of(s, self.executions))}
            for costs, s in self.simulated_s.items()
        ]

    def lines(self) -> list[tuple[str, ...]]:
        """The lines of the table, one per way of costing."""
        measured = [e.median_s * 1e3 for e in self.executions]
        lines: list[tuple[str, ...]] = []
        for costs, simulated_s in self.simulated_s.items():
            a = Agreement.of(simulated_s, self.executions)
            size = str(len(self.executions)), str(len(self.op_s)), f"{self.op_s.mean() * 1e3:.2f}"
            about = *size, f"{min(measured):.0f}-{max(measured):.0f}"
            errors = f"{100 * a.mape:.1f} %", f"{100 * a.bias:+.1f} %", f"{100 * a.worst:.1f} %"
            correlations = f"{a.pearson:.3f}", f"{a.spearman:.3f}", f"{a.ceiling:.3f}"
            lines.append((self.program, costs, *about, *errors, *correlations, f"{100 * a.spread:.1f} %"))
        return lines


def draw(comparisons: Sequence[Comparison], costs: str) -> Figure:
    """Simulated against measured makespans, one panel per program; the line is equality, the band 10 %.

    Args:
        comparisons: One per program.
        costs: Which way of costing is drawn.
    """
    columns = min(3, len(comparisons))
    rows = math.ceil(len(comparisons) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(comparisons) :]:
        axis.axis("off")
    for axis, one in zip(axes.flat, comparisons, strict=False):
        pairs = list(zip(one.executions, one.simulated_s[costs], strict=True))
        for kind, marker in MARKERS.items():
            of_kind = [(e, s) for e, s in pairs if e.kind == kind]
            x, y = [e.median_s * 1e3 for e, _ in of_kind], [s * 1e3 for _, s in of_kind]
            ends = [
                [(e.median_s - min(e.makespans_s)) * 1e3 for e, _ in of_kind],
                [(max(e.makespans_s) - e.median_s) * 1e3 for e, _ in of_kind],
            ]
            axis.errorbar(x, y, xerr=ends, fmt=marker, label=kind, markersize=5, elinewidth=0.5, alpha=0.8)
        values = [v * 1e3 for e, s in pairs for v in (e.median_s, s)]
        low, high = min(values) * 0.95, max(values) * 1.05
        edges = np.array([low, high])
        axis.plot(edges, edges, color="black", linewidth=0.8)
        axis.fill_between(edges, 0.9 * edges, 1.1 * edges, color="black", alpha=0.08)
        a = Agreement.of(one.simulated_s[costs], one.executions)
        axis.set_title(f"{one.program}: MAPE {100 * a.mape:.1f} %, Spearman {a.spearman:.3f}", fontsize=9)
        axis.set_xlim(low, high)
        axis.set_ylim(low, high)
        axis.set_xlabel("measured makespan (ms)")
        axis.set_ylabel("simulated makespan (ms)")
    axes.flat[0].legend(fontsize="small")
    return figure
