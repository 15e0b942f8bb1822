"""kept_memory: freed memory stays with the process while graphs run, so that no run pays for taking it anew."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt (malloc.h), what they are while running, and their defaults.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
RUNNING = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
DEFAULTS = ((M_ARENA_MAX, 0), (M_MMAP_MAX, 65536), (M_TRIM_THRESHOLD, 128 << 10), (M_TOP_PAD, 0))


@contextmanager
def kept_memory() -> Iterator[None]:
    """While it holds, the C library keeps freed blocks; afterwards it gives them back.

    By default it returns large blocks to the system at once, and a new one costs a page fault per 4 KiB: an
    elementwise kernel takes twice as long then, whenever its output happens to be new. Only glibc knows these
    settings; elsewhere nothing is changed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    for parameter, value in RUNNING:
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in DEFAULTS:
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
