"""What the executor adds to the kernels: seconds per op that are neither a kernel nor waiting for one."""

import os
from collections.abc import Callable

import numpy as np
import pytest
from kernel_graphs import Step, kernel_graph

from placement_gym.pytorch import MeasuredSchedule, execute

pytestmark = pytest.mark.benchmark
Figure = Callable[..., bool]
N_OPS = 1000


def rectifiers(n_chains: int) -> dict[str, Step]:
    """Ops of a few microseconds in chains side by side, all of one step before the next."""
    return {f"op{i}": Step("relu", [i - n_chains if i >= n_chains else "x"], "ij->ij") for i in range(N_OPS)}


def overhead_us(schedule: MeasuredSchedule, n_workers: int) -> float:
    """Microseconds per op of the workers' time beside kernels, where `n_workers` always have work."""
    return (schedule.makespan_s * n_workers - float(schedule.op_kernel_s.sum())) / N_OPS * 1e6


def test_overhead_per_op(figure: Figure) -> None:
    """A chain on one worker, the same chain hopping between two with a transfer each time, 16 chains on two."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    chain, wide = (kernel_graph(rectifiers(n_chains), {"x": (4, 4)}) for n_chains in (1, 16))
    alternate = np.arange(N_OPS) % 2
    held = []
    for name, graph, op_device, n_workers in (
        ("chain on one worker", chain, 0 * alternate, 1),
        ("chain hopping between two, with transfers", chain, alternate, 1),
        ("16 chains on two workers", wide, alternate, 2),
    ):
        schedule = execute(graph, op_device, torch_devices=["cpu:0", "cpu:1"], repeats=15)
        schedule.check()
        held.append(
            figure(
                f"executor's overhead per op, {name}",
                overhead_us(schedule, n_workers),
                "us",
                "<= 100",
                kernel_us=schedule.op_kernel_s.mean() * 1e6,
                makespans_ms=[round(1e3 * s, 1) for s in schedule.makespans_s.tolist()],
            )
        )
    assert all(held)
