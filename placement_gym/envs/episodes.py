"""Episodes: B placements of one problem built in lockstep, one op a step; the state behind every environment."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.envs.observation import BOUND, DEVICE_FEATURES
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.clock import ClockProblem, inputs_ready, move_inputs
from placement_gym.units import Units

N_FEATURES = len(DEVICE_FEATURES)


class State(NamedTuple):
    """What changes from step to step; axis 0 is the episode."""

    op_device: np.ndarray
    unit_device: np.ndarray
    finish: np.ndarray
    copied: np.ndarray
    sending: np.ndarray
    receiving: np.ndarray
    slot_free: np.ndarray
    load: np.ndarray
    memory_used: np.ndarray
    reached: np.ndarray
    overfull: np.ndarray


@njit(cache=True, nogil=True)
def observe(
    c: ClockProblem,
    s: State,
    op: int,
    reference_s: float,
    memory: np.ndarray,
    op_unit: np.ndarray,
    unit_memory: np.ndarray,
    allowed: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> None:
    """Writes features [B, n_devices, N_FEATURES] and mask [B, n_devices] for the placement of `op`."""
    n_devices = c.op_time.shape[1]
    u = op_unit[op]
    for b in range(s.op_device.shape[0]):
        any_fits = False
        for d in range(n_devices):
            if s.unit_device[b, u] >= 0:
                fits = s.unit_device[b, u] == d
            else:
                fits = allowed[u, d] and s.memory_used[b, d] + unit_memory[u] <= memory[d]
            mask[b, d] = fits
            any_fits = any_fits or fits
        if not any_fits:
            for d in range(n_devices):
                mask[b, d] = allowed[u, d]
        first_start, first_finish = np.inf, np.inf
        for d in range(n_devices):
            time = c.op_time[op, d]
            runs = np.isfinite(time)
            free = s.slot_free[b, d].min()
            start = inputs_ready(c, op, d, s.op_device[b], s.finish[b], s.copied[b], s.sending[b], s.receiving[b])
            start = max(start, free)
            input_load = 0.0
            for k in range(c.in_start[op], c.in_start[op + 1]):
                a = c.src[c.in_edges[k]]
                if s.op_device[b, a] == d:
                    input_load += c.op_time[a, d]
            if mask[b, d]:
                first_start = min(first_start, start)
                first_finish = min(first_finish, start + time)
            features[b, d, 0] = time / reference_s if runs else 0.0
            features[b, d, 1] = start / reference_s
            features[b, d, 2] = (start + time) / reference_s if runs else 0.0
            features[b, d, 5] = s.load[b, d] / reference_s
            features[b, d, 6] = input_load / reference_s
            features[b, d, 7] = free / reference_s
            features[b, d, 8] = 1.0 - s.memory_used[b, d] / memory[d]
            features[b, d, 9] = mask[b, d]
        for d in range(n_devices):
            runs = np.isfinite(c.op_time[op, d])
            features[b, d, 3] = features[b, d, 1] - first_start / reference_s
            features[b, d, 4] = features[b, d, 2] - first_finish / reference_s if runs else 0.0


@njit(cache=True, nogil=True)
def advance(
    c: ClockProblem,
    s: State,
    op: int,
    devices: np.ndarray,
    memory: np.ndarray,
    op_unit: np.ndarray,
    unit_memory: np.ndarray,
) -> None:
    """Puts `op` on devices[b] in each episode b."""
    u = op_unit[op]
    for b in range(s.op_device.shape[0]):
        d = devices[b]
        if s.unit_device[b, u] < 0:
            s.unit_device[b, u] = d
            s.memory_used[b, d] += unit_memory[u]
            if s.memory_used[b, d] > memory[d]:
                s.overfull[b] = True
        ready = move_inputs(c, op, d, s.op_device[b], s.finish[b], s.copied[b], s.sending[b], s.receiving[b])
        slot = s.slot_free[b, d].argmin()
        s.op_device[b, op] = d
        s.finish[b, op] = max(ready, s.slot_free[b, d, slot]) + c.op_time[op, d]
        s.slot_free[b, d, slot] = s.finish[b, op]
        s.load[b, d] += c.op_time[op, d]
        s.reached[b] = max(s.reached[b], s.finish[b, op])


class Episodes:
    """`n_episodes` placements of one problem, built op by op in a given order; checks nothing.

    Attributes:
        features: float32 [B, n_devices, N_FEATURES] for the op that is next.
        mask: bool [B, n_devices]: support, colocation and room; where a unit has room nowhere, all devices that
            can run it (the episode is then `overfull`).
        position: How many ops are placed.
        overfull: bool [B], whether a device holds more than its memory.
    """

    def __init__(self, compiled: CompiledProblem, order: IntArray, n_episodes: int, reference_s: float) -> None:
        self.compiled, self.order, self.reference_s = compiled, order, reference_s
        self._clock, self._units = ClockProblem.of(compiled), Units.of(compiled.problem)
        problem, b = compiled.problem, n_episodes
        n, d = problem.n_ops, problem.n_devices
        n_tensors = 0 if self._clock.per_edge else problem.graph.n_edges
        self._memory = np.array(problem.device_memory_bytes)
        self._state = State(
            op_device=np.empty((b, n), np.int32),
            unit_device=np.empty((b, self._units.n_units), np.int32),
            finish=np.empty((b, n)),
            copied=np.empty((b, n_tensors, d)),
            sending=np.empty((b, d)),
            receiving=np.empty((b, d)),
            slot_free=np.empty((b, d, int(problem.device_slots.max()))),
            load=np.empty((b, d)),
            memory_used=np.empty((b, d)),
            reached=np.empty(b),
            overfull=np.empty(b, np.bool_),
        )
        self.features = np.zeros((b, d, N_FEATURES), np.float32)
        self.mask = np.zeros((b, d), np.bool_)
        self.position = 0
        self.reset()

    @property
    def n_steps(self) -> int:
        """Steps of an episode: one per op."""
        return len(self.order)

    @property
    def op(self) -> int:
        """The op that is placed next (the last one when all are placed)."""
        return int(self.order[min(self.position, self.n_steps - 1)])

    @property
    def op_device(self) -> IntArray:
        """int32 [B, n_ops], -1 where not placed yet."""
        return self._state.op_device

    @property
    def reached_s(self) -> FloatArray:
        """float64 [B], latest finish on the clock so far."""
        return self._state.reached

    @property
    def overfull(self) -> NDArray[np.bool_]:
        """Bool [B], see the class."""
        return self._state.overfull

    def reset(self) -> None:
        """Takes everything off the devices."""
        for name, array in self._state._asdict().items():
            array.fill(-1 if name in ("op_device", "unit_device", "copied") else 0)
        # Slots that a device does not have are never free.
        for d, slots in enumerate(self.compiled.problem.device_slots):
            self._state.slot_free[:, d, slots:] = np.inf
        self.position = 0
        self._observe()

    def step(self, devices: IntArray) -> None:
        """Puts the next op on devices[b], int32 [B]."""
        units = self._units
        advance(self._clock, self._state, self.op, devices, self._memory, units.op_unit, units.memory_bytes)
        self.position += 1
        if self.position < self.n_steps:
            self._observe()

    def makespans_s(self) -> FloatArray:
        """float64 [B]: the simulator's word on the complete placements."""
        return self.compiled.makespans_s(np.ascontiguousarray(self.op_device))

    def _observe(self) -> None:
        units = self._units
        observe(
            self._clock,
            self._state,
            self.op,
            self.reference_s,
            self._memory,
            units.op_unit,
            units.memory_bytes,
            units.allowed,
            self.features,
            self.mask,
        )
        np.clip(self.features, -BOUND, BOUND, out=self.features)
