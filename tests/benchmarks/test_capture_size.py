"""Capture of a large model."""

import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.mark.benchmark
def test_seven_billion_parameters(figure: Callable[..., bool]) -> None:
    """7 billion parameters are captured within 30 s and 2 GiB, in a process of its own."""
    code = (
        "import resource, time; from placement_gym.pytorch.capture import capture_from; t = time.perf_counter();"
        "g = capture_from('placement_gym.pytorch.models:llama');"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20;"
        "print(time.perf_counter() - t, peak, g.op_parameter_bytes.sum() / 4)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    seconds, gib, parameters = (float(x) for x in out)
    assert parameters > 6.5e9
    fast = figure("capture of 7 billion parameters", seconds, "s", "< 30", parameters=parameters)
    small = figure("memory of that capture", gib, "GiB", "< 2")
    assert [fast, small] == [True, True]
