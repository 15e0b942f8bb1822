"""Deadline: the time limit of one call of an exact method, which Ctrl-C ends early."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Returned = TypeVar("Returned")
LOOK_S = 0.1


class OutOfTimeError(Exception):
    """The deadline is over; for use inside this room, where `Deadline.ends` catches it."""


class Deadline:
    """When a call has to return what it has found.

    Attributes:
        at_s: The instant, on the clock `time.perf_counter`.
        interrupted: Whether Ctrl-C has ended the call before that.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.at_s, self.interrupted = time.perf_counter() + seconds, False
        self._whole: Deadline | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, 0 once it is over."""
        return max(self.at_s - time.perf_counter(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.perf_counter() >= self.at_s

    def check(self) -> None:
        """Raises OutOfTimeError once the deadline is over."""
        if time.perf_counter() >= self.at_s:
            raise OutOfTimeError

    def share(self, share: float, *, least_s: float = 0.0) -> "Deadline":
        """The deadline of a step that may take a share of the seconds left, `least_s` in any case."""
        part = Deadline(max(share * self.left_s, least_s))
        part._whole = self
        return part

    def interrupt(self) -> None:
        """Ends the call now, because of Ctrl-C, and not only the step that hears of it."""
        self.at_s, self.interrupted = -math.inf, True
        if self._whole is not None:
            self._whole.interrupt()

    @contextmanager
    def ends(self) -> Iterator[None]:
        """A block that the deadline and Ctrl-C leave early, without an error."""
        try:
            yield
        except OutOfTimeError:
            pass
        except KeyboardInterrupt:
            self.interrupt()

    def run(self, work: Callable[[], Returned], stop: Callable[[], object]) -> Returned:
        """What `work` returns; at the deadline and on Ctrl-C `stop` is called, which makes it return early.

        Work without the GIL goes on in another thread: only so Python hears of Ctrl-C.
        """
        with futures.ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(work)
            try:
                while not future.done() and not self.is_over:
                    futures.wait([future], timeout=min(LOOK_S, self.left_s))
            except KeyboardInterrupt:
                self.interrupt()
            while not future.done():
                # A solver that has not begun yet does not hear the first call.
                stop()
                futures.wait([future], timeout=LOOK_S)
            return future.result()

    def run_kernel(self, kernel: Callable[[NDArray[np.uint8]], Returned]) -> Returned:
        """What a kernel without the GIL returns; its argument, uint8 [1], becomes 1 when it has to stop."""
        flag = np.zeros(1, dtype=np.uint8)
        return self.run(lambda: kernel(flag), lambda: flag.fill(1))
