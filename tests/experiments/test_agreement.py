"""Agreement of simulated and measured makespans."""

import math

import numpy as np
import pytest

from experiments.agreement import Agreement, Comparison, Execution, ceiling, correlation, draw, ranks


def test_ceiling_by_hand() -> None:
    """1 where the runs repeat each other's order; 0 where the two orders are opposite; between, Spearman and Brown."""
    assert ceiling([[1.0, 1.1], [2.0, 2.2], [3.0, 3.3]]) == 1.0
    assert ceiling([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]) == 0.0
    # Ranks 1, 2, 3 against 1, 3, 2: a correlation of 0.5, so a reliability of 2/3 of both together.
    assert ceiling([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]]) == pytest.approx(math.sqrt(2 / 3))
    assert math.isnan(ceiling([[1.0], [2.0]]))


def execution(*makespans_s: float, kind: str = "random") -> Execution:
    """Of an op on one device."""
    return Execution(
        program="p",
        graph="g",
        placement="x",
        kind=kind,
        op_device=[0],
        makespans_s=list(makespans_s),
        overheads_s=[0.0],
        op_s=[],
        edge_s=[],
    )


def test_errors_by_hand() -> None:
    """Medians of 1, 2 and 4 s against 1.1, 1.8 and 4 s: errors of +10, -10 and 0 %."""
    measured = [execution(1.0, 0.5, 1.5), execution(2.0, 2.0, 2.0), execution(4.0, 4.0, 4.0)]
    a = Agreement.of([1.1, 1.8, 4.0], measured)
    assert a.mape == pytest.approx(0.2 / 3)
    assert a.bias == pytest.approx(0.0, abs=1e-12)
    assert a.worst == pytest.approx(0.1)
    assert a.spearman == 1.0
    assert a.spread == pytest.approx(1 / 3)
    assert Agreement.of([4.0, 1.8, 1.1], measured).spearman == -1.0


def test_correlations() -> None:
    """Pearson's as numpy's; equal values share a rank; without variance there is no correlation."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20))
    assert correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert math.isnan(correlation(np.ones(3), x[:3]))


def test_table_and_picture_have_one_line_and_panel_each() -> None:
    """Per way of costing, and per program."""
    measured = [execution(1.0), execution(2.0, kind="baseline")]
    one = Comparison(
        program="p",
        op_s=np.array([1e-3, 3e-3]),
        executions=measured,
        simulated_s={"profiled": [1.0, 3.0], "calibrated": [1.0, 2.0]},
    )
    assert [line[:5] for line in one.lines()] == [
        ("p", "profiled", "2", "2", "2.00"),
        ("p", "calibrated", "2", "2", "2.00"),
    ]
    assert [row["mape"] for row in one.rows()] == [0.25, 0.0]
    figure = draw([one, one], "calibrated")
    assert [axis.get_title() for axis in figure.axes] == ["p: MAPE 0.0 %, Spearman 1.000"] * 2
