"""Measured times: of kernels and of copies, alone and beside busy workers."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.errors import InvalidProblem, unknown_name

Load = Literal["alone", "loaded", "mean"]
LOADS: tuple[str, ...] = get_args(Load)


def at_load(alone: float, loaded: float, load: Load) -> float:
    """The one that `load` says, or their mean.

    Raises:
        InvalidProblem: An unknown load.
    """
    if load not in LOADS:
        raise InvalidProblem(unknown_name("load", load, LOADS))
    return {"alone": alone, "loaded": loaded, "mean": (alone + loaded) / 2}[load]


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated measurements of one thing.

    Attributes:
        median_s: Their median.
        spread: Interquartile range / median.

    Raises:
        InvalidProblem: A median that is not > 0.
    """

    median_s: float
    spread: float

    def __post_init__(self) -> None:
        if not 0 < self.median_s < float("inf"):
            raise InvalidProblem(f"a measured median is {self.median_s}; expected seconds > 0")

    @classmethod
    def of(cls, seconds: ArrayLike) -> "Timing":
        """Median and spread of measured seconds."""
        low, median, high = (float(x) for x in np.percentile(np.asarray(seconds, dtype=np.float64), (25, 50, 75)))
        return cls(median, (high - low) / median)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """How long one kernel takes on one model of device.

    Attributes:
        alone: The other devices idle.
        loaded: All devices of the model running the kernel at once, as they share memory and cache.
        measured_at: UTC, ISO 8601: of two measurements the later one counts.
    """

    alone: Timing
    loaded: Timing
    measured_at: str

    def seconds(self, load: Load) -> float:
        """The median under that load; "mean" lies halfway."""
        return at_load(self.alone.median_s, self.loaded.median_s, load)


@dataclass(frozen=True, slots=True)
class CopyPoint:
    """How long copies of one size take: with the workers idle, and with all of them computing."""

    n_bytes: float
    alone: Timing
    loaded: Timing


@dataclass(frozen=True, slots=True)
class CopyLine:
    """seconds = latency_s + bytes / bytes_per_s, fitted to measured copies.

    Attributes:
        latency_s: Not negative.
        bytes_per_s: `inf` where larger copies take no longer.
        worst_error: Largest relative error of the fit.
    """

    latency_s: float
    bytes_per_s: float
    worst_error: float

    @classmethod
    def fit(cls, n_bytes: ArrayLike, seconds: ArrayLike) -> "CopyLine":
        """The line with the least sum of squared relative errors, so that small copies count as much as large ones.

        Args:
            n_bytes: [n], at least two sizes.
            seconds: [n], medians, > 0.
        """
        size, time = np.asarray(n_bytes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
        columns = np.stack([1 / time, size / time], axis=1)
        scale = np.linalg.norm(columns, axis=0)
        latency, slope = np.linalg.lstsq(columns / scale, np.ones(len(time)), rcond=None)[0] / scale
        # With one of the two at its bound of 0, the other is the projection on its own column.
        alone = columns.sum(axis=0) / scale**2
        if latency < 0:
            latency, slope = 0.0, alone[1]
        elif slope < 0:
            latency, slope = alone[0], 0.0
        error = np.abs(columns @ np.array([latency, slope]) - 1).max()
        return cls(float(latency), float(1 / slope) if slope > 0 else float("inf"), float(error))


@dataclass(frozen=True, slots=True)
class CopyTimes:
    """Copies from one model of device to another.

    Attributes:
        points: One per size.
        measured_at: As in `KernelTime`.

    Raises:
        InvalidProblem: Less than two sizes.
    """

    points: tuple[CopyPoint, ...]
    measured_at: str

    def __post_init__(self) -> None:
        if len({point.n_bytes for point in self.points}) < 2:
            raise InvalidProblem(f"copies of {len(self.points)} sizes were measured; expected at least two")

    def line(self, load: Load) -> CopyLine:
        """The line through the medians under that load."""
        seconds = [at_load(p.alone.median_s, p.loaded.median_s, load) for p in self.points]
        return CopyLine.fit([p.n_bytes for p in self.points], seconds)
