"""The simulator kernel in plain Python, where an index past the end of an array is an error.

A pytest plugin, too: `NUMBA_DISABLE_JIT=1 PYTHONPATH=tests pytest -p plain_kernel` runs every simulation so.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import Phase, settings
from numpy.typing import NDArray

settings.register_profile("plain", database=None, phases=[Phase.explicit, Phase.generate])


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.int64) if array.dtype == np.int32 else array


def put_in_place(put: Callable[[Any, str, Any], None]) -> None:
    """Puts plain functions where the kernel's are; `put` is as `setattr`."""
    # Not at the top, since pytest takes notice of what it imports after its plugins.
    from placement_gym.baselines import moves
    from placement_gym.simulator import arrivals, channels, compiled, kernel, queues, weigh
    from placement_gym.simulator.arrays import Arrays, Options, Workspace

    for module in (kernel, arrivals, channels, queues):
        for name, function in list(vars(module).items()):
            if hasattr(function, "py_func"):
                put(module, name, function.py_func)
    plain: Any = kernel.run_many

    def run_many(options: Options, arrays: Arrays, op_devices: NDArray[np.int32], *rest: Any) -> None:
        # NumPy's integers of 32 bits do not grow in plain Python as they do in Numba.
        *written, work = rest
        plain(options, Arrays(*map(_widened, arrays)), _widened(op_devices), *written, Workspace(*map(_widened, work)))

    put(compiled, "run_many", run_many)
    for module in (moves, weigh):
        if not hasattr(vars(module)["run_many"], "py_func"):  # else only compiled code calls it
            put(module, "run_many", run_many)


def pytest_configure() -> None:
    """As a plugin; examples that fail are not made smaller."""
    put_in_place(setattr)
    settings.load_profile("plain")
