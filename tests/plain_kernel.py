"""A pytest plugin: the simulator kernel in plain Python.

Run as `NUMBA_DISABLE_JIT=1 PYTHONPATH=tests pytest -p plain_kernel`. NumPy's integers of 32 bits do not grow there
as they do in Numba, so every run gets integers of 64 bits.
"""

from typing import Any

import numpy as np
from hypothesis import Phase, settings
from numpy.typing import NDArray

settings.register_profile("plain", database=None, phases=[Phase.explicit, Phase.generate])


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.int64) if array.dtype == np.int32 else array


def pytest_configure() -> None:
    """Puts a kernel that widens its integers where the kernel is; examples that fail are not made smaller."""
    # Here, since pytest takes notice of what it imports by itself.
    from placement_gym.baselines import moves
    from placement_gym.simulator import compiled
    from placement_gym.simulator.arrays import Arrays, Options, Workspace

    kernel: Any = vars(compiled)["run_many"]

    def run_many(
        options: Options, arrays: Arrays, op_devices: NDArray[np.int32], *times: NDArray[np.float64] | Workspace
    ) -> None:
        *written, work = times
        wide = Arrays(*map(_widened, arrays)), _widened(op_devices)
        kernel(options, *wide, *written, Workspace(*map(_widened, work)))

    for module in (compiled, moves):
        vars(module)["run_many"] = run_many
    settings.load_profile("plain")
