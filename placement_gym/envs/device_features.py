"""What an environment says of the devices to which an op may go: mask and features, written in Numba.

Functions look at one episode, `b`, of a batch of placements under construction (`simulator/partial.py`).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.envs.observation import ACTION_FEATURES, BOUND
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.clock import inputs_ready
from placement_gym.simulator.partial import PartialPlacement, PartialProblem, fits, least_slot

N_FEATURES = len(ACTION_FEATURES)
TIME, START, FINISH, START_BEHIND, FINISH_BEHIND, LOAD, INPUT_LOAD = range(7)
INPUT_START, INPUT_FINISH, FREE, MEMORY_LEFT, ALLOWED = range(7, N_FEATURES)


class EpisodeProblem(NamedTuple):
    """What holds for all episodes of a problem.

    Attributes:
        partial: The problem.
        reference_s: Seconds that times are measured by.
        work: float64 [n_ops, n_devices], seconds of what is placed along with an op: its own time, or its group's.
    """

    partial: PartialProblem
    reference_s: float
    work: np.ndarray

    @classmethod
    def of(cls, compiled: CompiledProblem, reference_s: float) -> "EpisodeProblem":
        """Of a problem and a rule; every op is placed by itself."""
        partial = PartialProblem.of(compiled)
        return cls(partial, reference_s, partial.clock.op_time)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def allow(f: PartialProblem, s: PartialPlacement, b: int, op: int, row: int, mask: np.ndarray) -> None:
    """Writes mask[row, :n_devices]: support, colocation, room; all that can run the group where none has room."""
    group, any_fits = f.op_group[op], False
    for d in range(f.slots.size):
        mask[row, d] = fits(f, s, b, group, d)
        any_fits = any_fits or mask[row, d]
    if not any_fits:
        for d in range(f.slots.size):
            mask[row, d] = f.allowed[group, d]


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def describe(
    problem: EpisodeProblem, s: PartialPlacement, b: int, op: int, row: int, features: np.ndarray, mask: np.ndarray
) -> None:
    """Writes features[row] [n_devices, N_FEATURES] and mask[row] for the placement of `op`, whose inputs are placed."""
    allow(problem.partial, s, b, op, row, mask)
    describe_masked(problem, s, b, op, row, features, mask)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def describe_masked(
    problem: EpisodeProblem, s: PartialPlacement, b: int, op: int, row: int, features: np.ndarray, mask: np.ndarray
) -> None:
    """Writes features[row] as `describe`, for a mask[row] that is there."""
    f, c = problem.partial, problem.partial.clock
    per_s = 1.0 / problem.reference_s
    first_start, first_finish = np.inf, np.inf
    for d in range(f.slots.size):
        free = s.slot_free[b, d, least_slot(s, b, d)]
        load, input_start, input_finish = 0.0, np.inf, 0.0
        for k in range(c.in_start[op], c.in_start[op + 1]):
            a = c.src[k]
            if s.clock.op_device[b, a] == d:
                load += c.op_time[a, d]
                input_start = min(input_start, s.clock.finish[b, a] - c.op_time[a, d])
                input_finish = max(input_finish, s.clock.finish[b, a])
        time = problem.work[op, d]
        runs = time < np.inf
        start = max(free, inputs_ready(c, s.clock, b, op, d))
        features[row, d, TIME] = time * per_s if runs else 0.0
        features[row, d, START] = start * per_s
        features[row, d, FINISH] = (start + time) * per_s if runs else 0.0
        features[row, d, LOAD] = s.load[b, d] * per_s
        features[row, d, INPUT_LOAD] = load * per_s
        features[row, d, INPUT_START] = input_start * per_s if input_start < np.inf else 0.0
        features[row, d, INPUT_FINISH] = input_finish * per_s
        features[row, d, FREE] = free * per_s
        features[row, d, MEMORY_LEFT] = 1.0 - s.memory_used[b, d] / f.memory[d]
        features[row, d, ALLOWED] = 1.0 if mask[row, d] else 0.0
        if mask[row, d]:
            # Read back as float32, so that what ties is behind by exactly 0.
            first_start = min(first_start, features[row, d, START])
            first_finish = min(first_finish, features[row, d, FINISH])
    for d in range(f.slots.size):
        features[row, d, START_BEHIND] = features[row, d, START] - first_start
        features[row, d, FINISH_BEHIND] = (
            features[row, d, FINISH] - first_finish if problem.work[op, d] < np.inf else 0.0
        )
        for i in range(N_FEATURES):
            features[row, d, i] = min(max(features[row, d, i], -BOUND), BOUND)
