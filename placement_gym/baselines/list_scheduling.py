"""List scheduling in Numba: takes ready ops in an order of its own and puts each where it finishes first.

The clock is `simulator.clock`: an estimate that counts communication and waiting; results are simulated.
"""

import numpy as np
from numba import njit

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.errors import InfeasiblePlacement
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.clock import inputs_ready, move_inputs
from placement_gym.simulator.partial import PartialPlacement, PartialProblem, fits, put_at

# Which ready op is placed: that of the highest rank, or the pair of op and device of the least start plus bias.
BY_RANK, EARLIEST = 0, 1


@njit(cache=True)
def _free_from(ends: np.ndarray, starts: np.ndarray, n: int, ready: float, length: float) -> float:
    """Earliest time >= ready at which `length` fits between the n busy intervals (sorted) of a slot."""
    at = ready
    # Intervals that end before `ready` do not matter, and ends ascend as starts do.
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        if ends[middle] <= ready:
            low = middle + 1
        else:
            high = middle
    for i in range(low, n):
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
    bias: np.ndarray,
    jitter: np.ndarray,
    starts_at: np.ndarray,
    f: PartialProblem,
    s: PartialPlacement,
) -> None:
    """Places ops in row 0 of `s`, in which nothing is placed, until one fits nowhere.

    Args as in `place_by_list`; `jitter` float64 [n_ops] breaks ties between equal ranks, largest first. Writes the
    planned start of each op into `starts_at`, float64 [n_ops].
    """
    c = f.clock
    n, d = c.op_time.shape
    missing = np.zeros(n, np.int32)
    for i in range(n):
        missing[i] = c.in_start[i + 1] - c.in_start[i]
    width = n if insertion else 0
    starts = np.zeros((d, f.slots.max(), width))
    ends = np.zeros((d, f.slots.max(), width))
    n_busy = np.zeros((d, f.slots.max()), np.int32)
    ready = np.empty(n, np.int32)
    n_ready = 0
    for i in range(n):
        if missing[i] == 0:
            ready[n_ready] = i
            n_ready += 1
    for _ in range(n):
        best_i, best_device, best_slot, best_start, best_finish, best_score = -1, -1, 0, 0.0, np.inf, np.inf
        first, last = 0, n_ready
        if mode == BY_RANK:
            for i in range(1, n_ready):
                a, b = ready[i], ready[first]
                if rank[a] > rank[b] or (rank[a] == rank[b] and jitter[a] > jitter[b]):
                    first = i
            last = first + 1
        for i in range(first, last):
            v = ready[i]
            for place in range(d):
                # Devices are tried from a random one on, so that equal finish times are broken at random.
                device = (place + int(jitter[v] * d)) % d
                if not fits(f, s, 0, f.op_group[v], device):
                    continue
                there = inputs_ready(c, s.clock, 0, v, device)
                length = c.op_time[v, device]
                for slot in range(f.slots[device]):
                    if insertion:
                        start = _free_from(
                            ends[device, slot], starts[device, slot], n_busy[device, slot], there, length
                        )
                    else:
                        start = max(there, s.slot_free[0, device, slot])
                    score = bias[v, device] + (start if mode == EARLIEST else start + length)
                    better = score < best_score
                    if mode == EARLIEST and best_i >= 0 and score == best_score:
                        # Of those that are equally good the op of the highest rank, where it finishes first.
                        w = ready[best_i]
                        better = rank[v] > rank[w] or (v == w and start + length < best_finish)
                    if better:
                        best_i, best_device, best_slot = i, device, slot
                        best_start, best_finish, best_score = start, start + length, score
        if best_i < 0:
            return
        v = ready[best_i]
        n_ready -= 1
        ready[best_i] = ready[n_ready]
        move_inputs(c, s.clock, 0, v, best_device)
        free = put_at(f, s, 0, v, best_device, best_slot, best_start)
        starts_at[v] = best_start
        if insertion:
            busy = n_busy[best_device, best_slot]
            _insert(ends[best_device, best_slot], starts[best_device, best_slot], busy, best_start, free)
            n_busy[best_device, best_slot] += 1
        for k in range(f.out_start[v], f.out_start[v + 1]):
            w = f.out_ops[k]
            missing[w] -= 1
            if missing[w] == 0:
                ready[n_ready] = w
                n_ready += 1


def place_by_list(
    compiled: CompiledProblem,
    *,
    rank: FloatArray,
    jitter: FloatArray,
    bias: FloatArray | None = None,
    earliest_first: bool = False,
    insertion: bool = False,
    allowed: BoolArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """Places ops one by one: the ready op of the highest rank, where its finish plus bias is least.

    Args:
        compiled: Problem and rule.
        rank: float64 [n_ops], largest first among ready ops.
        jitter: float64 [n_ops] in [0, 1), breaks ties of ranks and of devices.
        bias: float64 [n_ops, n_devices], seconds added to a finish (or start) where devices are compared.
        earliest_first: Takes the pair of ready op and device with the least start plus bias instead.
        insertion: Uses gaps between ops already placed (HEFT).
        allowed: bool [n_groups, n_devices], where groups may go; wherever they can run by default.

    Returns:
        (int32 [n_ops], the devices; float64 [n_ops], the order of the planned starts as priority, earliest largest).

    Raises:
        InfeasiblePlacement: An op fits on no device any more; the message names it.
    """
    problem, graph = compiled.problem, compiled.problem.graph
    partial = PartialProblem.of(compiled)
    if allowed is not None:
        partial = partial._replace(allowed=allowed)
    placement = PartialPlacement.fresh(partial, 1)
    starts_at = np.zeros(problem.n_ops)
    schedule_list(
        EARLIEST if earliest_first else BY_RANK,
        insertion,
        np.ascontiguousarray(rank, dtype=np.float64),
        np.zeros(problem.op_time_s.shape) if bias is None else np.ascontiguousarray(bias),
        np.ascontiguousarray(jitter),
        starts_at,
        partial,
        placement,
    )
    op_device: IntArray = placement.clock.op_device[0]
    unplaced = np.flatnonzero(op_device < 0)
    if unplaced.size:
        raise InfeasiblePlacement(
            f"list scheduling of {problem.name!r} has no device left with room for op "
            f"{graph.op_names[int(unplaced[0])]!r} ({unplaced.size} ops unplaced)"
        )
    priority = np.empty(problem.n_ops)
    # Ops that start at one instant come in topological order.
    place = np.empty(problem.n_ops)
    place[graph.order] = np.arange(problem.n_ops)
    priority[np.lexsort((place, starts_at))] = -np.arange(problem.n_ops, dtype=np.float64)
    return op_device, priority
