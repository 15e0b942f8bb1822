"""Placement: op -> device, and what can be said against it before it is run (support, colocation, memory)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.arrays import FloatArray, IntArray, read_only
from placement_gym.errors import InfeasiblePlacement
from placement_gym.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where each op runs.

    Attributes:
        op_device: int32 [n_ops], device number of each op.

    Raises:
        InfeasiblePlacement: Not a list of whole numbers.
    """

    op_device: IntArray

    def __post_init__(self) -> None:
        array = np.asarray(self.op_device)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InfeasiblePlacement(
                f"op_device has shape {array.shape} and dtype {array.dtype}; expected whole numbers of shape [n_ops]"
            )
        object.__setattr__(self, "op_device", read_only(array, np.int32))

    def check(self, problem: Problem) -> None:
        """Raises InfeasiblePlacement, saying what, where and by how much, unless the placement is feasible."""
        reason = infeasibility(problem, self.op_device)
        if reason is not None:
            raise InfeasiblePlacement(reason)


def unpadded(op_device: ArrayLike, n_ops: int) -> IntArray:
    """The placement without the -1 behind its last op, with which environments of problems of many sizes pad it."""
    devices = np.asarray(op_device)
    padded = devices.ndim == 1 and len(devices) > n_ops and bool((devices[n_ops:] == -1).all())
    return devices[:n_ops] if padded else devices


def device_memory_used_bytes(problem: Problem, op_device: ArrayLike) -> FloatArray:
    """float64 [n_devices]: bytes that each device holds at least; exact under the memory rule "claims".

    Under "live" it is the parameters and what the op of the largest inputs and output needs while it runs; the worst
    instant of a run, `Schedule.peak_memory_bytes`, may be more.
    """
    devices = np.asarray(op_device)
    held, working = np.zeros(problem.n_devices), np.zeros(problem.n_devices)
    np.add.at(held, devices, problem.op_memory_bytes)
    np.maximum.at(working, devices, problem.op_working_bytes)
    return held + working


def infeasibility(problem: Problem, op_device: ArrayLike, *, memory: bool = True) -> str | None:
    """Why `op_device` [n_ops] is infeasible for `problem`, or None if nothing is known against it before it is run.

    Support: every op has a finite time on its device. Colocation: ops of one group share a device. Memory: what a
    device holds at least (`device_memory_used_bytes`) does not exceed its capacity; equality is allowed. Under the
    memory rule "live" a run may hold more: `Schedule.excess_bytes` has the last word. `memory=False` leaves it out.
    """
    devices = unpadded(op_device, problem.n_ops)
    names = problem.graph.op_names
    if devices.shape != (problem.n_ops,):
        return f"op_device has shape {devices.shape}; expected ({problem.n_ops},), one device per op"
    outside = np.flatnonzero((devices < 0) | (devices >= problem.n_devices))
    if outside.size:
        i = int(outside[0])
        return f"op {names[i]!r} is on device {devices[i]}; expected 0..{problem.n_devices - 1}"
    unsupported = np.flatnonzero(~np.isfinite(problem.op_time_s[np.arange(problem.n_ops), devices]))
    if unsupported.size:
        i = int(unsupported[0])
        able = [problem.device_names[d] for d in np.flatnonzero(np.isfinite(problem.op_time_s[i]))]
        return f"op {names[i]!r} cannot run on device {problem.device_names[devices[i]]!r}; it can run on {able}"
    used = device_memory_used_bytes(problem, devices)
    over = np.flatnonzero(used > problem.device_memory_bytes)
    if memory and over.size:
        d = int(over[0])
        at_least = " at least" if problem.memory_rule == "live" else ""
        return (
            f"device {problem.device_names[d]!r} would hold {used[d]:.6g} bytes{at_least}; "
            f"its memory is {problem.device_memory_bytes[d]:.6g} bytes"
        )
    groups = problem.graph.op_colocation
    if bool((groups >= 0).any()):
        members = np.flatnonzero(groups >= 0)
        ids, first = np.unique(groups[members], return_index=True)
        home = devices[members[first]]
        apart = np.flatnonzero(devices[members] != home[np.searchsorted(ids, groups[members])])
        if apart.size:
            i = int(members[apart[0]])
            anchor = int(members[first[np.searchsorted(ids, groups[i])]])
            return (
                f"op {names[i]!r} is on device {problem.device_names[devices[i]]!r} but {names[anchor]!r} of the same "
                f"colocation group {groups[i]} is on {problem.device_names[devices[anchor]]!r}"
            )
    return None
