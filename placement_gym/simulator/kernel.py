"""The simulator in Numba, equal bit for bit to `reference.py`, which says what it does and why in that order.

Edges are numbered by their place in the walk (`trace.walk_order`), so the edges of one op, and of one tensor,
lie together. An item of a queue is an op (its number) or a transfer (n_ops + the walk place of its first edge).

One long function on purpose: arrays handed from function to function cost a reference count each, several times
what an event costs. Each kind of work (walk, transfers, ops) stands in the loop once.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.simulator.channels import NONE, best_multicast, best_queue, multicast_s, set_taken
from placement_gym.simulator.queues import LIFO, PRIORITY, heap_drop, heap_push, merge

EDGE, TENSOR, MULTICAST = 0, 1, 2
OP_END, DEVICE_FREE, EDGE_HERE, READY, TRANSFER_END, CHANNEL_FREE = 0, 1, 2, 3, 4, 5


class Options(NamedTuple):
    """A `Rule` in numbers."""

    queue: int
    transfers: int
    contention: int
    device_hold: float
    latency_holds: bool
    noisy: bool
    recording: bool


class Arrays(NamedTuple):
    """What a run reads: problem and rule, times in ticks. Edges in walking order."""

    op_time: np.ndarray
    slots: np.ndarray
    n_inputs: np.ndarray
    out_start: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    size: np.ndarray
    tensor: np.ndarray
    latency: np.ndarray
    bytes_per_tick: np.ndarray
    priority: np.ndarray
    op_factor: np.ndarray
    edge_factor: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def run_many(
    options: Options,
    arrays: Arrays,
    op_devices: np.ndarray,
    ends: np.ndarray,
    op_times: np.ndarray,
    transfer_times: np.ndarray,
) -> None:
    """Simulates placements one after the other.

    Args:
        options: The rule.
        arrays: The problem.
        op_devices: int32 [B, n_ops].
        ends: float64 [B, 2], written: finish of the last op, time of the last event.
        op_times: float64 [4, n_ops] (ready, start, finish, release) of the last placement, written if
            `options.recording`.
        transfer_times: float64 [4, n_edges] (ready, start, arrival, release), in walking order, likewise.
    """
    mode, transfers, contention, device_hold, latency_holds, noisy, recording = options
    op_time, slots, n_inputs, out_start, src_op, dst_op, size, tensor, latency, bytes_per_tick = arrays[:10]
    priority, op_factor, edge_factor = arrays[10:]
    n, m, d = n_inputs.size, dst_op.size, slots.size
    contended = contention != NONE
    multicast = transfers == MULTICAST
    n_items = n + m if contended else n
    n_queues = d + d * d if contended else d

    heap_time = np.empty(n + m + d + 1, np.float64)
    heap_key = np.empty(n + m + d + 1, np.int64)
    now_key = np.empty(n + m, np.int64)
    missing = np.empty(n, np.int32)
    free_slots = np.empty(d, np.int32)
    head = np.empty(n_queues, np.int32)
    tail = np.empty(n_queues, np.int32)
    nxt = np.empty(n_items, np.int32)
    right = np.empty(n_items if mode == PRIORITY else 0, np.int32)
    joined = np.empty(n_items, np.int64)
    rank = np.empty(n_items if mode == PRIORITY else 0, np.float64)
    for i in range(n if mode == PRIORITY else 0):
        rank[i] = priority[i]
    taken = np.empty(2 * d + d * d, np.bool_)
    stamp = np.empty(d, np.int32)
    waiting = np.empty(m if contended and multicast else 0, np.int32)

    for b in range(op_devices.shape[0]):
        op_device = op_devices[b]
        for i in range(n):
            missing[i] = n_inputs[i]
        for i in range(d):
            free_slots[i] = slots[i]
            stamp[i] = -1
        for i in range(n_queues):
            head[i] = -1
        for i in range(taken.size):
            taken[i] = False
        heap_n, now_head, now_tail, n_scheduled, n_joined, n_waiting = 0, 0, 0, 0, 0, 0

        step, t, last_op = 0, 0.0, 0.0
        while True:
            # What this event leaves to do: start ops on `device`; start transfers that leave x or enter y; make
            # transfers on the walk places [walk, walk_end); deliver the edges of the transfer at walk place `arrived`.
            # Op `ready` joins its queue at the end of this event where nothing else is left to do at this instant:
            # just what its own event would do.
            device, x, y, walk, walk_end, arrived, released, ended, ready = -1, -1, -1, 0, 0, -1, -1, -1, -1
            if step < 2 * n:
                # First all ops without inputs join their queues, then their devices start.
                op = step % n
                if n_inputs[op] == 0 and step < n:
                    ready = op
                elif n_inputs[op] == 0:
                    device = op_device[op]
                step += 1
            else:
                if now_head < now_tail and not (heap_n > 0 and heap_time[0] == t and heap_key[0] < now_key[now_head]):
                    key = now_key[now_head]
                    now_head += 1
                elif heap_n > 0:
                    t = heap_time[0]
                    key = heap_key[0]
                    heap_drop(heap_time, heap_key, heap_n)
                    heap_n -= 1
                else:
                    ends[b, 0] = last_op
                    ends[b, 1] = t
                    break
                kind = key & 7
                item = (key & 0xFFFFFFFF) >> 3
                if kind == EDGE_HERE:
                    missing[item] -= 1
                    if missing[item] == 0:
                        if now_head == now_tail and (heap_n == 0 or heap_time[0] > t):
                            ready = item
                        else:
                            now_key[now_tail] = (n_scheduled << 32) | (item << 3) | READY
                            now_tail += 1
                            n_scheduled += 1
                elif kind == READY:
                    ready = item
                elif kind == OP_END:
                    last_op = t
                    ended = item
                    walk = out_start[item]
                    walk_end = out_start[item + 1]
                elif kind == TRANSFER_END:
                    arrived = item
                elif kind == CHANNEL_FREE:
                    released = item
                else:
                    device = item
                    free_slots[item] += 1

            if arrived >= 0:
                src = op_device[src_op[arrived]]
                dst = op_device[dst_op[arrived]]
                for j in range(arrived, out_start[src_op[arrived] + 1] if transfers != EDGE else arrived + 1):
                    if tensor[j] != tensor[arrived]:
                        break
                    op = dst_op[j]
                    if op_device[op] == dst or (multicast and op_device[op] != src):
                        missing[op] -= 1
                        if missing[op] == 0:
                            if ready < 0 and now_head == now_tail and (heap_n == 0 or heap_time[0] > t):
                                ready = op
                            else:
                                now_key[now_tail] = (n_scheduled << 32) | (op << 3) | READY
                                now_tail += 1
                                n_scheduled += 1
                hold = 0.0
                if latency_holds and multicast:
                    _, hold = multicast_s(
                        arrived, True, out_start, src_op, dst_op, tensor, size, latency, bytes_per_tick, op_device
                    )
                elif latency_holds:
                    hold = latency[src, dst]
                if recording:
                    transfer_times[2, arrived] = t
                    transfer_times[3, arrived] = t + hold
                if hold > 0.0 and contended:
                    heap_push(
                        heap_time, heap_key, heap_n, t + hold, (n_scheduled << 32) | (arrived << 3) | CHANNEL_FREE
                    )
                    heap_n += 1
                    n_scheduled += 1
                else:
                    released = arrived

            if released >= 0 and contended:
                x = op_device[src_op[released]]
                y = op_device[dst_op[released]]
                for j in range(released, out_start[src_op[released] + 1] if multicast else released + 1):
                    if tensor[j] != tensor[released]:
                        break
                    if op_device[dst_op[j]] != x:
                        set_taken(contention, taken, d, x, np.int64(op_device[dst_op[j]]), False)

            # Walk places in turn, then transfers that wait: each turn starts at most one transfer, k.
            while walk < walk_end or x >= 0:
                if walk < walk_end:
                    k = walk
                    walk += 1
                    src = op_device[ended]
                    dst = op_device[dst_op[k]]
                    if dst == src:
                        now_key[now_tail] = (n_scheduled << 32) | (dst_op[k] << 3) | EDGE_HERE
                        now_tail += 1
                        n_scheduled += 1
                        continue
                    if transfers != EDGE:
                        place = 0 if multicast else dst
                        if stamp[place] == tensor[k]:
                            continue
                        stamp[place] = tensor[k]
                    if recording:
                        transfer_times[0, k] = t
                    if contended:
                        if mode == PRIORITY:
                            rank[n + k] = priority[dst_op[k]]
                            for j in range(k + 1, walk_end if transfers != EDGE else 0):
                                there = op_device[dst_op[j]]
                                if tensor[j] == tensor[k] and (there == dst or (multicast and there != src)):
                                    rank[n + k] = max(rank[n + k], priority[dst_op[j]])
                        joined[n + k] = n_joined
                        n_joined += 1
                        x = src
                        if multicast:
                            waiting[n_waiting] = k
                            n_waiting += 1
                        else:
                            queue = d + src * d + dst
                            transfer = n + k
                            if mode == PRIORITY:
                                nxt[transfer] = right[transfer] = -1
                                head[queue] = merge(np.int64(head[queue]), transfer, nxt, right, joined, rank)
                            elif mode == LIFO or head[queue] < 0:
                                nxt[transfer] = head[queue]
                                head[queue] = transfer
                                tail[queue] = transfer
                            else:
                                nxt[transfer] = -1
                                nxt[tail[queue]] = transfer
                                tail[queue] = transfer
                        continue
                elif multicast:
                    left = waiting[:n_waiting]
                    i = best_multicast(
                        mode, contention, left, n, out_start, src_op, dst_op, tensor, op_device, d, taken, joined, rank
                    )
                    if i < 0:
                        break
                    k = waiting[i]
                    n_waiting -= 1
                    waiting[i] = waiting[n_waiting]
                else:
                    i = best_queue(mode, contention, x, y, d, head, taken, joined, rank)
                    if i < 0:
                        break
                    k = head[i] - n
                    if mode == PRIORITY:
                        head[i] = merge(np.int64(nxt[n + k]), np.int64(right[n + k]), nxt, right, joined, rank)
                    else:
                        head[i] = nxt[n + k]
                src = op_device[src_op[k]]
                dst = op_device[dst_op[k]]
                if contended:
                    for j in range(k, out_start[src_op[k] + 1] if multicast else k + 1):
                        if tensor[j] != tensor[k]:
                            break
                        if op_device[dst_op[j]] != src:
                            set_taken(contention, taken, d, src, np.int64(op_device[dst_op[j]]), True)
                if recording:
                    transfer_times[1, k] = t
                if multicast:
                    arrival, _ = multicast_s(
                        k, latency_holds, out_start, src_op, dst_op, tensor, size, latency, bytes_per_tick, op_device
                    )
                elif latency_holds:
                    arrival = size[k] / bytes_per_tick[src, dst]
                else:
                    arrival = latency[src, dst] + size[k] / bytes_per_tick[src, dst]
                if noisy:
                    arrival = arrival * edge_factor[k]
                heap_push(heap_time, heap_key, heap_n, t + arrival, (n_scheduled << 32) | (k << 3) | TRANSFER_END)
                heap_n += 1
                n_scheduled += 1

            if ended >= 0:
                src = op_device[ended]
                hold = 0.0
                if device_hold > 0.0 and op_time[ended, src] > 0.0:
                    hold = device_hold
                if recording:
                    op_times[2, ended] = t
                    op_times[3, ended] = t + hold
                if hold > 0.0:
                    heap_push(heap_time, heap_key, heap_n, t + hold, (n_scheduled << 32) | (src << 3) | DEVICE_FREE)
                    heap_n += 1
                    n_scheduled += 1
                else:
                    free_slots[src] += 1
                    device = src

            if ready >= 0:
                if recording:
                    op_times[0, ready] = t
                queue = op_device[ready]
                joined[ready] = n_joined
                n_joined += 1
                if mode == PRIORITY:
                    nxt[ready] = right[ready] = -1
                    head[queue] = merge(np.int64(head[queue]), ready, nxt, right, joined, rank)
                elif mode == LIFO or head[queue] < 0:
                    nxt[ready] = head[queue]
                    head[queue] = ready
                    tail[queue] = ready
                else:
                    nxt[ready] = -1
                    nxt[tail[queue]] = ready
                    tail[queue] = ready
                if step > n:
                    device = queue
            while device >= 0 and free_slots[device] > 0 and head[device] >= 0:
                op = head[device]
                if mode == PRIORITY:
                    head[device] = merge(np.int64(nxt[op]), np.int64(right[op]), nxt, right, joined, rank)
                else:
                    head[device] = nxt[op]
                free_slots[device] -= 1
                if recording:
                    op_times[1, op] = t
                duration = op_time[op, device]
                if noisy:
                    duration = duration * op_factor[op]
                heap_push(heap_time, heap_key, heap_n, t + duration, (n_scheduled << 32) | (op << 3) | OP_END)
                heap_n += 1
                n_scheduled += 1
