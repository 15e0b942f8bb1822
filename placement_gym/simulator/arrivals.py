"""Arrivals of the kernel where they are known at once: transfers that share nothing, each for one edge.

Then only the last arrival at an op, in the order of events, changes anything, and it alone becomes an event: once all
edges into the op are on their way. What was sent later has the larger key, so an edge that stays on its device, and
arrives at once, is the last only if it was sent last.
"""

import numpy as np
from numba import njit

from placement_gym.simulator.arrays import Options
from placement_gym.simulator.queues import heap_push

EDGE_HERE = 2  # the kind of event that delivers one edge


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def send(
    options: Options,
    edges: tuple[np.ndarray, ...],
    op_device: np.ndarray,
    transfer_times: np.ndarray,
    coming: tuple[np.ndarray, ...],
    ended: int,
    t: float,
    heap_n: int,
    now_tail: int,
    n_scheduled: int,
) -> tuple[int, int, int]:
    """Sends the edges of the op that ended at t; returns the new heap_n, now_tail and n_scheduled.

    `edges` is (out_start, dst_op, size, latency, bytes_per_tick, edge_factor), and `coming` is (missing, latest,
    latest_key, heap_time, heap_key, now_key): `latest` and `latest_key` [n_ops] are the last arrival so far at each
    op; `missing` counts the edges into it that are not sent yet, and the one that the event delivers.
    """
    missing, latest, latest_key, heap_time, heap_key, now_key = coming
    out_start, dst_op, size, latency, bytes_per_tick, edge_factor = edges
    src = op_device[ended]
    for k in range(out_start[ended], out_start[ended + 1]):
        op = dst_op[k]
        dst = op_device[op]
        arrival = t
        if dst != src:
            arrival = size[k] / bytes_per_tick[src, dst]
            if not options.latency_holds:
                arrival = latency[src, dst] + arrival
            if options.noisy:
                arrival = arrival * edge_factor[k]
            arrival = t + arrival
            if options.recording:
                transfer_times[0, k] = transfer_times[1, k] = t
                transfer_times[2, k] = arrival
                transfer_times[3, k] = arrival + (latency[src, dst] if options.latency_holds else 0.0)
        if arrival >= latest[op]:
            latest[op] = arrival
            latest_key[op] = (n_scheduled << 32) | (op << 3) | EDGE_HERE
        n_scheduled += 1
        if missing[op] > 1:
            missing[op] -= 1
        elif latest[op] > t:
            heap_push(heap_time, heap_key, heap_n, latest[op], latest_key[op])
            heap_n += 1
        else:
            now_key[now_tail] = latest_key[op]
            now_tail += 1
    return heap_n, now_tail, n_scheduled
