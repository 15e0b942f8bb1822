"""profile: kernels and copies are measured on this machine."""

import os
import signal
import time
from dataclasses import replace
from itertools import count
from threading import active_count, get_ident, main_thread

import numpy as np
import pytest
import torch
from executable import AT, chain, made_up_profile

from placement_gym.costs.profile import Profile
from placement_gym.errors import ExecutionError, InvalidOption, InvalidProblem
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import Kernel, Kernels, Operand, Source
from placement_gym.pytorch.devices import known_torch_devices
from placement_gym.pytorch.profiler import COPIED_BYTES, MOST_SETS, describe, operand_value, profile
from placement_gym.pytorch.stopwatch import (
    FEWEST_CALLS,
    FEWEST_WARM_UP_CALLS,
    WARM_UP_CALLS,
    Actor,
    TimingWorker,
    repeated_s,
)

CPUS = known_torch_devices()[:2]
two_cores = pytest.mark.skipif(len(CPUS) < 2, reason="needs two cores")


def called(*calls: object, name: str = "call") -> OpGraph:
    """Ops that run Python functions of a float32 [4]."""
    operand = Operand(-1, (4,), source="x")
    kernels = [
        Kernel(f"{name}{i}", (operand,), ((4,),), ("float32",), call=call)  # type: ignore[arg-type]
        for i, call in enumerate(calls)
    ]
    return OpGraph.build(
        [f"op{i}" for i in range(len(calls))], [], kernels=Kernels(tuple(kernels), {"x": Source("input", (4,))}, {})
    )


@pytest.fixture(scope="module")
def machine() -> Profile:
    """All but the kernels, measured once."""
    found: list[Profile] = []

    def keep(so_far: Profile, done: int, total: int) -> None:
        found.append(so_far)
        if so_far.copies or len(CPUS) < 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile([chain(1)], CPUS, seconds_per_kernel=0.004, progress=keep)
    return found[-1]


def test_models_and_copies_are_measured(machine: Profile) -> None:
    """Numbers that a computer can have, however busy: 10 MFLOP/s to 100 TFLOP/s, 10 MB/s to 10 TB/s, 0.1 s."""
    model = machine.models["cpu"]
    assert 1e7 < model.peak_flops_per_s["float32"] < 1e14
    assert 1e7 < model.memory_bytes_per_s < 1e13
    assert 0 < model.overhead_s < 0.1
    assert sum(d.memory_bytes for d in machine.devices) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if len(CPUS) > 1:
        times = machine.copies["cpu", "cpu"]
        assert tuple(point.n_bytes for point in times.points) == COPIED_BYTES
        assert 0 < times.points[0].alone.median_s < 0.1
        assert 1e7 < COPIED_BYTES[-1] / times.points[-1].alone.median_s < 1e13
        assert machine.cluster().n_devices == 2


def test_a_sleeping_kernel_takes_as_long_as_it_sleeps(machine: Profile) -> None:
    """Alone and loaded: sleep needs no core. A busy system may wake it late."""
    graph = called(lambda x: time.sleep(5e-3) or x)
    found = profile([graph], CPUS, seconds_per_kernel=0.1, known=machine)
    (measured,) = found.kernel_times["cpu"].values()
    for timing in (measured.alone, measured.loaded):
        assert 5e-3 <= timing.median_s < 50e-3


@two_cores
def test_loaded_means_all_workers_at_once_on_their_cores(machine: Profile) -> None:
    """The kernel sees two pinned threads, one intra-op thread each; the caller's threads are as before."""
    seen: dict[int, tuple[set[int], int, bool]] = {}
    running: set[int] = set()
    together = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen[get_ident()] = (os.sched_getaffinity(0), torch.get_num_threads(), torch.is_grad_enabled())
        running.add(get_ident())
        together.append(len(running))
        time.sleep(2e-3)
        running.discard(get_ident())
        return x

    before, cores = torch.get_num_threads(), sorted(os.sched_getaffinity(0))
    profile([called(look)], CPUS, seconds_per_kernel=0.02, known=machine)
    assert sorted(seen.values(), key=lambda s: min(s[0])) == [({core}, 1, False) for core in cores[:2]]
    assert together[0] == 1
    assert max(together) == 2
    assert torch.get_num_threads() == before
    assert sorted(os.sched_getaffinity(0)) == cores


@two_cores
def test_workers_go_on_until_all_have_been_timed() -> None:
    """The faster one keeps its device busy while the slower one is still measured; what is not timed has no say."""
    calls = {"fast": 0, "slow": 0, "background": 0}

    def sleeper(name: str, seconds: float) -> object:
        def call() -> None:
            calls[name] += 1
            time.sleep(seconds)

        return lambda: call

    workers = [TimingWorker(name) for name in (*CPUS, "cpu")]
    actors = [
        Actor(workers[0], sleeper("fast", 1e-3)),  # type: ignore[arg-type]
        Actor(workers[1], sleeper("slow", 10e-3)),  # type: ignore[arg-type]
        Actor(workers[2], sleeper("background", 1e-3), is_timed=False),  # type: ignore[arg-type]
    ]
    seconds = repeated_s(actors, 0.02)
    for worker in workers:
        worker.close()
    # The slow call has the shortest warm-up and is timed as often as any must be.
    assert calls["slow"] == FEWEST_WARM_UP_CALLS + FEWEST_CALLS
    assert calls["fast"] > 20
    assert calls["background"] > 20
    warm_up = calls["fast"] + calls["slow"] - len(seconds)
    assert 2 * FEWEST_WARM_UP_CALLS <= warm_up <= FEWEST_WARM_UP_CALLS + WARM_UP_CALLS


def test_operands_and_outputs_change_from_call_to_call(machine: Profile) -> None:
    """So that neither is always in the cache: 4 KiB operands come in many sets, and an output lives for a while."""
    operand, pointers = Operand(-1, (1024,), source="x"), []

    def look(x: torch.Tensor) -> torch.Tensor:
        pointers.append(x.data_ptr())
        return x + 1

    kernels = Kernels(
        (Kernel("look", (operand,), ((1024,),), ("float32",), call=look),), {"x": Source("input", (1024,))}, {}
    )
    profile([OpGraph.build(["op"], [], kernels=kernels)], CPUS[:1], seconds_per_kernel=0.01, known=machine)
    assert len(set(pointers)) == MOST_SETS
    assert pointers[:MOST_SETS] == pointers[MOST_SETS : 2 * MOST_SETS]


def test_ids_are_in_range() -> None:
    """Whole numbers of a source lie below its number of values, those that an op makes are 0, bools are both."""
    generator = torch.Generator().manual_seed(0)
    ids = operand_value(Operand(-1, (1000,), "int32", "ids"), Source("input", (1000,), "int64", 7), generator)
    assert ids.dtype == torch.int32
    assert set(ids.tolist()) == set(range(7))
    made = operand_value(Operand(0, (5,), "int64"), None, generator)
    assert made.tolist() == [0] * 5
    assert set(operand_value(Operand(0, (100,), "bool"), None, generator).tolist()) == {True, False}
    half = operand_value(Operand(0, (100, 2), "bfloat16"), None, generator)
    assert (half.dtype, half.shape) == (torch.bfloat16, (100, 2))


def test_an_embedding_is_measured(machine: Profile) -> None:
    """It fails on ids outside its table."""
    table, ids = Operand(-1, (3, 8), source="table"), Operand(-1, (100,), "int64", "ids")
    kernel = Kernel("embedding", (table, ids), ((100, 8),), ("float32",), "vd,s->sd")
    sources = {"table": Source("parameter", (3, 8)), "ids": Source("input", (100,), "int64", 3)}
    graph = OpGraph.build(["lookup"], [], kernels=Kernels((kernel,), sources, {}))
    found = profile([graph], CPUS[:1], seconds_per_kernel=0.002, known=machine)
    assert kernel.signature in found.kernel_times["cpu"]


def test_equal_kernels_are_measured_once_and_known_ones_not_again(machine: Profile) -> None:
    """Unless asked for; what is known stays."""
    told: list[tuple[int, int]] = []

    def tell(so_far: Profile, done: int, total: int) -> None:
        told.append((done, total))

    first = profile([chain(3)], CPUS[:1], seconds_per_kernel=0.002, known=machine, progress=tell)
    assert told == [(1, 2), (2, 2)]
    kept = replace(first, kernel_times={"cpu": made_up_profile(chain(1)).kernel_times["cpu"]})
    told.clear()
    second = profile([chain(3), chain(5)], CPUS[:1], seconds_per_kernel=0.002, known=kept, progress=tell)
    assert told == [(1, 1)]
    old, new = (second.kernel_times["cpu"][k.signature] for k in chain(2).kernels.op_kernels)  # type: ignore[union-attr]
    assert (old.alone.median_s, old.measured_at) == (1e-3, AT)
    assert new.measured_at > AT
    told.clear()
    third = profile([chain(3)], CPUS[:1], seconds_per_kernel=0.002, known=second, again=True, progress=tell)
    assert told[-1] == (3, 3)
    assert all(entry.measured_at > AT for entry in third.kernel_times["cpu"].values())


def test_a_new_dtype_is_measured_on_a_known_model(machine: Profile) -> None:
    """Its peak joins those that were known."""
    kernel = Kernel("relu", (Operand(-1, (8,), "float64", "x"),), ((8,),), ("float64",), "a->a")
    graph = OpGraph.build(["a"], [], kernels=Kernels((kernel,), {"x": Source("input", (8,), "float64")}, {}))
    found = profile([graph], CPUS[:1], seconds_per_kernel=0.002, known=machine)
    assert found.models["cpu"].peak_flops_per_s.keys() == {"float32", "float64"}


def test_nothing_measured_is_lost_to_a_failing_kernel(machine: Profile) -> None:
    """The error names op, kernel and device, and the profile told before holds the first kernel."""
    kept: list[Profile] = []

    def keep(so_far: Profile, done: int, total: int) -> None:
        kept.append(so_far)

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of luck")

    with pytest.raises(ExecutionError, match=r"op 'op1': kernel call1.* failed on cpu: RuntimeError: out of luck"):
        profile([called(lambda x: x + 1, fail)], CPUS, seconds_per_kernel=0.002, known=machine, progress=keep)
    assert [signature[:5] for signature in kept[-1].kernel_times["cpu"]] == ["call0"]


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_an_interrupt_ends_the_workers(machine: Profile) -> None:
    """Ctrl-C in the middle of a kernel: no thread goes on, and torch's threads are as before."""
    begun, before, threads = time.perf_counter(), torch.get_num_threads(), active_count()

    calls = count()

    def interrupt(x: torch.Tensor) -> torch.Tensor:
        time.sleep(5e-3)
        if next(calls) == 20:
            signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
        return x

    with pytest.raises(KeyboardInterrupt):
        profile([called(interrupt)], CPUS, seconds_per_kernel=1e3, known=machine)
    assert time.perf_counter() - begun < 60
    assert torch.get_num_threads() == before
    assert active_count() == threads


def test_mistakes_are_told(machine: Profile) -> None:
    """Unknown and repeated devices, no device, no time, no kernels, another machine's profile."""
    graph = chain()
    with pytest.raises(InvalidOption, match=r"unknown torch device 'tpu:0'; known: .*cpu:0"):
        profile([graph], ["tpu:0"])
    with pytest.raises(InvalidOption, match="unknown torch device 'cpu:4096'"):
        profile([graph], ["cpu:4096"])
    with pytest.raises(InvalidOption, match="names cpu:0 twice"):
        profile([graph], ["cpu:0", "cpu:0"])
    with pytest.raises(InvalidOption, match="torch_devices is empty"):
        profile([graph], [])
    with pytest.raises(InvalidOption, match="seconds_per_kernel is 0; expected > 0"):
        profile([graph], CPUS, seconds_per_kernel=0)
    with pytest.raises(InvalidProblem, match=r"2 ops \(first 'a'\) has no kernels"):
        profile([OpGraph.build(["a", "b"], [])], CPUS)
    with pytest.raises(InvalidProblem, match="'a CPU', not "):
        profile([graph], CPUS, known=made_up_profile(graph))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_and_its_host_are_measured() -> None:
    """Two streams are two devices of one model; all four ordered pairs of models have copies."""
    found = profile([chain(2, 512)], ["cpu:0", "cuda:0", "cuda:0"], seconds_per_kernel=0.02)
    model = torch.cuda.get_device_name("cuda:0")
    assert [d.name for d in found.devices] == ["cpu:0", "cuda:0", "cuda:0/1"]
    assert set(found.copies) == {("cpu", model), (model, "cpu"), (model, model)}
    assert found.kernel_times[model].keys() == found.kernel_times["cpu"].keys()
    assert found.models[model].peak_flops_per_s["float32"] > found.models["cpu"].peak_flops_per_s["float32"]
    assert [d.kind for d in found.cluster().devices] == ["cpu", "accelerator", "accelerator"]
    assert np.isfinite(found.cluster().latency_s).all()


def test_devices_share_the_memory() -> None:
    """Each CPU worker has its part of the host's."""
    (whole,), parts = describe(CPUS[:1]), describe(CPUS)
    assert [part.memory_bytes for part in parts] == [whole.memory_bytes / len(CPUS)] * len(CPUS)
