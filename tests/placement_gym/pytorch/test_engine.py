"""Runs that fail: one clear error, no thread left, and the next run works."""

import _thread
import os
import threading
import time
from collections.abc import Callable

import pytest
import torch
from kernel_graphs import MATRIX, calling, chain, kernel_graph, relu, sleeping
from torch import Tensor

from placement_gym.errors import ExecutionError
from placement_gym.pytorch import RunOptions, execute

pytestmark = [
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
    pytest.mark.usefixtures("nothing_left_behind"),
]
ONE, TWO = ["cpu:0"], ["cpu:0", "cpu:1"]


def boom(error: BaseException) -> Callable[..., Tensor]:
    """Code that fails."""

    def fail(*_: Tensor) -> Tensor:
        raise error

    return fail


@pytest.mark.parametrize("op", [0, 3, 6])
@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("bad luck"), "failed .*bad luck"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (SystemExit("leave"), "failed .*leave"),
    ],
)
def test_a_failing_kernel_stops_the_run(op: int, device: int, error: BaseException, reason: str) -> None:
    """First, middle or last op, on either device: one error names op, device and reason; the next run works."""
    steps = {f"op{i}": relu(i - 1 if i else "x") for i in range(7)}
    steps[f"op{op}"] = calling(boom(error), *steps[f"op{op}"].inputs)  # type: ignore[arg-type]
    op_device = [(i + op + device) % 2 for i in range(7)]
    with pytest.raises(ExecutionError, match=f"op 'op{op}' on device 'cpu:{device}'.*{reason}") as raised:
        execute(kernel_graph(steps, {"x": MATRIX}), op_device, torch_devices=TWO)
    assert raised.value.__cause__ is error
    execute(chain(7), op_device, torch_devices=TWO, repeats=1).check()


def test_running_out_of_real_memory() -> None:
    """An allocation that no machine can serve is out of memory."""
    steps = {"a": calling(lambda _: torch.empty(1 << 60), "x")}
    with pytest.raises(ExecutionError, match=r"op 'a'.*out of memory"):
        execute(kernel_graph(steps, {"x": MATRIX}), [0], torch_devices=ONE)


@pytest.mark.parametrize("wrong", [torch.zeros(4, 5), torch.zeros(4, 4, dtype=torch.float64), (torch.zeros(4, 4),) * 2])
def test_outputs_are_those_that_the_kernel_says(wrong: Tensor) -> None:
    """A kernel that returns another shape, dtype or number of outputs fails."""
    steps = {"a": calling(lambda _: wrong, "x")}
    with pytest.raises(ExecutionError, match=r"op 'a'.*returned.*expected \(\(\(4, 4\), torch.float32\),\)"):
        execute(kernel_graph(steps, {"x": MATRIX}), [0], torch_devices=ONE)


def test_a_failing_transfer_names_its_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in a copier stops the run as well."""

    def fail(*_: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr("placement_gym.pytorch.engine.copied", fail)
    with pytest.raises(ExecutionError, match=r"transfer of op 'op0' from device 'cpu:0'.*out of memory"):
        execute(chain(2), [0, 1], torch_devices=TWO)


def test_timeout_names_what_runs() -> None:
    """A run that takes too long ends with the ops that still run; when they return in time no thread is left."""
    steps = {"a": relu("x"), "slow": sleeping(0.3, 0), "b": relu(1)}
    graph = kernel_graph(steps, {"x": MATRIX})
    with pytest.raises(ExecutionError, match=r"timed out after 0\.1 s; still running: op 'slow'[^;]*$"):
        execute(graph, [0, 1, 0], torch_devices=TWO, options=RunOptions(timeout_s=0.1))
    execute(graph, [0, 1, 0], torch_devices=TWO, repeats=1).check()


def test_a_kernel_that_hangs_is_left_behind() -> None:
    """Its thread cannot be ended: the error names it, and later runs do not wait for it."""
    release = threading.Event()

    def hang(x: Tensor) -> Tensor:
        release.wait()
        return x

    graph = kernel_graph({"hang": calling(hang, "x"), "b": relu(0)}, {"x": MATRIX})
    n_threads = threading.active_count()
    try:
        with pytest.raises(ExecutionError, match=r"op 'hang'.*left behind.*'placement_gym device 1"):
            execute(graph, [1, 0], torch_devices=TWO, options=RunOptions(timeout_s=0.1))
        assert threading.active_count() == n_threads + 1
        execute(chain(4), [0, 1, 0, 1], torch_devices=TWO, repeats=1).check()
    finally:
        release.set()
    until = time.monotonic() + 5
    while threading.active_count() > n_threads and time.monotonic() < until:
        time.sleep(0.005)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_interrupting() -> None:
    """Ctrl-C ends the run, not the process's ability to run."""
    steps = {"a": calling(lambda x: (_thread.interrupt_main(), time.sleep(0.05), x + 1)[-1], "x"), "b": relu(0)}
    with pytest.raises(KeyboardInterrupt):
        execute(kernel_graph(steps, {"x": MATRIX}), [0, 1], torch_devices=TWO)
    execute(chain(4), [0, 1, 0, 1], torch_devices=TWO, repeats=1).check()


def test_a_thread_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that may not be used is one error, not a wait."""

    def refuse(*_: object) -> None:
        raise OSError("not yours")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(ExecutionError, match=r"did not start.*not yours"):
        execute(chain(2), [0, 1], torch_devices=TWO)
