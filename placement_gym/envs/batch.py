"""Batch: B placements of one problem under construction, and what one step does to all of them, in Numba.

Functions that take `b` and `op` look at one episode. Those that take a whole batch check its actions first, and return
the first episode whose action is not allowed, in which case nothing has changed, or -1.

Dozens of arrays go from function to function here. Everything is inlined and runs without reference counts (`_nrt`,
which makes Numba refuse whatever would allocate), because these took eight times as long as the work.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.envs.observation import BOUND, DEVICE_FEATURES
from placement_gym.groups import Groups
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.clock import ClockProblem, ClockState, inputs_ready, move_inputs

N_FEATURES = len(DEVICE_FEATURES)
TIME, START, FINISH, START_BEHIND, FINISH_BEHIND, LOAD, INPUT_LOAD = range(7)
INPUT_START, INPUT_FINISH, FREE, MEMORY_LEFT, ALLOWED = range(7, N_FEATURES)


class Fixed(NamedTuple):
    """What holds for all episodes.

    Attributes:
        clock: The problem as the clock reads it.
        slots: int32 [n_devices].
        memory: float64 [n_devices], bytes.
        op_unit: int32 [n_ops].
        unit_memory: float64 [n_units], bytes.
        allowed: bool [n_units, n_devices], support.
        out_start: int32 [n_ops + 1], readers of op v are `out_ops[out_start[v]:out_start[v + 1]]`.
        out_ops: int32 [n_edges].
        reference_s: What times are measured by.
    """

    clock: ClockProblem
    slots: np.ndarray
    memory: np.ndarray
    op_unit: np.ndarray
    unit_memory: np.ndarray
    allowed: np.ndarray
    out_start: np.ndarray
    out_ops: np.ndarray
    reference_s: float

    @classmethod
    def of(cls, compiled: CompiledProblem, reference_s: float) -> "Fixed":
        """Of a problem and a rule. All arrays are copies, because Numba takes read-only ones for another type."""
        problem, graph, units = compiled.problem, compiled.problem.graph, Groups.of(compiled.problem)
        return cls(
            ClockProblem.of(compiled),
            np.array(problem.device_slots),
            np.array(problem.device_memory_bytes),
            np.array(units.op_unit),
            np.array(units.memory_bytes),
            np.array(units.allowed),
            np.array(graph.out_start),
            graph.edge_dst[graph.out_edges],
            reference_s,
        )


class Batch(NamedTuple):
    """What changes from step to step; axis 0 is the episode.

    Attributes:
        clock: Placements and finish times so far.
        unit_device: int32 [B, n_units], -1 for none.
        slot_free: float64 [B, n_devices, most slots], seconds; inf where the device has no such slot.
        load: float64 [B, n_devices], seconds of work placed.
        memory_used: float64 [B, n_devices], bytes.
        reached: float64 [B], seconds, latest finish so far.
        overfull: bool [B], whether a device holds more than its memory.
    """

    clock: ClockState
    unit_device: np.ndarray
    slot_free: np.ndarray
    load: np.ndarray
    memory_used: np.ndarray
    reached: np.ndarray
    overfull: np.ndarray

    @classmethod
    def fresh(cls, f: Fixed, n_episodes: int) -> "Batch":
        """Nothing placed."""
        b, d = n_episodes, len(f.slots)
        batch = cls(
            ClockState.fresh(f.clock, b),
            np.empty((b, len(f.unit_memory)), np.int32),
            np.empty((b, d, int(f.slots.max()))),
            np.empty((b, d)),
            np.empty((b, d)),
            np.empty(b),
            np.empty(b, np.bool_),
        )
        batch.clear(f)
        return batch

    def clear(self, f: Fixed) -> None:
        """Takes everything off the devices."""
        for array in (self.clock.op_device, self.clock.copied, self.unit_device):
            array.fill(-1)
        for array in (self.clock.finish, self.clock.channel_free, self.load, self.memory_used, self.reached):
            array.fill(0)
        self.overfull.fill(False)
        self.slot_free[:] = np.where(np.arange(self.slot_free.shape[2]) < f.slots[:, None], 0.0, np.inf)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def allow(f: Fixed, s: Batch, b: int, op: int, row: int, mask: np.ndarray) -> None:
    """Writes mask[row, :n_devices]: support, colocation, room; all that can run the unit where none has room."""
    u = f.op_unit[op]
    home = s.unit_device[b, u]
    any_fits = home >= 0
    for d in range(f.slots.size):
        if home >= 0:
            mask[row, d] = home == d
        else:
            fits = f.allowed[u, d] and s.memory_used[b, d] + f.unit_memory[u] <= f.memory[d]
            mask[row, d] = fits
            any_fits = any_fits or fits
    if not any_fits:
        for d in range(f.slots.size):
            mask[row, d] = f.allowed[u, d]


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def describe(f: Fixed, s: Batch, b: int, op: int, row: int, features: np.ndarray, mask: np.ndarray) -> None:
    """Writes features[row] [n_devices, N_FEATURES] and mask[row] for the placement of `op`, whose inputs are placed."""
    c = f.clock
    per_s = 1.0 / f.reference_s
    allow(f, s, b, op, row, mask)
    first_start, first_finish = np.inf, np.inf
    for d in range(f.slots.size):
        free = s.slot_free[b, d, 0]
        for i in range(1, s.slot_free.shape[2]):
            free = min(free, s.slot_free[b, d, i])
        load, input_start, input_finish = 0.0, np.inf, 0.0
        for k in range(c.in_start[op], c.in_start[op + 1]):
            a = c.src[k]
            if s.clock.op_device[b, a] == d:
                load += c.op_time[a, d]
                input_start = min(input_start, s.clock.finish[b, a] - c.op_time[a, d])
                input_finish = max(input_finish, s.clock.finish[b, a])
        time = c.op_time[op, d]
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
        features[row, d, FINISH_BEHIND] = features[row, d, FINISH] - first_finish if c.op_time[op, d] < np.inf else 0.0
        for i in range(N_FEATURES):
            features[row, d, i] = min(max(features[row, d, i], -BOUND), BOUND)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def put(f: Fixed, s: Batch, b: int, op: int, d: int) -> None:
    """Puts `op`, whose inputs are placed, on device d."""
    u = f.op_unit[op]
    if s.unit_device[b, u] < 0:
        s.unit_device[b, u] = d
        s.memory_used[b, d] += f.unit_memory[u]
        if s.memory_used[b, d] > f.memory[d]:
            s.overfull[b] = True
    time = f.clock.op_time[op, d]
    slot = 0
    for i in range(1, s.slot_free.shape[2]):
        if s.slot_free[b, d, i] < s.slot_free[b, d, slot]:
            slot = i
    finish = max(move_inputs(f.clock, s.clock, b, op, d), s.slot_free[b, d, slot]) + time
    s.clock.op_device[b, op] = d
    s.clock.finish[b, op] = finish
    s.slot_free[b, d, slot] = finish + (f.clock.device_hold if time > 0.0 else 0.0)
    s.load[b, d] += time
    s.reached[b] = max(s.reached[b], finish)
