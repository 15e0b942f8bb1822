"""Fixtures of the tests that run kernels."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt; the processes of a parallel test run have another handler."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Threads, collector, switch interval, torch's threads and the cores of this thread are as before."""

    def state() -> tuple[object, ...]:
        cores = os.sched_getaffinity(0)
        return threading.active_count(), gc.isenabled(), sys.getswitchinterval(), torch.get_num_threads(), cores

    before = state()
    yield
    assert state() == before
