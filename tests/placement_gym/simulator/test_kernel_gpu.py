"""The simulator kernel compiles for a GPU from the same source and gives the same makespans."""

import numpy as np
import pytest
from strategies import random_placement, random_problem

from placement_gym.simulator import compile_problem
from placement_gym.simulator.arrays import Arrays, Workspace
from placement_gym.simulator.kernel import run_many


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["physical", "link", "giph", "placeto"])
def test_gpu_equals_cpu(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 placements, one GPU thread each: makespans are equal bit for bit."""
    if not hasattr(np, "row_stack"):  # numba-cuda 0.30 asks for what NumPy 2.5 dropped
        monkeypatch.setattr(np, "row_stack", np.vstack, raising=False)
    cuda = pytest.importorskip("numba.cuda")
    if not cuda.is_available():
        pytest.skip("needs a CUDA device")

    @cuda.jit
    def run_one(options, arrays, op_devices, ends, untold, floats, longs, ints) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        b = cuda.grid(1)
        if b < op_devices.shape[0]:
            work = Workspace(floats[b], longs[b], ints[b])
            run_many(options, arrays, op_devices[b : b + 1], ends[b : b + 1], untold, untold, work)

    rng = np.random.default_rng(0)
    problem = random_problem(rng, n_ops=40, n_devices=4, edge_share=0.1)
    compiled = compile_problem(problem, rule)
    op_devices = np.stack([random_placement(rng, problem) for _ in range(512)])
    work = Workspace.for_run(compiled.arrays)
    rows = [cuda.device_array((len(op_devices), part.size), part.dtype) for part in work]
    arrays = Arrays(*(cuda.to_device(part) for part in compiled.arrays))
    ends, untold = cuda.to_device(np.zeros((len(op_devices), 2))), cuda.to_device(np.empty((4, 0)))
    run_one[8, 64](compiled.options, arrays, cuda.to_device(op_devices), ends, untold, *rows)
    column = 1 if compiled.rule.makespan == "last_event" else 0
    np.testing.assert_array_equal(ends.copy_to_host()[:, column] * compiled.tick_s, compiled.makespans_s(op_devices))
