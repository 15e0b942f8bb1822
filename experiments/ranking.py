"""Ranking: methods by the measured makespans of their placements, and which differences are above the noise."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from experiments.agreement import Execution
from experiments.table import number
from placement_gym.arrays import FloatArray
from placement_gym.pytorch.measured_makespan import wins_needed

HEADINGS = (
    *("method", "measured (ms)", "seeds (ms)", "quartiles (ms)", "ratio to best", "simulated (ms)"),
    *("simulator calls", "measured calls"),
)
# How likely a sentence may tell a difference where there is none.
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A placement that a method found.

    Attributes:
        method: Its name.
        seed: With which it ran.
        is_baseline: Whether it is a solver's, and not the agent's.
        op_device: Device of each op.
        simulated_s: Its simulated makespan.
        simulator_calls: Placements simulated to find it.
        measured_calls: Placements measured to find it.
        seconds: Wall-clock seconds to find it.
    """

    method: str
    seed: int
    is_baseline: bool
    op_device: list[int]
    simulated_s: float
    simulator_calls: int
    measured_calls: int
    seconds: float

    def row(self) -> dict[str, object]:
        """As a JSON row."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one method found with each seed, and how long it took to run.

    Attributes:
        found: One placement per seed.
        makespans_s: float64 [seeds, passes].
    """

    found: Sequence[Ranked]
    makespans_s: FloatArray

    @property
    def method(self) -> str:
        """The method's name."""
        return self.found[0].method

    @property
    def medians_s(self) -> FloatArray:
        """float64 [seeds], medians over passes."""
        medians_s: FloatArray = np.median(self.makespans_s, axis=1)
        return medians_s

    def line(self, best_s: float) -> tuple[str, ...]:
        """Its line of the table; numbers are means over seeds, of medians and quartiles over passes."""
        median_s = float(self.medians_s.mean())
        low_s, high_s = np.quantile(self.makespans_s, [0.25, 0.75], axis=1).mean(axis=1)
        return (
            self.method,
            number(median_s * 1e3),
            _range_ms(self.medians_s.min(), self.medians_s.max()) if len(self.found) > 1 else "",
            _range_ms(low_s, high_s),
            f"{median_s / best_s:.3f}",
            number(float(np.mean([one.simulated_s for one in self.found])) * 1e3),
            f"{np.mean([one.simulator_calls for one in self.found]):,.0f}",
            f"{np.mean([one.measured_calls for one in self.found]):,.0f}",
        )

    def against(self, other: "Measured") -> str:
        """One sentence on whether this method is faster than another.

        In each pass, in which all placements ran within seconds of each other, the means over seeds are compared; the
        difference is above the noise if a sign test over passes says so.
        """
        ratios = self.makespans_s.mean(axis=0) / other.makespans_s.mean(axis=0)
        n, faster, slower = len(ratios), int((ratios < 1).sum()), int((ratios > 1).sum())
        share = 100 * (float(np.median(ratios)) - 1)
        by_seed = np.median(self.makespans_s / other.makespans_s, axis=1)
        seeds = ", ".join(f"{100 * (ratio - 1):+.1f} %" for ratio in by_seed.tolist())
        if not faster and not slower:
            return f"{self.method} found the same placements as {other.method}."
        if faster >= wins_needed(n, LEVEL):
            how = f"takes {-share:.1f} % less than {other.method}, in {faster} of {n} passes"
        elif slower >= wins_needed(n, LEVEL):
            how = f"takes {share:.1f} % more than {other.method}, in {slower} of {n} passes"
        else:
            how = f"takes {share:+.1f} % against {other.method}, within the noise: less in {faster} of {n} passes"
        return f"{self.method} {how} (by seed {seeds})."


def _range_ms(low_s: float, high_s: float) -> str:
    return f"{number(low_s * 1e3)}-{number(high_s * 1e3)}"


def measured_methods(found: Sequence[Ranked], executions: Sequence[Execution]) -> list[Measured]:
    """What every method found, with its runs, the fastest method first."""
    makespans_s: Mapping[tuple[int, ...], list[float]] = {tuple(e.op_device): e.makespans_s for e in executions}
    by_method: dict[str, list[Ranked]] = {}
    for one in found:
        by_method.setdefault(one.method, []).append(one)
    methods = [
        Measured(rows, np.array([makespans_s[tuple(one.op_device)] for one in rows])) for rows in by_method.values()
    ]
    return sorted(methods, key=lambda method: float(method.medians_s.mean()))


def lines(methods: Sequence[Measured]) -> list[tuple[str, ...]]:
    """The lines of the table."""
    best_s = float(methods[0].medians_s.mean())
    return [method.line(best_s) for method in methods]


def sentences(methods: Sequence[Measured], name: str) -> list[str]:
    """How the method `name` does against every other one."""
    own = next(method for method in methods if method.method == name)
    return [own.against(other) for other in methods if other is not own]
