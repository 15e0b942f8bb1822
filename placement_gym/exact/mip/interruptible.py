"""interruptible: a solver that Ctrl-C can end."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any


def interruptible(run: Callable[[], Any], stop: Callable[[], Any]) -> Any:  # noqa: ANN401
    """What `run` returns; Python hears of Ctrl-C only while the solver is in another thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(run)
        try:
            while not future.done():
                wait([future], timeout=0.2)
        except KeyboardInterrupt:
            stop()
            raise
        return future.result()
