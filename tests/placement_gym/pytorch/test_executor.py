"""Execution of graphs with kernels on real devices."""

import itertools
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_graphs import (
    MATRIX,
    Step,
    calling,
    chain,
    kernel_graph,
    random_kernel_graph,
    relu,
    run_in_order,
    sleeping,
)
from numpy.typing import NDArray
from strategies import order_for
from torch import Tensor

import placement_gym as pg
from placement_gym import render
from placement_gym.contention import CONTENTIONS
from placement_gym.errors import ExecutionError, InfeasiblePlacement, InvalidOption, InvalidRule
from placement_gym.metrics import metrics
from placement_gym.pytorch import MeasuredSchedule, RunOptions, execute
from placement_gym.pytorch.programs import random_sources

pytestmark = [
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
    pytest.mark.usefixtures("nothing_left_behind"),
]
ONE, TWO = ["cpu:0"], ["cpu:0", "cpu:1"]
REAL_RULES = [
    pg.Rule(queue=queue, transfers=transfers, contention=contention)  # type: ignore[arg-type]
    for queue, transfers, contention in itertools.product(
        ("fifo", "priority", "lifo"), ("edge", "tensor"), ("none", "link", "egress", "port", "half_duplex")
    )
]


@pytest.mark.parametrize("rule", REAL_RULES, ids=lambda rule: f"{rule.queue}-{rule.transfers}-{rule.contention}")
def test_random_graphs_are_right_and_legal(rule: pg.Rule) -> None:
    """Results equal those of one op after the other, check() holds without slack, and memory is as computed."""
    rng = np.random.default_rng(REAL_RULES.index(rule))
    for seed in range(3):
        graph = random_kernel_graph(rng, 25)
        op_device, priority = rng.integers(0, 2, 25), rng.integers(0, 4, 25).astype(float)
        schedule = execute(
            graph,
            op_device,
            torch_devices=TWO,
            repeats=2,
            rule=rule,
            priority=order_for(rule, priority),
            options=RunOptions(seed=seed, warmup=0),
        )
        schedule.check()
        assert graph.kernels is not None
        expected = run_in_order(graph, random_sources(graph.kernels.sources, seed))
        assert schedule.results.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(schedule.results[name], value)
        np.testing.assert_array_equal(schedule.measured_peak_bytes, schedule.peak_memory_bytes)


@pytest.mark.parametrize("queue", ["fifo", "lifo", "priority"])
def test_one_device_keeps_the_simulators_order(queue: str) -> None:
    """On one device the order of starts does not hang on durations: it is the simulator's."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        graph = random_kernel_graph(rng, 40)
        rule = pg.Rule(queue=queue)  # type: ignore[arg-type]
        priority = order_for(rule, rng.integers(0, 4, 40).astype(float))
        problem = pg.Problem.from_times(graph, rng.uniform(1, 2, (40, 1)))
        real = execute(graph, np.zeros(40, int), torch_devices=ONE, repeats=1, rule=rule, priority=priority)
        simulated = pg.simulate(problem, np.zeros(40, int), rule=rule, priority=priority)
        assert np.argsort(real.trace.op_start_s).tolist() == np.argsort(simulated.trace.op_start_s).tolist()


@pytest.mark.parametrize("queue", ["fifo", "lifo", "priority"])
def test_transfers_keep_the_queue_order(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all transfers contend for one channel, whichever way they go, none starts before one that comes first."""

    def slowly(tensor: Tensor, *_: object) -> Tensor:
        time.sleep(0.003)
        return tensor.clone()

    monkeypatch.setattr("placement_gym.pytorch.engine.copied", slowly)
    rng = np.random.default_rng(0)
    graph, priority = random_kernel_graph(rng, 40), rng.permutation(40).astype(float)
    rule = pg.Rule(queue=queue, transfers="edge", contention="half_duplex")  # type: ignore[arg-type]
    op_device, order = rng.integers(0, 2, 40), order_for(rule, priority)
    schedule = execute(graph, op_device, torch_devices=TWO, repeats=1, rule=rule, priority=order)
    made = schedule.transfers()
    ready, start = schedule.trace.transfer_ready_s[made], schedule.trace.transfer_start_s[made]
    rank = {"fifo": -ready, "lifo": ready, "priority": priority[graph.edge_dst[made]]}[queue]
    overtaken = (ready[:, None] < start) & (start[:, None] > start)  # row waits when column starts
    assert overtaken.sum() > 5
    assert not (overtaken & (rank[:, None] > rank)).any()


def test_transfers_obey_a_rule_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies from device 0 take turns on the rule's one channel; those from device 1 take none and start at once."""

    def one_way(device_node: NDArray[np.int32]) -> NDArray[np.int32]:
        channels = np.full((len(device_node), len(device_node), 1), -1, np.int32)
        channels[0, 1] = 0
        return channels

    def slowly(tensor: Tensor, *_: object) -> Tensor:
        time.sleep(0.02)
        return tensor.clone()

    monkeypatch.setattr("placement_gym.pytorch.engine.copied", slowly)
    monkeypatch.setitem(CONTENTIONS, "test_one_way", one_way)
    steps = {f"from{i}": relu("x") for i in range(6)} | {f"to{i}": relu(i) for i in range(6)}
    op_device = [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    rule = pg.Rule(transfers="edge", contention="test_one_way")
    schedule = execute(kernel_graph(steps, {"x": MATRIX}), op_device, torch_devices=TWO, repeats=1, rule=rule)
    schedule.check()
    start, finish = schedule.trace.transfer_start_s, schedule.trace.transfer_arrival_s
    assert (np.sort(start[:3])[1:] >= np.sort(finish[:3])[:-1]).all()
    assert start[3:].max() < finish[3:].min()


def test_work_overlaps() -> None:
    """Two independent ops of 20 ms take less than 35 ms on two devices, and at least 40 ms on one."""
    graph = kernel_graph({"left": sleeping(0.02, "x"), "right": sleeping(0.02, "x")}, {"x": MATRIX})
    assert execute(graph, [0, 1], torch_devices=TWO, repeats=3).makespan_s < 0.035
    assert execute(graph, [0, 0], torch_devices=TWO, repeats=1).makespan_s >= 0.04


def test_transfers_overlap_computing() -> None:
    """A tensor arrives, and its reader runs, while its sender computes the next op."""
    steps = {"a": relu("x"), "slow": sleeping(0.05, "x"), "b": relu(0)}
    trace = execute(kernel_graph(steps, {"x": MATRIX}), [0, 0, 1], torch_devices=TWO, repeats=3).trace
    assert trace.op_start_s[1] <= trace.transfer_start_s[0]
    assert trace.op_finish_s[2] < trace.op_finish_s[1]


def test_a_copy_has_memory_of_its_own() -> None:
    """A transfer between two cores copies: reader and sender see different buffers; on one device the same."""
    seen: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        seen.append(tensor.data_ptr())
        return tensor + 1

    graph = kernel_graph({"a": calling(note, "x"), "b": calling(note, 0), "c": calling(note, 0)}, {"x": MATRIX})
    execute(graph, [0, 1, 0], torch_devices=TWO, repeats=1, options=RunOptions(warmup=0))
    assert len(set(seen[1:])) == 2
    seen.clear()
    execute(graph, [0, 0, 0], torch_devices=ONE, repeats=1, options=RunOptions(warmup=0))
    assert len(set(seen[1:])) == 1


@pytest.mark.parametrize("op_device", [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]])
def test_memory_is_freed_after_the_last_reader(op_device: list[int]) -> None:
    """An intermediate that nothing will read is gone while the run goes on; one that is still to be read is not."""
    made: list[weakref.ref[Tensor]] = []
    dead: list[bool] = []
    one_run = [op_device[0] != op_device[1], True, True]

    def make(tensor: Tensor) -> Tensor:
        out = tensor + 1
        made.append(weakref.ref(out))
        return out

    def look(tensor: Tensor) -> Tensor:
        # The worker or copier before may still be on its way out.
        until = time.monotonic() + (5.0 if one_run[len(dead) % 3] else 0.1)
        while made[-1]() is not None and time.monotonic() < until:
            time.sleep(0.001)
        dead.append(made[-1]() is None)
        return tensor + 1

    steps = {"a": calling(make, "x"), "b": calling(look, 0), "c": calling(look, 1), "d": calling(look, 2)}
    execute(kernel_graph(steps, {"x": MATRIX}), op_device, torch_devices=TWO, repeats=2)
    assert dead == one_run * 3


def test_peak_by_hand() -> None:
    """A chain of 64-byte matrices on one device holds two at a time; on two, an output and a copy."""
    graph = chain(5)
    assert execute(graph, [0] * 5, torch_devices=ONE, repeats=1).measured_peak_bytes.tolist() == [128]
    assert execute(graph, [0, 1, 0, 1, 0], torch_devices=TWO, repeats=1).measured_peak_bytes.tolist() == [128, 128]


def test_median_and_spread() -> None:
    """The schedule is the repeat with the median makespan; warm-up runs do not count."""
    pauses = iter([0.5, 0.03, 0.01, 0.05, 0.02])

    def pause(tensor: Tensor) -> Tensor:
        time.sleep(next(pauses))
        return tensor + 1

    graph = kernel_graph({"a": calling(pause, "x")}, {"x": MATRIX})
    schedule = execute(graph, [0], torch_devices=ONE, repeats=4)
    assert np.argsort(schedule.makespans_s).tolist() == [1, 3, 0, 2]
    assert schedule.makespan_s == schedule.makespans_s[3]
    assert 0.02 <= schedule.op_kernel_s[0] <= schedule.makespan_s
    assert schedule.op_overhead_s[0] == pytest.approx(schedule.makespan_s - schedule.op_kernel_s[0])


def test_a_measured_schedule_prints_in_five_lines() -> None:
    """With units, however many ops and repeats there are."""
    schedule = execute(chain(200), [0, 1] * 100, torch_devices=TWO, repeats=30)
    lines = repr(schedule).splitlines()
    assert len(lines) <= 5
    assert max(len(line) for line in lines) <= 240
    assert f"{schedule.makespan_s:.6g} s" in lines[0]
    assert "measured: 30 repeats" in lines[-1]
    assert f"peak memory {schedule.measured_peak_bytes.max():.6g} bytes" in lines[-1]


def test_a_problem_keeps_its_names_slots_and_memory() -> None:
    """Two slots run two ops of one device at once; the schedule is of the problem that was given."""
    graph = kernel_graph({"left": sleeping(0.02, "x"), "right": sleeping(0.02, "x")}, {"x": MATRIX})
    problem = pg.Problem.from_times(graph, np.ones((2, 1)), device_names=["mine"], device_slots=2, name="slots")
    schedule = execute(problem, [0, 0], torch_devices=ONE, repeats=3)
    schedule.check()
    assert schedule.problem is problem
    assert not schedule.exact
    assert schedule.makespan_s < 0.035


def test_given_values_are_used() -> None:
    """Sources are the caller's tensors."""
    graph = kernel_graph({"a": Step("add", ["x", "y"], "ij,ij->ij")}, {"x": MATRIX, "y": MATRIX})
    values = {"x": torch.full(MATRIX, 2.0), "y": torch.full(MATRIX, 3.0)}
    schedule = execute(graph, [0], torch_devices=ONE, repeats=1, options=RunOptions(values=values))
    assert torch.equal(schedule.results["a"], torch.full(MATRIX, 5.0))


def test_pictures_numbers_and_traces(tmp_path: Path) -> None:
    """A measured schedule is drawn, exported and summarised as a simulated one."""
    schedule = execute(random_kernel_graph(np.random.default_rng(0), 20), [0, 1] * 10, torch_devices=TWO, repeats=1)
    render.save_gantt(schedule, tmp_path / "run.png")
    render.save_chrome_trace(schedule, tmp_path / "run.json")
    assert len([e for e in render.chrome_trace(schedule)["traceEvents"] if e["ph"] == "X"]) == 20 + len(
        schedule.transfers()
    )
    assert metrics(schedule)["makespan_s"] == schedule.makespan_s
    assert 0 < metrics(schedule)["utilisation"] <= 1


def test_workers_are_pinned_and_have_one_thread() -> None:
    """Each worker runs on its own core, with one intra-op thread."""
    seen: dict[str, tuple[set[int], int]] = {}

    def note(name: str) -> Callable[[Tensor], Tensor]:
        def code(x: Tensor) -> Tensor:
            seen[name] = os.sched_getaffinity(0), torch.get_num_threads()
            return x + 1

        return code

    graph = kernel_graph({"a": calling(note("a"), "x"), "b": calling(note("b"), "x")}, {"x": MATRIX})
    execute(graph, [0, 1], torch_devices=TWO, repeats=1)
    cores = sorted(os.sched_getaffinity(0))
    assert seen == {"a": ({cores[0]}, 1), "b": ({cores[1]}, 1)}


def test_bad_input() -> None:
    """Everything that is wrong is found before anything runs."""
    ran: list[int] = []
    graph = kernel_graph({"a": calling(lambda x: ran.append(1) or x, "x"), "b": relu(0)}, {"x": MATRIX})
    problem = pg.Problem.from_times(
        graph, np.ones((2, 2)), device_memory_bytes=100, op_memory_bytes=graph.op_output_bytes
    )
    with pytest.raises(InfeasiblePlacement, match="memory"):
        execute(problem, [0, 0], torch_devices=TWO)
    for placement in ([0, 2], [0], [0.5, 1]):
        with pytest.raises(InfeasiblePlacement):
            execute(graph, placement, torch_devices=TWO)
    with pytest.raises(InvalidOption, match="2 devices"):
        execute(problem, [0, 1], torch_devices=ONE)
    for devices in (["cpu:99"], ["cuda:99"], ["gpu:0"], ["cpu"], ["cpu:0", "cpu:0"]):
        with pytest.raises(InvalidOption, match="cpu:0"):
            execute(graph, [0, 0], torch_devices=devices)
    held, late = pg.Rule(instant="event", device_hold_s=1e-6), pg.Rule(instant="event", latency="holds")
    for rule in (pg.Rule(transfers="multicast"), held, late, "placeto"):
        with pytest.raises(InvalidRule, match="cannot be executed"):
            execute(graph, [0, 1], torch_devices=TWO, rule=rule)
    with pytest.raises(InvalidOption, match="priority"):
        execute(graph, [0, 1], torch_devices=TWO, rule=pg.Rule(queue="priority"))
    with pytest.raises(InvalidOption, match="repeats"):
        execute(graph, [0, 1], torch_devices=TWO, repeats=0)
    for values in ({}, {"x": torch.zeros(4, 5)}, {"x": torch.zeros(4, 4).double()}, {"y": torch.zeros(4, 4)}):
        with pytest.raises(InvalidOption, match=r"'x'"):
            execute(graph, [0, 1], torch_devices=TWO, options=RunOptions(values=values))
    with pytest.raises(InvalidOption, match="warmup"):
        RunOptions(warmup=-1)
    with pytest.raises(InvalidOption, match="timeout_s"):
        RunOptions(timeout_s=0)
    with pytest.raises(ExecutionError, match="no kernels"):
        execute(without_kernels(graph), [0, 1], torch_devices=TWO)
    unknown = kernel_graph(
        {"a": calling(lambda x: ran.append(1) or x, "x"), "b": Step("frob", [0], "ij->ij")}, {"x": MATRIX}
    )
    with pytest.raises(ExecutionError, match="unknown kernel function 'frob'"):
        execute(unknown, [0, 1], torch_devices=TWO)
    assert not ran


def without_kernels(graph: pg.OpGraph) -> pg.OpGraph:
    """The graph without its kernels."""
    return pg.OpGraph.from_networkx(graph.to_networkx())


def test_the_gym_loads_no_torch() -> None:
    """Only placement_gym.pytorch does, and a command that solves need not."""
    code = "import sys, experiments.solve; assert 'torch' not in sys.modules; import placement_gym.pytorch as p"
    subprocess.run([sys.executable, "-c", f"{code}; p.execute"], check=True)


@pytest.mark.gpu
@pytest.mark.parametrize("devices", [["cuda:0", "cuda:0"], ["cuda:0", "cpu:0"], ["cpu:0", "cuda:0", "cuda:0"]])
def test_gpu(devices: list[str]) -> None:
    """Streams of one GPU, and GPU beside CPU, compute the same as one op after the other."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    rng = np.random.default_rng(0)
    for rule, seed in itertools.product(("physical", "giph"), range(5)):
        graph = random_kernel_graph(rng, 30)
        op_device = rng.integers(0, len(devices), 30)
        schedule: MeasuredSchedule = execute(
            graph, op_device, torch_devices=devices, rule=rule, options=RunOptions(seed=seed)
        )
        schedule.check()
        assert graph.kernels is not None
        expected = run_in_order(graph, random_sources(graph.kernels.sources, seed))
        for name, value in expected.items():
            assert schedule.results[name].device.type == "cpu"
            torch.testing.assert_close(schedule.results[name], value, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(schedule.measured_peak_bytes, schedule.peak_memory_bytes)
        assert bool((schedule.op_kernel_s > 0).all())
