"""Workers: one thread per device slot that computes, one per ordered pair of devices that copies."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from queue import SimpleQueue

import torch
from torch import Tensor

from placement_gym.errors import ExecutionError
from placement_gym.pytorch.devices import TorchDevice
from placement_gym.pytorch.functions import Code

# How long the threads of a run that was stopped get to end.
GRACE_S = 1.0

Stream = torch.cuda.Stream
# What a worker does (it is told the number and its stream, if it works on a GPU), and the number of an op or edge.
Job = tuple[Callable[[int, Stream | None], None], int]


class Worker:
    """A thread that does jobs in the order in which they are put into its queue."""

    def __init__(self, name: str, jobs: "SimpleQueue[Job | None]", gpu: torch.device | None, core: int) -> None:
        self.jobs, self.gpu, self.core = jobs, gpu, core
        self.ready: SimpleQueue[BaseException | None] = SimpleQueue()
        # A kernel cannot be ended from outside; a daemon does not keep the process from ending.
        self.thread = threading.Thread(target=self.work, name=f"placement_gym {name}", daemon=True)

    def work(self) -> None:
        """What the thread does."""
        try:
            if self.core >= 0:
                os.sched_setaffinity(0, {self.core})  # 0 is this thread alone
            torch.set_num_threads(1)
            stream = Stream(self.gpu) if self.gpu is not None else None  # type: ignore[no-untyped-call]
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits for this one)
            self.ready.put(error)
            return
        self.ready.put(None)
        with torch.no_grad(), torch.cuda.stream(stream) if stream is not None else nullcontext():
            while (job := self.jobs.get()) is not None:
                job[0](job[1], stream)


class Crew:
    """The workers of some devices, and the copiers between them."""

    def __init__(
        self, devices: Sequence[TorchDevice], device_slots: Sequence[int], pairs: Sequence[tuple[int, int]]
    ) -> None:
        self.devices = devices
        self.ops: list[SimpleQueue[Job | None]] = [SimpleQueue() for _ in devices]
        self.transfers: dict[tuple[int, int], SimpleQueue[Job | None]] = {pair: SimpleQueue() for pair in pairs}
        self.workers: list[Worker] = []
        self.end_by: float | None = None
        for d, (device, slots) in enumerate(zip(devices, device_slots, strict=True)):
            gpu = device.memory if device.memory.type == "cuda" else None
            for slot in range(slots):
                name = f"device {d} ({device.name}), slot {slot}"
                self.workers.append(Worker(name, self.ops[d], gpu, device.core))
        for (a, b), jobs in self.transfers.items():
            name = f"transfers from device {a} ({devices[a].name}) to device {b} ({devices[b].name})"
            gpus = [devices[d].memory for d in (a, b) if devices[d].memory.type == "cuda"]
            # A core fetches by itself: mostly it waits for what it fetches, and no core that computes is disturbed.
            self.workers.append(Worker(name, jobs, gpus[0] if gpus else None, devices[b].core))

    def start(self) -> None:
        """Starts all threads and waits until they are ready.

        Raises:
            ExecutionError: One of them failed to.
        """
        for worker in self.workers:
            worker.thread.start()
        for worker in self.workers:
            error = worker.ready.get()
            if error is not None:
                raise ExecutionError(f"thread {worker.thread.name!r} did not start: {error!r}") from error

    def end(self) -> list[str]:
        """Ends all threads; names those that still run a kernel after the grace."""
        begun = [worker for worker in self.workers if worker.thread.ident is not None]
        if self.end_by is None:
            self.end_by = time.monotonic() + GRACE_S
            for worker in begun:
                worker.jobs.put(None)
        for worker in begun:
            worker.thread.join(max(0.0, self.end_by - time.monotonic()))
        return [worker.thread.name for worker in begun if worker.thread.is_alive()]


def copied(tensor: Tensor, memory: torch.device, stream: Stream | None) -> Tensor:
    """A contiguous copy in a new buffer, complete on return; what crosses to or from a GPU passes pinned memory."""
    if stream is None:
        return tensor.clone(memory_format=torch.contiguous_format)
    source = tensor
    if tensor.device.type == "cpu":
        source = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
    target = torch.empty(tensor.shape, dtype=tensor.dtype, device=memory, pin_memory=memory.type == "cpu")
    target.copy_(source, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(stream)
    done.synchronize()
    return target


def timed(code: Code, operands: Sequence[Tensor], stream: Stream | None) -> tuple[tuple[Tensor, ...], float]:
    """The outputs of a kernel, complete on return, and its seconds: on a GPU, of the GPU's own clock."""
    if stream is None:
        began = time.perf_counter()
        outputs = code(operands)
        return outputs, time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record(stream)
    outputs = code(operands)
    end.record(stream)
    end.synchronize()
    return outputs, begin.elapsed_time(end) * 1e-3
