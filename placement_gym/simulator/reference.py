"""The definition of the simulator: a discrete-event loop to be read. The Numba kernel equals it bit for bit.

With whole instants (`rule.instant`), in words:

* At time 0 all ops without inputs join the queues of their devices, in op order; then resources choose.
* All completions of an instant are handled first, in the order in which they were scheduled. When an op ends, its
  out-edges are walked in the rule's order (`trace.walk_order`): an edge that stays on the device is delivered, other
  edges make transfers; then its device slot is free. When a transfer ends, its edges are delivered in that order too,
  and its channels are free. An op whose last input is delivered joins its device's queue.
* Then resources choose: every transfer that can start does, first in queue order first (without contention,
  transfers start when they are made). Transfers that take no time end in this instant and are handled. When nothing
  of the instant is left, each device, in ascending order, starts what it can of its queue.
* Ops that take no time end in this instant: they are handled, and resources choose again, until nothing is left.

With single events, which published simulators need:

* At time 0 all ops without inputs join the queues of their devices, in op order; then each device, in that
  order, starts what it can.
* When an op ends, its out-edges are walked. An edge that stays on the device is an event of this instant. Transfers
  without contention start at once; with contention they join the pending ones, and after the walk every transfer that
  can start does. Then the device slot is freed (or held), and the device starts the next op of its queue.
* When a transfer ends, its edges are delivered, then its channels are freed (or held), and every pending transfer
  that can start does.
* An op whose last input is delivered becomes ready by an event of its own in this instant; then it joins its
  device's queue, and the device starts what it can.
"""

import heapq
from typing import Literal

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.contention import channels_of
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.simulator.ticks import times_in_ticks
from placement_gym.trace import Trace, walk_order

EventKind = Literal["op_end", "device_free", "edge", "ready", "transfer_end", "channel_free"]
Key = tuple[float, int]


class ReferenceSimulator:
    """One run of one placement. `run` returns its trace."""

    def __init__(
        self,
        problem: Problem,
        op_device: IntArray,
        rule: Rule,
        priority: FloatArray,
        op_factor: FloatArray,
        edge_factor: FloatArray,
    ) -> None:
        self.problem, self.graph, self.rule = problem, problem.graph, rule
        self.device = [int(d) for d in op_device]
        self.priority, self.op_factor, self.edge_factor = priority, op_factor, edge_factor
        walk, start = walk_order(self.graph, rule).tolist(), self.graph.out_start.tolist()
        self.walk = [walk[start[op] : start[op + 1]] for op in range(problem.n_ops)]
        self.whole = rule.instant == "whole"
        self.pair_channels = channels_of(rule.contention, problem.device_node).tolist()
        self.contended = any(c >= 0 for row in self.pair_channels for pair in row for c in pair)
        ticks = times_in_ticks(problem, rule)
        self.op_time, self.latency, self.bytes_per_tick, self.device_hold, self.tick_s = ticks
        self.trace = Trace.empty(problem.n_ops, self.graph.n_edges)
        self.events: list[tuple[float, int, EventKind, int]] = []
        self.n_scheduled = 0
        self.n_joined = 0
        self.now = 0.0
        self.missing_inputs = np.diff(self.graph.in_start).tolist()
        self.free_slots = [int(s) for s in problem.device_slots]
        self.device_queue: list[list[tuple[Key, int]]] = [[] for _ in range(problem.n_devices)]
        self.pending: list[tuple[Key, int]] = []  # transfers, named by their first edge
        self.taken: set[int] = set()  # channels in use

    def run(self) -> Trace:
        """Handles events until none is left."""
        sources = [i for i in range(self.problem.n_ops) if self.missing_inputs[i] == 0]
        for op in sources:
            self.join_device_queue(op)
        for device in range(self.problem.n_devices) if self.whole else [self.device[op] for op in sources]:
            self.start_ops(device)
        while self.events:
            self.now, _, kind, item = heapq.heappop(self.events)
            if kind == "op_end":
                self.end_op(item)
            elif kind == "device_free":
                self.free_slot(item)
            elif kind == "edge":
                self.deliver(item)
            elif kind == "ready":
                self.join_device_queue(item)
                self.start_ops(self.device[item])
            elif kind == "transfer_end":
                self.end_transfer(item)
            else:
                self.release_channels(item)
            if self.whole and not self.more_now():
                self.start_transfers()
            if self.whole and not self.more_now():
                for device in range(self.problem.n_devices):
                    self.start_ops(device)
        self.trace.last_event_s = self.now
        return self.trace.scaled(self.tick_s)

    def more_now(self) -> bool:
        """Whether this instant has completions that are not handled yet."""
        return bool(self.events) and self.events[0][0] == self.now

    def schedule(self, time: float, kind: EventKind, item: int) -> None:
        heapq.heappush(self.events, (time, self.n_scheduled, kind, item))
        self.n_scheduled += 1

    def queue_key(self, priority: float) -> Key:
        """Sort key of what joins a queue now: smallest first."""
        self.n_joined += 1
        if self.rule.queue == "fifo":
            return (0.0, self.n_joined)
        if self.rule.queue == "lifo":
            return (0.0, -self.n_joined)
        return (-priority, self.n_joined)

    def join_device_queue(self, op: int) -> None:
        self.trace.op_ready_s[op] = self.now
        heapq.heappush(self.device_queue[self.device[op]], (self.queue_key(self.priority[op]), op))

    def start_ops(self, device: int) -> None:
        while self.free_slots[device] > 0 and self.device_queue[device]:
            _, op = heapq.heappop(self.device_queue[device])
            self.free_slots[device] -= 1
            self.trace.op_start_s[op] = self.now
            self.schedule(self.now + self.op_duration(op), "op_end", op)

    def op_duration(self, op: int) -> float:
        return float(self.op_time[op, self.device[op]] * self.op_factor[op])

    def end_op(self, op: int) -> None:
        self.trace.op_finish_s[op] = self.now
        for edge in self.walk[op]:
            if self.device[self.graph.edge_dst[edge]] == self.device[op]:
                if self.whole:
                    self.deliver(edge)
                else:
                    self.schedule(self.now, "edge", edge)
            elif edge == self.carried(edge)[0]:
                self.make_transfer(edge)
        if not self.whole:
            self.start_transfers()
        hold = self.device_hold if self.op_duration(op) > 0 else 0.0
        self.trace.op_release_s[op] = self.now + hold
        if hold > 0:
            self.schedule(self.now + hold, "device_free", self.device[op])
        else:
            self.free_slot(self.device[op])

    def free_slot(self, device: int) -> None:
        self.free_slots[device] += 1
        if not self.whole:
            self.start_ops(device)

    def carried(self, edge: int) -> list[int]:
        """Edges that the transfer which delivers `edge` delivers, in walking order."""
        if self.rule.transfers == "edge":
            return [edge]
        op = self.graph.edge_src[edge]
        tensor = [e for e in self.walk[op] if self.graph.edge_tensor[e] == self.graph.edge_tensor[edge]]
        if self.rule.transfers == "multicast":
            return [e for e in tensor if self.device[self.graph.edge_dst[e]] != self.device[op]]
        dst = self.device[self.graph.edge_dst[edge]]
        return [e for e in tensor if self.device[self.graph.edge_dst[e]] == dst]

    def make_transfer(self, edge: int) -> None:
        self.trace.transfer_ready_s[edge] = self.now
        if not self.contended:
            self.start_transfer(edge)
        else:
            feeds = max(self.priority[self.graph.edge_dst[e]] for e in self.carried(edge))
            self.pending.append((self.queue_key(feeds), edge))

    def start_transfers(self) -> None:
        self.pending.sort()
        while True:
            able = [p for p in self.pending if not self.channels(p[1]) & self.taken]
            if not able:
                return
            self.pending.remove(able[0])
            self.start_transfer(able[0][1])

    def channels(self, edge: int) -> set[int]:
        """What the transfer occupies while it runs: the channels of all its pairs of devices."""
        src = self.device[self.graph.edge_src[edge]]
        dsts = {self.device[self.graph.edge_dst[e]] for e in self.carried(edge)}
        return {channel for dst in dsts for channel in self.pair_channels[src][dst] if channel >= 0}

    def transfer_times(self, edge: int) -> tuple[float, float]:
        """(seconds until arrival, seconds that the channels stay taken after it); the slowest destination counts."""
        src = self.device[self.graph.edge_src[edge]]
        arrival, after = 0.0, 0.0
        for e in self.carried(edge):
            dst = self.device[self.graph.edge_dst[e]]
            latency = float(self.latency[src, dst])
            flight = float(self.graph.edge_bytes[e] / self.bytes_per_tick[src, dst])
            if self.rule.latency == "delays":
                arrival = max(arrival, latency + flight)
            else:
                arrival, after = max(arrival, flight), max(after, latency)
        return float(arrival * self.edge_factor[edge]), after

    def start_transfer(self, edge: int) -> None:
        self.taken |= self.channels(edge)
        self.trace.transfer_start_s[edge] = self.now
        self.schedule(self.now + self.transfer_times(edge)[0], "transfer_end", edge)

    def end_transfer(self, edge: int) -> None:
        self.trace.transfer_arrival_s[edge] = self.now
        for e in self.carried(edge):
            self.deliver(e)
        hold = self.transfer_times(edge)[1]
        self.trace.transfer_release_s[edge] = self.now + hold
        if hold > 0 and self.contended:
            self.schedule(self.now + hold, "channel_free", edge)
        else:
            self.release_channels(edge)

    def release_channels(self, edge: int) -> None:
        self.taken -= self.channels(edge)
        if not self.whole:
            self.start_transfers()

    def deliver(self, edge: int) -> None:
        op = int(self.graph.edge_dst[edge])
        self.missing_inputs[op] -= 1
        if self.missing_inputs[op] == 0 and self.whole:
            self.join_device_queue(op)
        elif self.missing_inputs[op] == 0:
            self.schedule(self.now, "ready", op)
