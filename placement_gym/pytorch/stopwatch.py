"""Stopwatch: seconds of calls on torch devices, by one worker alone or by several at once."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier, BrokenBarrierError, Event

import numpy as np
import torch

from placement_gym.arrays import FloatArray
from placement_gym.pytorch.devices import TorchDevice

Call = Callable[[], object]
FEWEST_CALLS = 5
# Outputs live on for a while, as where their readers are still to come, so that memory is not always the same.
KEPT_OUTPUTS = 2
# The C library takes large blocks from the system at first, page by page, and keeps them only once the first of them
# was freed: as many outputs as are alive at once, twice. Calls that are long beside that need less.
WARM_UP_CALLS = 2 * (KEPT_OUTPUTS + 1)
FEWEST_WARM_UP_CALLS = 2


@contextmanager
def one_intra_op_thread() -> Iterator[None]:
    """Torch computes each op with one thread inside, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TimingWorker:
    """A thread that computes on one torch device: pinned to its core, or on a CUDA stream of its own.

    Attributes:
        name: As given.
        torch_device: What torch calls it.
        pool: The thread.

    Args:
        torch_device: As in `known_torch_devices`, or "cpu" for a thread that runs on any core.

    Raises:
        InvalidOption: An unknown device.
    """

    def __init__(self, torch_device: str) -> None:
        self.name = torch_device
        device = (
            TorchDevice("cpu", torch.device("cpu")) if torch_device == "cpu" else TorchDevice.parse([torch_device])[0]
        )
        self.torch_device, self._core = device.memory, device.core
        self.pool = ThreadPoolExecutor(max_workers=1, initializer=self._start)

    def _start(self) -> None:
        torch.set_grad_enabled(False)
        if self.torch_device.type == "cuda":
            torch.cuda.set_device(self.torch_device)
            torch.cuda.set_stream(torch.cuda.Stream(self.torch_device))  # type: ignore[no-untyped-call]
        elif self._core >= 0:
            os.sched_setaffinity(0, {self._core})

    def close(self) -> None:
        """Ends the thread after its current call."""
        self.pool.shutdown(wait=True)

    def hand_over_s(self, n_calls: int = 200) -> FloatArray:
        """float64 [n_calls]: seconds from asking for an empty call to knowing that it is done."""
        seconds = np.zeros(n_calls)
        for i in range(n_calls):
            begin = time.perf_counter()
            self.pool.submit(lambda: None).result()
            seconds[i] = time.perf_counter() - begin
        return seconds

    def timed(self, call: Call) -> tuple[float, object]:
        """Seconds of one call on the worker's own thread, and what it returned."""
        if self.torch_device.type == "cuda":
            begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begun.record()
            made = call()
            done.record()
            done.synchronize()
            return float(begun.elapsed_time(done)) * 1e-3, made
        begin = time.perf_counter()
        made = call()
        return time.perf_counter() - begin, made


@dataclass(frozen=True, slots=True)
class Actor:
    """A worker and what it repeats.

    Attributes:
        worker: Where it runs.
        prepare: Makes the call, on the worker's thread, so that its operands lie where it computes.
        is_timed: False where it only keeps its device busy.
        rests: Whether it sleeps after each call as long as the call took: copies come now and then.
    """

    worker: TimingWorker
    prepare: Callable[[], Call]
    is_timed: bool = True
    rests: bool = False


def repeated_s(actors: Sequence[Actor], seconds: float) -> FloatArray:
    """Runs all actors at once until each timed one has computed that long, and at least `FEWEST_CALLS` times.

    Returns:
        float64 [n_calls]: seconds of every call of the timed actors.

    Raises:
        Exception: The first that an actor raised.
    """
    meeting, stop = Barrier(len(actors)), Event()
    unfinished = {i for i, actor in enumerate(actors) if actor.is_timed}

    def repeat(i: int) -> list[float]:
        actor, found = actors[i], list[float]()
        kept: deque[object] = deque(maxlen=KEPT_OUTPUTS)
        try:
            call = actor.prepare()
            spent = 0.0
            for done in range(WARM_UP_CALLS):
                if done >= FEWEST_WARM_UP_CALLS and spent >= seconds:
                    break
                took, made = actor.worker.timed(call)
                kept.append(made)
                spent += took
            meeting.wait()
            spent = 0.0
            while not stop.is_set():
                took, made = actor.worker.timed(call)
                kept.append(made)
                found.append(took)
                spent += took
                if spent >= seconds and len(found) >= FEWEST_CALLS:
                    unfinished.discard(i)
                    if not unfinished:
                        stop.set()
                if actor.rests:
                    stop.wait(took)
        except BaseException:
            stop.set()
            meeting.abort()
            raise
        return found

    futures: list[Future[list[float]]] = []
    try:
        for i, actor in enumerate(actors):
            futures.append(actor.worker.pool.submit(repeat, i))
        wait(futures)
    finally:
        # An interrupt ends the others' calls too.
        stop.set()
        meeting.abort()
        wait(futures)
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
    return np.array(
        [s for future, actor in zip(futures, actors, strict=True) if actor.is_timed for s in future.result()]
    )
