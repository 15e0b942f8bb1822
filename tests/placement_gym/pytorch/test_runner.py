"""Placements run in turn on workers that stay."""

import os
import time

import numpy as np
import pytest
from kernel_graphs import MATRIX, Step, calling, kernel_graph, random_kernel_graph
from torch import Tensor

import placement_gym as pg
from placement_gym.errors import ExecutionError, InvalidOption, PlacementGymWarning
from placement_gym.pytorch import RunOptions
from placement_gym.pytorch.runner import Runner

pytestmark = [
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
    pytest.mark.usefixtures("nothing_left_behind"),
]
TWO = ["cpu:0", "cpu:1"]
SLEEP_S = 0.02
SECOND_CORE = sorted(os.sched_getaffinity(0))[:2][-1]


def sleepers(log: list[str], failing: bool = False) -> pg.OpGraph:
    """Two ops beside each other that sleep and leave their names; `failing`: the second does, on the second core."""

    def call(name: str) -> Step:
        def code(x: Tensor) -> Tensor:
            log.append(name)
            time.sleep(SLEEP_S)
            if failing and name == "b" and os.sched_getaffinity(0) == {SECOND_CORE}:
                raise ValueError("not here")
            return x.clone()

        return calling(code, "x")

    return kernel_graph({"a": call("a"), "b": call("b")}, {"x": MATRIX})


def problem_of(graph: pg.OpGraph) -> pg.Problem:
    """On two devices alike."""
    return pg.Problem.from_times(graph, np.ones((graph.n_ops, 2)), device_names=TWO)


def test_runs_are_timed_in_turn() -> None:
    """One device after the other takes twice as long as both at once; the first runs once more beforehand."""
    log: list[str] = []
    runner = Runner(problem_of(sleepers(log)), TWO)
    op_device = np.array([[0, 0], [0, 1], [1, 1]], np.int32)
    seconds = runner(op_device, None, [0, 1, 0, 1])
    assert len(log) == 2 * 5
    assert (seconds[[0, 2]] >= 2 * SLEEP_S).all()
    assert (seconds[[1, 3]] >= SLEEP_S).all()
    assert seconds[[1, 3]].min() < 2 * SLEEP_S
    assert runner(op_device, None, []).shape == (0,)


def test_a_placement_that_fails_is_told_once_and_the_others_go_on() -> None:
    """On other workers; it is not run again in the same call."""
    log: list[str] = []
    runner = Runner(problem_of(sleepers(log, failing=True)), TWO)
    op_device = np.array([[0, 0], [0, 1]], np.int32)
    with pytest.warns(PlacementGymWarning, match="infinitely slow: op 'b' on device 'cpu:1' failed.*not here") as told:
        seconds = runner(op_device, None, [0, 1, 0, 1])
    assert len(told) == 1
    assert np.isfinite(seconds).tolist() == [True, False, True, False]


def test_memory_and_timeouts_count_as_failures() -> None:
    """A placement over memory is not run at all; one that takes too long is given up."""
    graph = sleepers([])
    small = pg.Problem.from_times(graph, np.ones((2, 2)), device_memory_bytes=1.0, op_memory_bytes=np.ones(2))
    with pytest.warns(PlacementGymWarning, match="memory"):
        assert Runner(small, TWO)(np.array([[0, 0], [0, 1]], np.int32), None, [0, 1])[0] == np.inf
    impatient = Runner(problem_of(graph), TWO, options=RunOptions(timeout_s=SLEEP_S / 4, warmup=0))
    with pytest.warns(PlacementGymWarning, match="timed out"):
        assert impatient(np.array([[0, 0]], np.int32), None, [0]).tolist() == [np.inf]


def test_sources_stay_and_priorities_are_kept() -> None:
    """A second call puts nothing into memory again; with ranks, ops of one device start in their order."""
    log: list[str] = []
    runner = Runner(problem_of(sleepers(log)), TWO, rule=pg.Rule(queue="priority"), options=RunOptions(warmup=0))
    op_device = np.zeros((1, 2), np.int32)
    runner(op_device, np.array([[1.0, 2.0]]), [0])
    placed = {key: part.data_ptr() for key, part in runner._sources.placed.items()}
    runner(op_device, np.array([[2.0, 1.0]]), [0])
    assert log == ["b", "a", "a", "b"]
    assert {key: part.data_ptr() for key, part in runner._sources.placed.items()} == placed


def test_what_cannot_run_is_refused() -> None:
    """Another number of devices; a graph without kernels."""
    graph = random_kernel_graph(np.random.default_rng(0), 5)
    with pytest.raises(InvalidOption, match="the problem has 2 devices"):
        Runner(problem_of(graph), ["cpu:0"])
    with pytest.raises(ExecutionError, match="no kernels"):
        Runner(pg.workloads.layered(n_ops=4, n_devices=2), TWO)
