"""List scheduling in Numba: takes ready ops in an order of its own and puts each where it finishes first.

The clock is `simulator.clock`: an estimate that counts communication and waiting; results are simulated.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.clock import inputs_ready, move_inputs
from placement_gym.simulator.partial import PartialPlacement, PartialProblem, fits, least_lacking, least_slot, put_at


class Choice(NamedTuple):
    """Which ready op comes next, and where it goes.

    Attributes:
        turn: int32 [n_ops], place of each op in the order of ranks, 0 first; ties are broken in it.
        bias: float64 [n_ops, n_devices], see `place_by_list`.
        least_bias: float64 [n_ops], the least of `bias`.
        first_device: int32 [n_ops], devices are tried from this one on; the first of equals is taken.
        earliest: Whether the pair of op and device of the least start comes next, not the op whose turn it is.
    """

    turn: np.ndarray
    bias: np.ndarray
    least_bias: np.ndarray
    first_device: np.ndarray
    earliest: bool


class Busy(NamedTuple):
    """When slots are busy, for ops that may go into gaps; without insertion there is no room for intervals.

    Attributes:
        start: float64 [n_devices, most slots, n_ops or 0], seconds, sorted.
        end: As `start`; no two intervals of a slot overlap.
        n_intervals: int32 [n_devices, most slots], how many.
    """

    start: np.ndarray
    end: np.ndarray
    n_intervals: np.ndarray


class Ready(NamedTuple):
    """Ops whose inputs are placed.

    Attributes:
        ops: int32 [n_ops], by turn, of which the first is the last one here.
        missing: int32 [n_ops], inputs not placed yet.
        soonest: float64 [n_ops, n_devices], seconds; no sooner are the inputs of an op there. Channels are never
            free earlier than they were said to be, so what was found once holds as a bound.
        least: float64 [n_ops], the least of `soonest`.
    """

    ops: np.ndarray
    missing: np.ndarray
    soonest: np.ndarray
    least: np.ndarray


@njit(cache=True, error_model="numpy", _nrt=False)
def _gap(busy: Busy, device: int, slot: int, ready: float, length: float) -> float:
    """Earliest time >= ready at which `length` fits between the busy intervals of a slot."""
    # Intervals that end before `ready` do not matter, and ends ascend as starts do.
    low, high = 0, busy.n_intervals[device, slot]
    while low < high:
        middle = (low + high) >> 1
        if busy.end[device, slot, middle] <= ready:
            low = middle + 1
        else:
            high = middle
    at = ready
    for i in range(low, busy.n_intervals[device, slot]):
        if at + length <= busy.start[device, slot, i]:
            break
        at = max(at, busy.end[device, slot, i])
    return at


@njit(cache=True, error_model="numpy", _nrt=False)
def _occupy(busy: Busy, device: int, slot: int, start: float, end: float) -> None:
    """Notes an interval at its place; one of no length comes before one that begins then, so that ends ascend."""
    starts, ends, i = busy.start[device, slot], busy.end[device, slot], busy.n_intervals[device, slot]
    while i > 0 and (starts[i - 1] > start or ends[i - 1] > end):
        starts[i], ends[i] = starts[i - 1], ends[i - 1]
        i -= 1
    starts[i], ends[i] = start, end
    busy.n_intervals[device, slot] += 1


@njit(cache=True, error_model="numpy", _nrt=False)
def _start(f: PartialProblem, s: PartialPlacement, busy: Busy, op: int, device: int) -> tuple[int, float]:
    """(slot, seconds) of the earliest start of an op on a device, in a gap where there are any."""
    ready = inputs_ready(f.clock, s.clock, np.int64(0), op, device)
    length = f.clock.op_time[op, device]
    length += f.clock.device_hold if length > 0.0 else 0.0
    best_slot, best = 0, np.inf
    for slot in range(f.slots[device]):
        if busy.start.shape[2] > 0:
            start = _gap(busy, device, slot, ready, length)
        else:
            start = max(ready, s.slot_free[0, device, slot])
        if start < best:
            best_slot, best = slot, start
    return best_slot, best


@njit(cache=True, error_model="numpy", _nrt=False)
def _first_finish(choice: Choice, f: PartialProblem, s: PartialPlacement, busy: Busy, op: int) -> int:
    """The device where finish plus bias is least; where the op fits nowhere, the one that lacks least memory."""
    best_device, best, d, row = -1, np.inf, f.slots.size, np.int64(0)
    for i in range(d):
        device = (choice.first_device[op] + i) % d
        if fits(f, s, row, f.op_group[op], device):
            _, start = _start(f, s, busy, op, device)
            score = choice.bias[op, device] + (start + f.clock.op_time[op, device])
            if score < best:
                best_device, best = device, score
    return best_device if best_device >= 0 else least_lacking(f, s, row, f.op_group[op])


@njit(cache=True, error_model="numpy", _nrt=False)
def _first_start(
    choice: Choice, f: PartialProblem, s: PartialPlacement, ready: Ready, n_ready: int, free: np.ndarray
) -> tuple[int, int]:
    """(place in `ready.ops`, device) of the pair whose start plus bias is least.

    Where no op fits anywhere, it is the op whose turn it is, on the device that lacks least memory.
    Of equal pairs that of the op whose turn it is, where it finishes first. `free` is scratch, float64 [n_devices].
    A pair is looked at only where its bound is below what was found; ops are looked at by turn, so that of many which
    could start at one time only the first is.
    """
    d, first_free, row = f.slots.size, np.inf, np.int64(0)
    for device in range(d):
        free[device] = s.slot_free[0, device, least_slot(s, row, device)]
        first_free = min(first_free, free[device])
    best_at, best_device, best = -1, -1, np.inf
    for at in range(n_ready - 1, -1, -1):
        op = np.int64(ready.ops[at])
        if choice.least_bias[op] + max(first_free, ready.least[op]) >= best:
            continue
        own_device, own, own_finish = -1, best, np.inf
        ready.least[op] = np.inf
        for i in range(d):
            device = (choice.first_device[op] + i) % d
            bias, known = choice.bias[op, device], ready.soonest[op, device]
            if not fits(f, s, row, f.op_group[op], device):
                known = np.inf
            elif bias + max(free[device], known) <= own:
                known = inputs_ready(f.clock, s.clock, row, op, device)
                start = max(free[device], known)
                score, finish = bias + start, start + f.clock.op_time[op, device]
                if score < own or (own_device >= 0 and score == own and finish < own_finish):
                    own_device, own, own_finish = device, score, finish
            ready.soonest[op, device] = known
            ready.least[op] = min(ready.least[op], known)
        if own_device >= 0:
            best_at, best_device, best = at, own_device, own
    if best_at < 0:
        group = f.op_group[ready.ops[n_ready - 1]]
        device = least_lacking(f, s, row, group)
        for at in range(n_ready):
            # The rest of the group may go there now, although it did not fit.
            if f.op_group[ready.ops[at]] == group:
                ready.soonest[ready.ops[at], device] = ready.least[ready.ops[at]] = 0.0
        return n_ready - 1, device
    return best_at, best_device


@njit(cache=True, error_model="numpy", _nrt=False)
def _add(choice: Choice, ready: Ready, n_ready: int, op: int) -> None:
    """Puts an op among the `n_ready` ready ones, at its place."""
    i = n_ready
    while i > 0 and choice.turn[ready.ops[i - 1]] < choice.turn[op]:
        ready.ops[i] = ready.ops[i - 1]
        i -= 1
    ready.ops[i] = op


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _schedule(
    choice: Choice,
    f: PartialProblem,
    s: PartialPlacement,
    busy: Busy,
    ready: Ready,
    free: np.ndarray,
    starts_at: np.ndarray,
) -> None:
    """Places all ops in row 0 of `s`, in which nothing is placed.

    Writes the planned start of each op into `starts_at`, float64 [n_ops].
    """
    n_ready, row = np.int64(0), np.int64(0)
    for source in range(f.op_group.size):
        if ready.missing[source] == 0:
            _add(choice, ready, n_ready, source)
            n_ready += 1
    while n_ready > 0:
        at = n_ready - 1
        if choice.earliest:
            at, device = _first_start(choice, f, s, ready, n_ready, free)
        else:
            device = _first_finish(choice, f, s, busy, np.int64(ready.ops[at]))
        op = np.int64(ready.ops[at])
        slot, start = _start(f, s, busy, op, device)
        move_inputs(f.clock, s.clock, row, op, device)
        end = put_at(f, s, row, op, device, slot, start)
        starts_at[op] = start
        if busy.start.shape[2] > 0:
            _occupy(busy, device, slot, start, end)
        n_ready -= 1
        for i in range(at, n_ready):
            ready.ops[i] = ready.ops[i + 1]
        for k in range(f.out_start[op], f.out_start[op + 1]):
            reader = np.int64(f.out_ops[k])
            ready.missing[reader] -= 1
            if ready.missing[reader] == 0:
                _add(choice, ready, n_ready, reader)
                n_ready += 1


class Listed(NamedTuple):
    """A placement made by list scheduling, with what was planned by its clock.

    Attributes:
        op_device: int32 [n_ops].
        priority: float64 [n_ops], the order of the planned starts, earliest largest; of equals the topological one.
        makespan_s: Planned, seconds.
    """

    op_device: IntArray
    priority: FloatArray
    makespan_s: float


def _turns(rank: FloatArray, jitter: FloatArray) -> IntArray:
    """int32 [n_ops]: largest rank first, then largest jitter, then smallest number."""
    turn = np.empty(len(rank), np.int32)
    turn[np.lexsort((-jitter, -rank))] = np.arange(len(rank))
    return turn


def place_by_list(
    compiled: CompiledProblem,
    *,
    rank: FloatArray,
    jitter: FloatArray | None = None,
    bias: FloatArray | None = None,
    earliest_first: bool = False,
    insertion: bool = False,
    partial: PartialProblem | None = None,
) -> Listed:
    """Places ops one by one: the ready op of the highest rank, where its finish plus bias is least.

    Of equal ops and of equal devices the one of the smallest number is taken. What has room nowhere goes where least is
    missing: a placement may not fit into memory.

    Args:
        compiled: Problem and rule.
        rank: float64 [n_ops], largest first among ready ops.
        jitter: float64 [n_ops] in [0, 1), breaks ties of ranks and of devices instead, at random.
        bias: float64 [n_ops, n_devices], seconds added to a finish (or start) where devices are compared.
        earliest_first: Takes the pair of ready op and device with the least start plus bias instead; ties go to the
            op of the highest rank, then to the device where it finishes first. Without insertion.
        insertion: Uses gaps between ops already placed (HEFT).
        partial: `PartialProblem.of(compiled)`, which many calls can share, or one with other bytes or devices.
    """
    graph, n, d = compiled.problem.graph, compiled.problem.n_ops, compiled.problem.n_devices
    assert not (earliest_first and insertion)
    partial = PartialProblem.of(compiled) if partial is None else partial
    placement, starts_at = PartialPlacement.fresh(partial, 1), np.zeros(n)
    drawn = np.zeros(n) if jitter is None else jitter
    biases = np.zeros((n, d)) if bias is None else np.ascontiguousarray(bias)
    first_device = (drawn * d).astype(np.int32)
    width, slots = n if insertion else 0, int(partial.slots.max())
    _schedule(
        Choice(_turns(rank, drawn), biases, biases.min(axis=1), first_device, earliest_first),
        partial,
        placement,
        Busy(np.zeros((d, slots, width)), np.zeros((d, slots, width)), np.zeros((d, slots), np.int32)),
        Ready(np.zeros(n, np.int32), np.diff(graph.in_start).astype(np.int32), np.zeros((n, d)), np.zeros(n)),
        np.zeros(d),
        starts_at,
    )
    op_device: IntArray = placement.clock.op_device[0]
    priority, place = np.empty(n), np.empty(n)
    # Ops that start at one instant come in topological order.
    place[graph.order] = np.arange(n)
    priority[np.lexsort((place, starts_at))] = -np.arange(n, dtype=np.float64)
    return Listed(op_device, priority, float(placement.reached[0]))
