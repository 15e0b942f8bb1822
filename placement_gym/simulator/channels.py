"""Contention of the kernel: which channels a transfer takes, for how long a multicast does, which transfer starts next.

`channels` int32 [d * d, k] says which channels each ordered pair of devices (pair = src * d + dst) takes
(`placement_gym.contention`), `taken` which channels are in use. Queue d + pair holds the transfers that wait. The pairs
that may have become able to start lie in `able[:n_able]`; `listed` marks them.
"""

import numpy as np
from numba import njit

from placement_gym.simulator.queues import comes_before


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def is_free(channels: np.ndarray, taken: np.ndarray, pair: int) -> bool:
    """Whether a transfer of the pair could start."""
    for c in range(channels.shape[1]):
        channel = channels[pair, c]
        if channel >= 0 and taken[channel] != 0:
            return False
    return True


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def set_taken(channels: np.ndarray, taken: np.ndarray, pair: int, value: int) -> None:
    """Takes (1) or frees (0) what a transfer of the pair occupies."""
    for c in range(channels.shape[1]):
        channel = channels[pair, c]
        if channel >= 0:
            taken[channel] = value


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def touch(
    channels: np.ndarray,
    channel_start: np.ndarray,
    channel_pairs: np.ndarray,
    head: np.ndarray,
    d: int,
    pair: int,
    able: np.ndarray,
    listed: np.ndarray,
    n_able: int,
) -> int:
    """Lists the pairs with waiting transfers that share a channel with `pair`; returns how many are listed."""
    for c in range(channels.shape[1]):
        channel = channels[pair, c]
        if channel < 0:
            continue
        for p in range(channel_start[channel], channel_start[channel + 1]):
            other = channel_pairs[p]
            if head[d + other] >= 0 and listed[other] == 0:
                listed[other] = 1
                able[n_able] = other
                n_able += 1
    return n_able


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def best_pair(
    mode: int,
    d: int,
    head: np.ndarray,
    channels: np.ndarray,
    taken: np.ndarray,
    joined: np.ndarray,
    rank: np.ndarray,
    able: np.ndarray,
    listed: np.ndarray,
    n_able: int,
) -> tuple[int, int]:
    """(the listed pair whose first transfer starts next, how many stay listed); -1 if none can.

    Channels are only taken while resources choose, so a pair that cannot start is off the list.
    """
    best = first = -1
    kept = 0
    for i in range(n_able):
        pair = able[i]
        item = head[d + pair]
        if item < 0 or not is_free(channels, taken, pair):
            listed[pair] = 0
            continue
        able[kept] = pair
        kept += 1
        if best < 0 or comes_before(mode, item, first, joined, rank):
            best, first = pair, item
    return best, kept


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def best_multicast(
    mode: int,
    waiting: np.ndarray,
    n: int,
    out_start: np.ndarray,
    src_op: np.ndarray,
    dst_op: np.ndarray,
    tensor: np.ndarray,
    op_device: np.ndarray,
    d: int,
    channels: np.ndarray,
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
            free = free and (dst == src or is_free(channels, taken, src * d + dst))
        if free:
            best = i
    return best


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
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
