"""DeviceClasses: devices that an exact method may exchange."""

from dataclasses import dataclass

import numpy as np

from placement_gym.arrays import BoolArray, FloatArray
from placement_gym.errors import InvalidProblem
from placement_gym.objectives import pays_for_transfers
from placement_gym.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class DeviceClasses:
    """Devices of equal op times, memory, kind, slots and links are one class.

    Attributes:
        members: Device numbers of each class, ascending.
        time_s: float64 [n_ops, n_classes].
        memory_bytes: float64 [n_classes], capacity of each member.
        pays: bool [n_classes], whether transfers count as a member's load (CPUs pay none).
    """

    members: tuple[tuple[int, ...], ...]
    time_s: FloatArray
    memory_bytes: FloatArray
    pays: BoolArray

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.members)

    @classmethod
    def of(cls, problem: Problem) -> "DeviceClasses":
        """The classes of a problem's devices, by their first member."""
        members: list[list[int]] = []
        for d in range(problem.n_devices):
            for group in members:
                if _alike(problem, group[0], d) and all(_alike_links(problem, a, d) for a in group):
                    group.append(d)
                    break
            else:
                members.append([d])
        first = [group[0] for group in members]
        return cls(
            tuple(map(tuple, members)),
            np.ascontiguousarray(problem.op_time_s[:, first]),
            problem.device_memory_bytes[first],
            pays_for_transfers(problem)[first],
        )


def _alike(problem: Problem, a: int, b: int) -> bool:
    return (
        problem.device_kinds[a] == problem.device_kinds[b]
        and problem.device_slots[a] == problem.device_slots[b]
        and problem.device_memory_bytes[a] == problem.device_memory_bytes[b]
        and bool(np.array_equal(problem.op_time_s[:, a], problem.op_time_s[:, b]))
    )


def _alike_links(problem: Problem, a: int, b: int) -> bool:
    """Whether exchanging a and b changes no link."""
    swap = np.arange(problem.n_devices)
    swap[[a, b]] = swap[[b, a]]
    return all(
        bool(np.array_equal(links, links[np.ix_(swap, swap)]))
        for links in (problem.link_latency_s, problem.link_bytes_per_s)
    )


def tensor_times_s(problem: Problem) -> FloatArray:
    """float64 [n_edges]: seconds of each edge's tensor over any link of an accelerator.

    Raises:
        InvalidProblem: Links that touch an accelerator differ, so the time depends on the pair of devices.
    """
    accelerator = pays_for_transfers(problem)
    pays = (accelerator[:, None] | accelerator[None, :]) & ~np.eye(problem.n_devices, dtype=bool)
    latency, speed = problem.link_latency_s[pays], problem.link_bytes_per_s[pays]
    if not pays.any():
        return np.zeros(problem.graph.n_edges)
    if np.ptp(latency) > 0 or (speed != speed[0]).any():
        raise InvalidProblem(
            f"the links of {problem.name!r} differ from pair to pair; expected all links that touch an accelerator "
            "alike, so that a tensor's time does not depend on where it goes (mip takes links that differ)"
        )
    times: FloatArray = latency[0] + problem.graph.edge_bytes / speed[0]
    return times
