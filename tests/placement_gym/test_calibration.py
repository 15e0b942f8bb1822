"""Calibration: costs from real runs."""

import numpy as np
import pytest
from executable import chain
from kernel_graphs import Step, kernel_graph

import placement_gym as pg
from placement_gym.calibration import Run, calibrated
from placement_gym.errors import InvalidProblem


def problem() -> pg.Problem:
    """A chain of ops with kernels on two devices, 1 s each."""
    graph = chain()
    return pg.Problem.from_times(graph, np.ones((graph.n_ops, 2)), link_latency_s=1.0, link_bytes_per_s=1.0)


def test_ops_of_one_kernel_take_its_median_time() -> None:
    """Over all runs and devices of a kind; what no run had is scaled like the others."""
    before = problem()
    assert before.graph.kernels is not None
    signatures = [kernel.signature for kernel in before.graph.kernels.op_kernels]
    edge_s = np.full(before.graph.n_edges, np.nan)
    runs = [
        Run(np.full(before.n_ops, device, np.int32), factor * np.arange(1.0, before.n_ops + 1), edge_s)
        for device, factor in ((0, 2.0), (1, 4.0), (0, 3.0))
    ]
    after = calibrated(before, runs)
    for i, signature in enumerate(signatures):
        alike = [j for j, other in enumerate(signatures) if other == signature]
        expected = np.median([f * (j + 1) for f in (2.0, 3.0, 4.0) for j in alike])
        assert after.op_time_s[i].tolist() == [expected, expected]
    assert (after.link_latency_s == before.link_latency_s).all()


def test_kinds_of_devices_have_times_of_their_own() -> None:
    """What only the accelerator ran keeps, on the CPU, the stated time in the ratio seen there."""
    before = problem()
    graph = before.graph
    mixed = pg.Problem.from_times(graph, np.ones((graph.n_ops, 2)), device_kinds=["accelerator", "cpu"])
    op_device = np.zeros(graph.n_ops, np.int32)
    op_device[-1] = 1
    op_s = np.where(op_device == 0, 0.5, 5.0)
    after = calibrated(mixed, [Run(op_device, op_s, np.full(graph.n_edges, np.nan))])
    assert (after.op_time_s[:-1, 0] == 0.5).all()
    assert (after.op_time_s[:, 1] == 5.0).all()


def test_links_get_the_line_of_their_transfers() -> None:
    """Latency and bandwidth of a line through two sizes are found exactly; of one size, links stay as they were."""
    steps = {"a": Step("relu", ["x"], "ij->ij"), "b": Step("sum", [0], "ij->i"), "c": Step("relu", [1], "i->i")}
    graph = kernel_graph(steps, {"x": (4, 4)})
    assert graph.edge_bytes.tolist() == [64.0, 16.0]
    before = pg.Problem.from_times(graph, np.ones((3, 2)), link_latency_s=1.0, link_bytes_per_s=1.0)
    took_s = 0.25 + graph.edge_bytes / 8.0
    after = calibrated(before, [Run(np.array([0, 1, 0], np.int32), np.ones(3), took_s)])
    assert after.link_latency_s[0, 1] == pytest.approx(0.25)
    assert after.link_bytes_per_s[1, 0] == pytest.approx(8.0)
    assert after.link_latency_s[0, 0] == 0.0
    one = calibrated(before, [Run(np.array([0, 1, 1], np.int32), np.ones(3), np.where([True, False], took_s, np.nan))])
    assert (one.link_latency_s == before.link_latency_s).all()


def test_no_runs_are_refused() -> None:
    """So is a graph without kernels."""
    with pytest.raises(InvalidProblem, match="0 runs of a graph with kernels"):
        calibrated(problem(), [])
