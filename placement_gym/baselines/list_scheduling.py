"""List scheduling in Numba: takes ready ops in an order of its own and puts each where it finishes first.

The clock counts communication and waiting: a tensor is copied once to a device (per edge under rule `edge`), and
under contention a transfer waits for its sender and its receiver. It is an estimate; results are simulated.
"""

import numpy as np
from numba import njit

from placement_gym.baselines.units import Units
from placement_gym.errors import InfeasiblePlacement
from placement_gym.graph import FloatArray, IntArray
from placement_gym.simulator import CompiledProblem

BY_RANK, EARLIEST = 0, 1


@njit(cache=True)
def _free_from(ends: np.ndarray, starts: np.ndarray, n: int, ready: float, length: float) -> float:
    """Earliest time >= ready at which `length` fits between the n busy intervals (sorted) of a slot."""
    at = ready
    for i in range(n):
        if at + length <= starts[i]:
            return at
        at = max(at, ends[i])
    return at


@njit(cache=True)
def _insert(ends: np.ndarray, starts: np.ndarray, n: int, start: float, end: float) -> None:
    i = n
    while i > 0 and starts[i - 1] > start:
        starts[i] = starts[i - 1]
        ends[i] = ends[i - 1]
        i -= 1
    starts[i] = start
    ends[i] = end


@njit(cache=True, nogil=True)
def schedule_list(
    mode: int,
    insertion: bool,
    rank: np.ndarray,
    jitter: np.ndarray,
    op_time: np.ndarray,
    slots: np.ndarray,
    in_start: np.ndarray,
    in_edges: np.ndarray,
    out_start: np.ndarray,
    out_edges: np.ndarray,
    src: np.ndarray,
    dst: np.ndarray,
    size: np.ndarray,
    tensor: np.ndarray,
    latency: np.ndarray,
    bytes_per_s: np.ndarray,
    contended: bool,
    per_edge: bool,
    op_unit: np.ndarray,
    allowed: np.ndarray,
    unit_memory: np.ndarray,
    memory: np.ndarray,
) -> np.ndarray:
    """int32 [n_ops]: device of each op, -1 from the first op on that fits nowhere.

    Args as in `place_by_list`; `jitter` float64 [n_ops] breaks ties between equal ranks, largest first.
    """
    n, d = op_time.shape
    op_device = np.full(n, -1, np.int32)
    finish = np.zeros(n)
    missing = np.zeros(n, np.int32)
    for i in range(n):
        missing[i] = in_start[i + 1] - in_start[i]
    width = n if insertion else 1
    starts = np.zeros((d, slots.max(), width))
    ends = np.zeros((d, slots.max(), width))
    n_busy = np.zeros((d, slots.max()), np.int32)
    copied = np.full((0 if per_edge else tensor.size, d), -1.0)
    sending = np.zeros(d)
    receiving = np.zeros(d)
    free = memory.copy()
    unit_device = np.full(unit_memory.size, -1, np.int32)
    ready = np.empty(n, np.int32)
    n_ready = 0
    for i in range(n):
        if missing[i] == 0:
            ready[n_ready] = i
            n_ready += 1
    for _ in range(n):
        best_i, best_device, best_slot, best_start, best_finish = -1, -1, 0, 0.0, np.inf
        first, last = 0, n_ready
        if mode == BY_RANK:
            for i in range(1, n_ready):
                a, b = ready[i], ready[first]
                if rank[a] > rank[b] or (rank[a] == rank[b] and jitter[a] > jitter[b]):
                    first = i
            last = first + 1
        for i in range(first, last):
            v = ready[i]
            u = op_unit[v]
            for place in range(d):
                # Devices are tried from a random one on, so that equal finish times are broken at random.
                device = (place + int(jitter[v] * d)) % d
                if not allowed[u, device]:
                    continue
                if unit_device[u] >= 0:
                    if unit_device[u] != device:
                        continue
                elif free[device] < unit_memory[u]:
                    continue
                there = 0.0
                for k in range(in_start[v], in_start[v + 1]):
                    e = in_edges[k]
                    a = src[e]
                    if op_device[a] == device:
                        there = max(there, finish[a])
                    elif not per_edge and copied[tensor[e], device] >= 0:
                        there = max(there, copied[tensor[e], device])
                    else:
                        leave = finish[a]
                        if contended:
                            leave = max(leave, max(sending[op_device[a]], receiving[device]))
                        there = max(
                            there, leave + latency[op_device[a], device] + size[e] / bytes_per_s[op_device[a], device]
                        )
                length = op_time[v, device]
                for slot in range(slots[device]):
                    if insertion:
                        start = _free_from(
                            ends[device, slot], starts[device, slot], n_busy[device, slot], there, length
                        )
                    else:
                        start = max(there, ends[device, slot, 0])
                    better = start + length < best_finish
                    if mode == EARLIEST:
                        # Earliest task first: the op that can start first; of those the highest rank.
                        better = best_i < 0 or start < best_start
                        if best_i >= 0 and start == best_start:
                            w = ready[best_i]
                            better = rank[v] > rank[w] or (v == w and start + length < best_finish)
                    if better:
                        best_i, best_device, best_slot = i, device, slot
                        best_start, best_finish = start, start + length
        if best_i < 0:
            return op_device
        v = ready[best_i]
        n_ready -= 1
        ready[best_i] = ready[n_ready]
        op_device[v] = best_device
        u = op_unit[v]
        if unit_device[u] < 0:
            unit_device[u] = best_device
            free[best_device] -= unit_memory[u]
        for k in range(in_start[v], in_start[v + 1]):
            e = in_edges[k]
            home = op_device[src[e]]
            if home == best_device or (not per_edge and copied[tensor[e], best_device] >= 0):
                continue
            leave = finish[src[e]]
            if contended:
                leave = max(leave, max(sending[home], receiving[best_device]))
            arrive = leave + latency[home, best_device] + size[e] / bytes_per_s[home, best_device]
            if contended:
                sending[home] = arrive
                receiving[best_device] = arrive
            if not per_edge:
                copied[tensor[e], best_device] = arrive
        finish[v] = best_finish
        if insertion:
            busy = n_busy[best_device, best_slot]
            _insert(ends[best_device, best_slot], starts[best_device, best_slot], busy, best_start, best_finish)
            n_busy[best_device, best_slot] += 1
        else:
            ends[best_device, best_slot, 0] = best_finish
        for k in range(out_start[v], out_start[v + 1]):
            w = dst[out_edges[k]]
            missing[w] -= 1
            if missing[w] == 0:
                ready[n_ready] = w
                n_ready += 1
    return op_device


def place_by_list(
    compiled: CompiledProblem,
    units: Units,
    *,
    rank: FloatArray,
    jitter: FloatArray,
    earliest_first: bool = False,
    insertion: bool = False,
) -> IntArray:
    """Places ops one by one, each where it finishes first by the clock above.

    Args:
        compiled: Problem and rule.
        units: Units of the problem.
        rank: float64 [n_ops], largest first among ready ops.
        jitter: float64 [n_ops] in [0, 1), breaks ties of ranks and of devices.
        earliest_first: Takes the ready op that can start first instead (Baechi's earliest task first).
        insertion: Uses gaps between ops already placed (HEFT).

    Returns:
        int32 [n_ops].

    Raises:
        InfeasiblePlacement: An op fits on no device any more; the message names it.
    """
    problem, graph, rule = compiled.problem, compiled.problem.graph, compiled.rule
    op_device: IntArray = schedule_list(
        EARLIEST if earliest_first else BY_RANK,
        insertion,
        np.ascontiguousarray(rank),
        np.ascontiguousarray(jitter),
        problem.op_time_s,
        problem.device_slots,
        graph.in_start,
        graph.in_edges,
        graph.out_start,
        graph.out_edges,
        graph.edge_src,
        graph.edge_dst,
        graph.edge_bytes,
        graph.edge_tensor,
        problem.link_latency_s,
        problem.link_bytes_per_s,
        rule.contention in ("port", "half_duplex"),
        rule.transfers == "edge",
        units.op_unit,
        units.allowed,
        units.memory_bytes,
        problem.device_memory_bytes,
    )
    unplaced = np.flatnonzero(op_device < 0)
    if unplaced.size:
        raise InfeasiblePlacement(
            f"list scheduling of {problem.name!r} has no device left with room for op "
            f"{graph.op_names[int(unplaced[0])]!r} ({unplaced.size} ops unplaced)"
        )
    return op_device
