"""Times as the event loops add them up: seconds, or whole numbers of ticks where a problem has a tick."""

import numpy as np

from placement_gym.arrays import FloatArray
from placement_gym.problem import Problem
from placement_gym.rule import Rule


def times_in_ticks(problem: Problem, rule: Rule) -> tuple[FloatArray, FloatArray, FloatArray, float, float]:
    """(op times, latencies, bandwidths, device hold, seconds per tick): what the event loops add up.

    Seconds, and a tick of 1 s, for a problem without a tick; else whole numbers of ticks.
    """
    op_time, latency, bytes_per_s = problem.op_time_s, problem.link_latency_s, problem.link_bytes_per_s
    tick = problem.tick_s
    if tick == 0:
        return op_time, latency, bytes_per_s, rule.device_hold_s, 1.0
    return np.round(op_time / tick), np.round(latency / tick), bytes_per_s * tick, rule.device_hold_s / tick, tick
