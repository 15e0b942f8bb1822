"""List scheduling in Numba: takes ready ops in an order of its own and puts each where it finishes first.

The clock is `simulator.clock`: an estimate that counts communication and waiting; results are simulated.
"""

import numpy as np
from numba import njit

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.errors import InfeasiblePlacement
from placement_gym.groups import Groups
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.clock import ClockProblem, ClockState, inputs_ready, move_inputs

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
    c: ClockProblem,
    s: ClockState,
    slots: np.ndarray,
    out_start: np.ndarray,
    out_edges: np.ndarray,
    dst: np.ndarray,
    op_unit: np.ndarray,
    allowed: np.ndarray,
    unit_memory: np.ndarray,
    memory: np.ndarray,
) -> np.ndarray:
    """int32 [n_ops]: device of each op, -1 from the first op on that fits nowhere.

    Args as in `place_by_list`, and the state of a clock with nothing placed; `jitter` float64 [n_ops] breaks ties
    between equal ranks, largest first.
    """
    n, d = c.op_time.shape
    op_device: IntArray = s.op_device[0]
    missing = np.zeros(n, np.int32)
    for i in range(n):
        missing[i] = c.in_start[i + 1] - c.in_start[i]
    width = n if insertion else 1
    starts = np.zeros((d, slots.max(), width))
    ends = np.zeros((d, slots.max(), width))
    n_busy = np.zeros((d, slots.max()), np.int32)
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
                there = inputs_ready(c, s, 0, v, device)
                length = c.op_time[v, device]
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
        move_inputs(c, s, 0, v, best_device)
        s.finish[0, v] = best_finish
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
    units: Groups,
    *,
    rank: FloatArray,
    jitter: FloatArray,
    earliest_first: bool = False,
    insertion: bool = False,
) -> IntArray:
    """Places ops one by one, each where it finishes first by the clock above.

    Args:
        compiled: Problem and rule.
        units: Groups of the problem.
        rank: float64 [n_ops], largest first among ready ops.
        jitter: float64 [n_ops] in [0, 1), breaks ties of ranks and of devices.
        earliest_first: Takes the ready op that can start first instead (Baechi's earliest task first).
        insertion: Uses gaps between ops already placed (HEFT).

    Returns:
        int32 [n_ops].

    Raises:
        InfeasiblePlacement: An op fits on no device any more; the message names it.
    """
    problem, graph = compiled.problem, compiled.problem.graph
    clock = ClockProblem.of(compiled)
    op_device: IntArray = schedule_list(
        EARLIEST if earliest_first else BY_RANK,
        insertion,
        np.ascontiguousarray(rank),
        np.ascontiguousarray(jitter),
        clock,
        ClockState.fresh(clock, 1),
        problem.device_slots,
        graph.out_start,
        graph.out_edges,
        graph.edge_dst,
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
