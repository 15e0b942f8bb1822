"""The simulator in Numba, equal bit for bit to `reference.py`, which says what it does and why in that order.

Edges are numbered by their place in the walk (`trace.walk_order`), so the edges of one op, and of one tensor,
lie together. An item of a queue is an op (its number) or a transfer (n_ops + the walk place of its first edge).

One long function on purpose: arrays handed from function to function cost a reference count each, several times
what an event costs. Each kind of work (walk, transfers, ops) stands in the loop once.
"""

import numpy as np
from numba import njit

from placement_gym.simulator.arrays import Arrays, Options, Workspace
from placement_gym.simulator.arrivals import EDGE_HERE, send
from placement_gym.simulator.channels import best_multicast, best_pair, multicast_s, set_taken, touch
from placement_gym.simulator.queues import PRIORITY, heap_drop, heap_push, join, leave

EDGE, TENSOR, MULTICAST = 0, 1, 2
OP_END, DEVICE_FREE, READY, TRANSFER_END, CHANNEL_FREE = 0, 1, 3, 4, 5  # and EDGE_HERE


@njit(cache=True, nogil=True, error_model="numpy")
def run_many(
    options: Options,
    arrays: Arrays,
    op_devices: np.ndarray,
    ends: np.ndarray,
    op_times: np.ndarray,
    transfer_times: np.ndarray,
    work: Workspace,
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
        work: `Workspace.for_run`; the kernel allocates nothing.
    """
    mode, transfers, whole, device_hold, latency_holds, noisy, recording = options
    op_time, slots, n_inputs, out_start, src_op, dst_op, size, tensor, latency, bytes_per_tick = arrays[:10]
    channels, channel_start, channel_pairs, priority, op_factor, edge_factor = arrays[10:]
    n, m, d, n_channels = n_inputs.size, dst_op.size, slots.size, channel_start.size - 1
    contended, multicast = n_channels > 0, transfers == MULTICAST
    foreseen = transfers == EDGE and not contended and not whole  # see `arrivals.py`
    n_items, n_queues, n_events = n + m, d + d * d, n + m + d + 1

    heap_time, rank = work.floats[:n_events], work.floats[n_events : n_events + n_items]
    heap_key, now_key = work.longs[:n_events], work.longs[n_events : n_events + n + m]
    joined = work.longs[n_events + n + m : n_events + n + m + n_items]
    latest, latest_key = work.floats[n_events + n_items :], work.longs[n_events + n + m + n_items :]
    ints = work.ints
    missing, ints = ints[:n], ints[n:]
    free_slots, ints = ints[:d], ints[d:]
    stamp, ints = ints[:d], ints[d:]
    head, ints = ints[:n_queues], ints[n_queues:]
    tail, ints = ints[:n_queues], ints[n_queues:]
    nxt, ints = ints[:n_items], ints[n_items:]
    right, ints = ints[:n_items], ints[n_items:]
    taken, ints = ints[:n_channels], ints[n_channels:]
    able, ints = ints[: d * d], ints[d * d :]
    listed, ints = ints[: d * d], ints[d * d :]
    waiting = ints[:m]
    edges = (out_start, dst_op, size, latency, bytes_per_tick, edge_factor)
    coming = (missing, latest, latest_key, heap_time, heap_key, now_key)
    for i in range(n if mode == PRIORITY else 0):
        rank[i] = priority[i]

    for b in range(op_devices.shape[0]):
        op_device = op_devices[b]
        for i in range(n):
            missing[i] = n_inputs[i]
            latest[i] = 0.0
        for i in range(d):
            free_slots[i] = slots[i]
            stamp[i] = -1
        for i in range(n_queues if contended else d):
            head[i] = -1
        for i in range(n_channels):
            taken[i] = 0
        for i in range(d * d if contended else 0):
            listed[i] = 0
        heap_n, now_head, now_tail, n_scheduled, n_joined, n_waiting, n_able = 0, 0, 0, 0, 0, 0, 0
        look = False
        low, high = d, 0

        step, t, last_op = 0, 0.0, 0.0
        while True:
            # What this event leaves to do: make transfers on the walk places [walk, walk_end); deliver the edges of the
            # transfer at walk place `arrived`; free the channels of `released`; start ops on `device`.
            # With whole instants, ops that become ready lie in `now_key` until they join their queues below, and
            # resources choose (`decide`) after the last completion of an instant. With single events, they choose
            # after each, and op `ready` joins at the end of this event where nothing else is left to do at this
            # instant: just what its own event would do.
            device, walk, walk_end, arrived, released, ended, ready = -1, 0, 0, -1, -1, -1, -1
            decide = True
            if step < n or (step < 2 * n and not whole):
                # First all ops without inputs join their queues, then their devices start.
                op = step if step < n else step - n
                step += 1
                if n_inputs[op] > 0 and step != n:
                    continue
                if n_inputs[op] == 0 and step <= n:
                    ready = op
                elif n_inputs[op] == 0:
                    device = op_device[op]
                decide = step == n or not whole
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
                    if foreseen:
                        heap_n, now_tail, n_scheduled = send(
                            options, edges, op_device, transfer_times, coming, item, t, heap_n, now_tail, n_scheduled
                        )
                    else:
                        walk, walk_end = out_start[item], out_start[item + 1]
                elif kind == TRANSFER_END:
                    arrived = item
                elif kind == CHANNEL_FREE:
                    released = item
                else:
                    device = item
                    free_slots[item] += 1
                decide = not whole or heap_n == 0 or heap_time[0] > t

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
                            if whole:
                                now_key[now_tail] = op
                                now_tail += 1
                            elif ready < 0 and now_head == now_tail and (heap_n == 0 or heap_time[0] > t):
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
                src = op_device[src_op[released]]
                look = True
                for j in range(released, out_start[src_op[released] + 1] if multicast else released + 1):
                    if tensor[j] != tensor[released]:
                        break
                    dst = op_device[dst_op[j]]
                    if dst == src:
                        continue
                    set_taken(channels, taken, src * d + dst, 0)
                    if not multicast:
                        pair = src * d + dst
                        n_able = touch(channels, channel_start, channel_pairs, head, d, pair, able, listed, n_able)

            # Walk places in turn, then transfers that wait: each turn starts at most one transfer, k.
            while True:
                if walk < walk_end:
                    k = walk
                    walk += 1
                    src = op_device[ended]
                    dst = op_device[dst_op[k]]
                    if dst == src and whole:
                        op = dst_op[k]
                        missing[op] -= 1
                        if missing[op] == 0:
                            now_key[now_tail] = op
                            now_tail += 1
                        continue
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
                        look = True
                        if multicast:
                            joined[n + k] = n_joined
                            waiting[n_waiting] = k
                            n_waiting += 1
                        else:
                            queue = d + src * d + dst
                            join(mode, queue, n + k, n_joined, head, tail, nxt, right, joined, rank)
                            if listed[queue - d] == 0:
                                listed[queue - d] = 1
                                able[n_able] = queue - d
                                n_able += 1
                        n_joined += 1
                        continue
                elif not (decide and look):
                    break
                elif multicast:
                    left = waiting[:n_waiting]
                    i = best_multicast(
                        mode, left, n, out_start, src_op, dst_op, tensor, op_device, d, channels, taken, joined, rank
                    )
                    if i < 0:
                        look = False
                        break
                    k = waiting[i]
                    n_waiting -= 1
                    waiting[i] = waiting[n_waiting]
                else:
                    # Only pairs that share a channel with what was released, or that got a new transfer, can start.
                    i, n_able = best_pair(mode, d, head, channels, taken, joined, rank, able, listed, n_able)
                    if i < 0:
                        look = False
                        break
                    i += d
                    k = leave(mode, i, head, nxt, right, joined, rank) - n
                src = op_device[src_op[k]]
                dst = op_device[dst_op[k]]
                if contended:
                    for j in range(k, out_start[src_op[k] + 1] if multicast else k + 1):
                        if tensor[j] != tensor[k]:
                            break
                        if op_device[dst_op[j]] != src:
                            set_taken(channels, taken, src * d + np.int64(op_device[dst_op[j]]), 1)
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
                    if whole:
                        low, high = min(low, src), max(high, src + 1)

            while ready >= 0 or (whole and now_head < now_tail):
                if ready < 0:
                    ready = now_key[now_head]
                    now_head += 1
                if recording:
                    op_times[0, ready] = t
                queue = op_device[ready]
                join(mode, queue, ready, n_joined, head, tail, nxt, right, joined, rank)
                n_joined += 1
                if whole:
                    low, high = min(low, queue), max(high, queue + 1)
                elif step > n:
                    device = queue
                ready = -1
            first, last = device, device + 1
            if whole:
                # A transfer that takes no time is delivered before the devices choose.
                first, last = low, low
                if decide and (heap_n == 0 or heap_time[0] > t):
                    last = high
                    low, high = d, 0
            for device in range(max(first, 0), last):
                while free_slots[device] > 0 and head[device] >= 0:
                    op = leave(mode, device, head, nxt, right, joined, rank)
                    free_slots[device] -= 1
                    if recording:
                        op_times[1, op] = t
                    duration = op_time[op, device]
                    if noisy:
                        duration = duration * op_factor[op]
                    heap_push(heap_time, heap_key, heap_n, t + duration, (n_scheduled << 32) | (op << 3) | OP_END)
                    heap_n += 1
                    n_scheduled += 1
