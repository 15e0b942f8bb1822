"""PartialPlacement: what is known while ops are placed one after the other, and what placing one more does.

Environments, list scheduling and enumeration go by it: where a group may go, when a device is free, when an op could
start there. Arrays have the placement as axis 0, so that many are made in one call.

Dozens of arrays go from function to function here. Everything is inlined and runs without reference counts (`_nrt`,
which makes Numba refuse whatever would allocate), because these took eight times as long as the work.

Numba compiles a function again for each type that it is called with: a constant has one of its own, int32 another. So
placements, ops and devices are handed over as `np.int64`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.groups import Groups
from placement_gym.simulator.clock import ClockProblem, ClockState, inputs_ready, move_inputs
from placement_gym.simulator.compiled import CompiledProblem


class PartialProblem(NamedTuple):
    """What holds for all placements of a problem.

    Attributes:
        clock: The problem as the clock reads it.
        slots: int32 [n_devices].
        memory: float64 [n_devices], bytes.
        op_group: int32 [n_ops].
        group_memory: float64 [n_groups], bytes held throughout.
        group_working: float64 [n_groups], live bytes beside them while an op of the group runs, at least.
        allowed: bool [n_groups, n_devices], support.
        out_start: int32 [n_ops + 1], readers of op v are `out_ops[out_start[v]:out_start[v + 1]]`.
        out_ops: int32 [n_edges].
    """

    clock: ClockProblem
    slots: np.ndarray
    memory: np.ndarray
    op_group: np.ndarray
    group_memory: np.ndarray
    group_working: np.ndarray
    allowed: np.ndarray
    out_start: np.ndarray
    out_ops: np.ndarray

    @classmethod
    def of(cls, compiled: CompiledProblem, groups: Groups | None = None) -> "PartialProblem":
        """Of a problem and a rule; `groups` are those of the problem, but for the bytes that they count.

        All arrays are copies, because Numba takes read-only ones for another type.
        """
        problem, graph, groups = compiled.problem, compiled.problem.graph, groups or Groups.of(compiled.problem)
        return cls(
            ClockProblem.of(compiled),
            np.array(problem.device_slots),
            np.array(problem.device_memory_bytes),
            np.array(groups.op_group),
            np.array(groups.memory_bytes),
            np.array(groups.working_bytes),
            np.array(groups.allowed),
            np.array(graph.out_start),
            graph.edge_dst[graph.out_edges],
        )


class PartialPlacement(NamedTuple):
    """B placements of one problem under construction; axis 0 is the placement.

    Attributes:
        clock: Devices and finish times of the ops placed so far.
        group_device: int32 [B, n_groups], -1 for none.
        slot_free: float64 [B, n_devices, most slots], seconds; inf where the device has no such slot.
        load: float64 [B, n_devices], seconds of work placed.
        memory_used: float64 [B, n_devices], bytes held throughout.
        working: float64 [B, n_devices], the most live bytes beside them that an op placed there is known to need.
        reached: float64 [B], seconds, latest finish so far.
        overfull: bool [B], whether a device is known to hold more than its memory.
    """

    clock: ClockState
    group_device: np.ndarray
    slot_free: np.ndarray
    load: np.ndarray
    memory_used: np.ndarray
    working: np.ndarray
    reached: np.ndarray
    overfull: np.ndarray

    @classmethod
    def fresh(cls, f: PartialProblem, n_placements: int) -> "PartialPlacement":
        """Nothing placed."""
        n, d = f.clock.op_time.shape
        n_tensors = int(f.clock.tensor.max(initial=-1)) + 1 if f.clock.copies else 0
        n_channels = int(f.clock.channels.max(initial=-1)) + 1
        placement = cls.empty(n_placements, n, d, len(f.group_memory), int(f.slots.max()), n_tensors, n_channels)
        placement.clear(f)
        return placement

    @classmethod
    def empty(
        cls, b: int, n_ops: int, n_devices: int, n_groups: int, n_slots: int, n_tensors: int, n_channels: int
    ) -> "PartialPlacement":
        """Arrays for b placements of so many ops; clear them before use."""
        clock = ClockState(
            np.empty((b, n_ops), np.int32),
            np.empty((b, n_ops)),
            np.empty((b, n_tensors, n_devices)),
            np.empty((b, n_channels)),
        )
        load, memory_used, working = (np.empty((b, n_devices)) for _ in range(3))
        slot_free, reached = np.empty((b, n_devices, n_slots)), np.empty(b)
        group_device, overfull = np.empty((b, n_groups), np.int32), np.empty(b, np.bool_)
        return cls(clock, group_device, slot_free, load, memory_used, working, reached, overfull)

    def clear(self, f: PartialProblem) -> None:
        """Takes everything off the devices."""
        for array in (self.clock.op_device, self.clock.copied, self.group_device):
            array.fill(-1)
        for array in (self.clock.finish, self.clock.channel_free, self.load, self.memory_used, self.working):
            array.fill(0)
        self.reached.fill(0)
        self.overfull.fill(False)
        self.slot_free[:] = np.where(np.arange(self.slot_free.shape[2]) < f.slots[:, None], 0.0, np.inf)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def rewind(f: PartialProblem, s: PartialPlacement, b: int) -> None:
    """Sets the clock of placement b back to 0: nothing has run. Where ops and groups are stays, and their memory."""
    for op in range(s.clock.finish.shape[1]):
        s.clock.finish[b, op] = 0.0
    for i in range(s.clock.channel_free.shape[1]):
        s.clock.channel_free[b, i] = 0.0
    for d in range(s.load.shape[1]):
        s.load[b, d] = 0.0
        for i in range(s.clock.copied.shape[1]):
            s.clock.copied[b, i, d] = -1.0
        for i in range(s.slot_free.shape[2]):
            s.slot_free[b, d, i] = 0.0 if d < f.slots.size and i < f.slots[d] else np.inf
    s.reached[b] = 0.0


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def clear_row(f: PartialProblem, s: PartialPlacement, b: int) -> None:
    """Takes everything off the devices of placement b; its arrays may be larger than the problem needs."""
    rewind(f, s, b)
    for op in range(s.clock.op_device.shape[1]):
        s.clock.op_device[b, op] = -1
    for group in range(s.group_device.shape[1]):
        s.group_device[b, group] = -1
    for d in range(s.load.shape[1]):
        s.memory_used[b, d], s.working[b, d] = 0.0, 0.0
    s.overfull[b] = False


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def lacking(f: PartialProblem, s: PartialPlacement, b: int, group: int, device: int) -> float:
    """Bytes that a device is known to lack for a group that is not placed yet; it has room where they are <= 0.

    Under the memory rule "claims" that is all there is to know; under "live" a run may need more.
    """
    need = s.memory_used[b, device] + f.group_memory[group]
    return float(need + max(s.working[b, device], f.group_working[group]) - f.memory[device])


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def fits(f: PartialProblem, s: PartialPlacement, b: int, group: int, device: int) -> bool:
    """Whether ops of a group may go to a device: where the group is; else where all can run and there is room."""
    home = s.group_device[b, group]
    if home >= 0:
        return bool(home == device)
    return bool(f.allowed[group, device]) and lacking(f, s, b, group, device) <= 0.0


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def least_lacking(f: PartialProblem, s: PartialPlacement, b: int, group: int) -> int:
    """Where a group goes that fits nowhere: where it is, or the device that lacks least of those that can run it."""
    best = s.group_device[b, group]
    if best >= 0:
        return int(best)
    for device in range(f.slots.size):
        if f.allowed[group, device] and (best < 0 or lacking(f, s, b, group, device) < lacking(f, s, b, group, best)):
            best = device
    return int(best)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def least_slot(s: PartialPlacement, b: int, device: int) -> int:
    """The slot of a device that is free first, the first of equals."""
    slot = 0
    for i in range(1, s.slot_free.shape[2]):
        if s.slot_free[b, device, i] < s.slot_free[b, device, slot]:
            slot = i
    return slot


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def earliest_start(f: PartialProblem, s: PartialPlacement, b: int, op: int, device: int) -> float:
    """When `op`, whose inputs are placed, could start on a device after all that was placed there before."""
    free = s.slot_free[b, device, least_slot(s, b, device)]
    return float(max(free, inputs_ready(f.clock, s.clock, b, op, device)))


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def put_at(f: PartialProblem, s: PartialPlacement, b: int, op: int, device: int, slot: int, start: float) -> float:
    """Puts `op`, whose inputs have been moved, into a slot at a time that suits; returns when the slot is free."""
    group = f.op_group[op]
    if s.group_device[b, group] < 0:
        s.overfull[b] = s.overfull[b] or lacking(f, s, b, group, device) > 0.0
        s.group_device[b, group] = device
        s.memory_used[b, device] += f.group_memory[group]
        s.working[b, device] = max(s.working[b, device], f.group_working[group])
    time = f.clock.op_time[op, device]
    finish = start + time
    free = finish + (f.clock.device_hold if time > 0.0 else 0.0)
    s.clock.op_device[b, op] = device
    s.clock.finish[b, op] = finish
    s.slot_free[b, device, slot] = max(s.slot_free[b, device, slot], free)
    s.load[b, device] += time
    s.reached[b] = max(s.reached[b], finish)
    return float(free)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def put(f: PartialProblem, s: PartialPlacement, b: int, op: int, device: int) -> None:
    """Puts `op`, whose inputs are placed, on a device after all that was placed there before; its inputs are moved."""
    slot = least_slot(s, b, device)
    there = move_inputs(f.clock, s.clock, b, op, device)
    put_at(f, s, b, op, device, slot, max(there, s.slot_free[b, device, slot]))


@njit(cache=True, error_model="numpy", _nrt=False)
def copy_row(f: PartialProblem, s: PartialPlacement, source: int, to: int, ops: np.ndarray) -> None:
    """Makes placement `to` what `source` is, where the placing of `ops` is all in which they can differ."""
    s.reached[to], s.overfull[to] = s.reached[source], s.overfull[source]
    for i in range(s.clock.channel_free.shape[1]):
        s.clock.channel_free[to, i] = s.clock.channel_free[source, i]
    for d in range(f.slots.size):
        s.load[to, d] = s.load[source, d]
        s.memory_used[to, d] = s.memory_used[source, d]
        s.working[to, d] = s.working[source, d]
        for i in range(s.slot_free.shape[2]):
            s.slot_free[to, d, i] = s.slot_free[source, d, i]
    for op in ops:
        s.clock.op_device[to, op] = s.clock.op_device[source, op]
        s.clock.finish[to, op] = s.clock.finish[source, op]
        s.group_device[to, f.op_group[op]] = s.group_device[source, f.op_group[op]]
        if f.clock.copies:
            for k in range(f.clock.in_start[op], f.clock.in_start[op + 1]):
                for d in range(f.slots.size):
                    s.clock.copied[to, f.clock.tensor[k], d] = s.clock.copied[source, f.clock.tensor[k], d]
