"""Contention of the kernel: which channels a transfer takes, for how long a multicast does, which transfer starts next.

Channels of d devices lie in one bool array: [0, d) sending, [d, 2d) receiving (or the one channel of a half-duplex
device), [2d, 2d + d*d) links, row = sender. Queue d + src * d + dst holds the transfers that wait from src to dst.
"""

import numpy as np
from numba import njit

from placement_gym.simulator.queues import comes_before

NONE, LINK, EGRESS, PORT, HALF_DUPLEX = 0, 1, 2, 3, 4


@njit(cache=True)
def is_free(contention: int, taken: np.ndarray, d: int, src: int, dst: int) -> bool:
    """Whether a transfer from src to dst could start."""
    if contention == LINK:
        return not taken[2 * d + src * d + dst]
    if contention == EGRESS:
        return not taken[src]
    if contention == PORT:
        return not (taken[src] or taken[d + dst])
    return not (taken[d + src] or taken[d + dst])


@njit(cache=True)
def set_taken(contention: int, taken: np.ndarray, d: int, src: int, dst: int, value: bool) -> None:
    """Takes or frees what a transfer from src to dst occupies."""
    if contention == LINK:
        taken[2 * d + src * d + dst] = value
    elif contention == HALF_DUPLEX:
        taken[d + src] = value
        taken[d + dst] = value
    else:
        taken[src] = value
        if contention == PORT:
            taken[d + dst] = value


@njit(cache=True)
def best_queue(
    mode: int,
    contention: int,
    x: int,
    y: int,
    d: int,
    head: np.ndarray,
    taken: np.ndarray,
    joined: np.ndarray,
    rank: np.ndarray,
) -> int:
    """The queue whose first transfer starts next, -1 if none can; asked when x may send or y (if >= 0) may receive.

    No other pending transfer can have become able to start, so only those that leave x or enter y are looked
    at; with half duplex, those that touch x or y.
    """
    if contention == LINK and y >= 0:
        q = d + x * d + y
        return q if head[q] >= 0 and not taken[d + q] else -1
    best = -1
    n_ways = 1
    if y >= 0 and contention == PORT:
        n_ways = 2
    elif y >= 0 and contention == HALF_DUPLEX:
        n_ways = 4
    for way in range(n_ways):
        for other in range(d):
            src, dst = x, other
            if way == 1:
                src, dst = other, y
            elif way == 2:
                src, dst = other, x
            elif way == 3:
                src, dst = y, other
            if src == dst:
                continue
            q = d + src * d + dst
            if (
                head[q] >= 0
                and (best < 0 or comes_before(mode, head[q], head[best], joined, rank))
                and is_free(contention, taken, d, src, dst)
            ):
                best = q
    return best


@njit(cache=True)
def best_multicast(
    mode: int,
    contention: int,
    waiting: np.ndarray,
    n: int,
    out_start: np.ndarray,
    src_op: np.ndarray,
    dst_op: np.ndarray,
    tensor: np.ndarray,
    op_device: np.ndarray,
    d: int,
    taken: np.ndarray,
    joined: np.ndarray,
    rank: np.ndarray,
) -> int:
    """Index in `waiting` (walk places of multicasts) of the one that starts next, -1 if none can."""
    best = -1
    for i in range(waiting.size):
        k = waiting[i]
        if best >= 0 and not comes_before(mode, n + k, n + waiting[best], joined, rank):
            continue
        src = op_device[src_op[k]]
        free = True
        for j in range(k, out_start[src_op[k] + 1]):
            if tensor[j] != tensor[k]:
                break
            dst = op_device[dst_op[j]]
            free = free and (dst == src or is_free(contention, taken, d, src, dst))
        if free:
            best = i
    return best


@njit(cache=True, error_model="numpy")
def multicast_s(
    k: int,
    latency_holds: bool,
    out_start: np.ndarray,
    src_op: np.ndarray,
    dst_op: np.ndarray,
    tensor: np.ndarray,
    size: np.ndarray,
    latency: np.ndarray,
    bytes_per_tick: np.ndarray,
    op_device: np.ndarray,
) -> tuple[float, float]:
    """(seconds until the multicast at walk place k arrives, seconds that its channels stay taken after that)."""
    arrival = 0.0
    after = 0.0
    src = op_device[src_op[k]]
    for j in range(k, out_start[src_op[k] + 1]):
        if tensor[j] != tensor[k]:
            break
        dst = op_device[dst_op[j]]
        if dst != src:
            delay = latency[src, dst]
            flight = size[j] / bytes_per_tick[src, dst]
            if latency_holds:
                arrival = max(arrival, flight)
                after = max(after, delay)
            else:
                arrival = max(arrival, delay + flight)
    return arrival, after
