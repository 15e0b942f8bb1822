"""Measured times: medians, and the line through copies."""

import numpy as np
import pytest
from executable import AT, timing
from hypothesis import given
from hypothesis import strategies as st

from placement_gym.costs.timing import CopyLine, CopyPoint, CopyTimes, KernelTime, Timing
from placement_gym.errors import InvalidProblem

SIZES = np.array([4096.0 * 4**i for i in range(7)])


def test_a_timing_is_median_and_interquartile_range_over_it() -> None:
    """One outlier moves neither."""
    assert Timing.of([1.0, 2.0, 3.0, 4.0, 100.0]) == Timing(3.0, 2 / 3)


def test_a_timing_of_no_time_is_refused() -> None:
    """The message shows the number."""
    with pytest.raises(InvalidProblem, match=r"0\.0; expected seconds > 0"):
        Timing(0.0, 0.0)


def test_the_load_chooses_between_two_medians() -> None:
    """The mean lies halfway; another word lists the known ones."""
    time = KernelTime(timing(1.0), timing(2.0), AT)
    assert (time.seconds("alone"), time.seconds("mean"), time.seconds("loaded")) == (1.0, 1.5, 2.0)
    with pytest.raises(InvalidProblem, match="'heavy'; known: alone, loaded, mean"):
        time.seconds("heavy")  # type: ignore[arg-type]


@given(st.floats(1e-7, 1e-3), st.floats(1e8, 1e12))
def test_the_fit_finds_the_line_that_made_the_points(latency_s: float, bytes_per_s: float) -> None:
    """Latency and bandwidth, wherever the sizes show both."""
    line = CopyLine.fit(SIZES, latency_s + SIZES / bytes_per_s)
    assert line.worst_error < 1e-9
    # What is far below every measured time is known only as precisely as those are.
    assert line.latency_s == pytest.approx(latency_s, rel=1e-6, abs=1e-9 * SIZES[0] / bytes_per_s)
    assert SIZES[-1] / line.bytes_per_s == pytest.approx(SIZES[-1] / bytes_per_s, rel=1e-6, abs=1e-9 * latency_s)


def test_the_fit_minimises_relative_errors() -> None:
    """No line nearby has a smaller sum of their squares, and the worst one is told."""
    seconds = (1e-5 + SIZES / 1e9) * np.array([1.1, 0.9, 1.2, 1.0, 0.8, 1.1, 0.9])

    def errors(latency_s: float, slope: float) -> np.ndarray:
        return (latency_s + slope * SIZES) / seconds - 1

    line = CopyLine.fit(SIZES, seconds)
    best = np.sum(errors(line.latency_s, 1 / line.bytes_per_s) ** 2)
    for factor in (0.99, 1.01):
        assert np.sum(errors(line.latency_s * factor, 1 / line.bytes_per_s) ** 2) > best
        assert np.sum(errors(line.latency_s, factor / line.bytes_per_s) ** 2) > best
    assert line.worst_error == pytest.approx(np.abs(errors(line.latency_s, 1 / line.bytes_per_s)).max())


@pytest.mark.parametrize(
    ("seconds", "latency_s", "bytes_per_s"),
    [([1.0, 4.0], 0.0, 1 / 1.2), ([4.0, 2.0], 2.4, float("inf"))],
    ids=["superlinear", "falling"],
)
def test_the_fit_is_never_negative(seconds: list[float], latency_s: float, bytes_per_s: float) -> None:
    """The best line without latency, or without slope: least squares of one unknown, worked by hand."""
    line = CopyLine.fit([1.0, 2.0], seconds)
    assert line.latency_s == pytest.approx(latency_s)
    assert line.bytes_per_s == pytest.approx(bytes_per_s)


def test_copies_of_one_size_make_no_line() -> None:
    """Two are needed."""
    with pytest.raises(InvalidProblem, match="expected at least two"):
        CopyTimes((CopyPoint(1e3, timing(1.0), timing(1.0)),), AT)
