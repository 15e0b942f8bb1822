"""Schedule: a placement unfolded in time; `check` proves from the trace alone that it is legal and work-conserving."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray, IntArray, read_only
from placement_gym.contention import channels_of
from placement_gym.errors import InvalidSchedule
from placement_gym.memory import excess
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.trace import Trace, peak_memory_bytes, transfer_heads


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Schedule:
    """A placement unfolded in time.

    Attributes:
        problem: What was placed.
        placement: Where.
        rule: Under which rule.
        trace: When (see `Trace`).
        priority: float64 [n_ops], the ranks that a `priority` queue went by.
        exact: Whether durations are the problem's own (not noisy, not measured).
        makespan_s: Seconds until the end (the rule's `makespan` says which end).
        peak_memory_bytes: float64 [n_devices], what each device holds at its worst instant, by the memory rule of the
            problem (`memory.py`).
    """

    problem: Problem
    placement: Placement
    rule: Rule
    trace: Trace = field(repr=False)
    priority: FloatArray = field(repr=False)
    exact: bool = True
    makespan_s: float = field(init=False)
    peak_memory_bytes: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        last_op = float(np.max(self.trace.op_finish_s))
        makespan = last_op if self.rule.makespan == "last_op" else float(self.trace.last_event_s)
        object.__setattr__(self, "makespan_s", makespan)
        object.__setattr__(self, "priority", read_only(self.priority, np.float64))
        peak = peak_memory_bytes(self.problem, self.op_device, self.rule, self.trace)
        object.__setattr__(self, "peak_memory_bytes", read_only(peak, np.float64))

    def __repr__(self) -> str:
        """At most five lines, whatever the size."""
        transfers = self.transfers()
        sent = float(self.problem.graph.edge_bytes[transfers].sum())
        return (
            f"Schedule of {self.problem.name!r} ({self.problem.n_ops} ops, {self.problem.n_devices} devices): makespan "
            f"{self.makespan_s:.6g} s\n"
            f"  {len(transfers)} transfers, {sent:.6g} bytes; peak memory {self.peak_memory_bytes.max():.6g} bytes\n"
            f"  {self.rule}"
        )

    @property
    def op_device(self) -> IntArray:
        """int32 [n_ops], device of each op."""
        return self.placement.op_device

    @property
    def excess_bytes(self) -> float:
        """Bytes by which devices exceed their memory at their worst instants, all together; 0 if the placement fits."""
        return float(excess(np.array(self.peak_memory_bytes), np.array(self.problem.device_memory_bytes)))

    def transfers(self) -> IntArray:
        """int32 [n_transfers]: the edges at which transfers are written, ascending."""
        return np.flatnonzero(np.isfinite(self.trace.transfer_ready_s)).astype(np.int32)

    def check(self, tolerance_s: float = 0.0) -> None:
        """Proves the schedule from its trace; nothing of the simulator is used.

        Placement feasible; every op starts when its inputs are there, not before; no device runs more ops than
        it has slots; no channel carries two transfers; no resource idles beside work that is ready for it;
        the queue order is kept; peak memory is within capacity; durations are the problem's (if `exact`).

        Args:
            tolerance_s: Slack for measured schedules; 0 for simulated ones.

        Raises:
            InfeasiblePlacement: The placement breaks support, memory claims or colocation.
            InvalidSchedule: Anything else, with the op or transfer, the rule and the times.
        """
        self.placement.check(self.problem)
        self._check_complete()
        self._check_precedence(tolerance_s)
        if self.exact:
            self._check_durations()
        for d, name in enumerate(self.problem.device_names):
            ops = np.flatnonzero(self.op_device == d).astype(np.int32)
            self._check_device(name, ops, int(self.problem.device_slots[d]), tolerance_s)
        self._check_channels(tolerance_s)
        self._check_last_event(tolerance_s)
        overfull = self.overfull()
        if overfull is not None:
            raise InvalidSchedule(f"memory: {overfull}")

    def overfull(self) -> str | None:
        """Which device holds more than its memory at its worst instant, and how much; None if all fits."""
        over = np.flatnonzero(self.peak_memory_bytes > self.problem.device_memory_bytes)
        if not over.size:
            return None
        d = int(over[0])
        return (
            f"device {self.problem.device_names[d]!r} holds {self.peak_memory_bytes[d]:.6g} bytes at its worst "
            f"instant; its memory is {self.problem.device_memory_bytes[d]:.6g} bytes"
        )

    def _op(self, i: int) -> str:
        return f"op {self.problem.graph.op_names[i]!r}"

    def _transfer(self, e: int) -> str:
        graph = self.problem.graph
        return f"transfer of edge {e} ({graph.op_names[graph.edge_src[e]]!r} -> {graph.op_names[graph.edge_dst[e]]!r})"

    def _check_complete(self) -> None:
        trace, graph = self.trace, self.problem.graph
        heads = transfer_heads(graph, self.op_device, self.rule)
        expected = np.zeros(graph.n_edges, dtype=bool)
        expected[heads[heads >= 0]] = True
        for kind, columns in (
            ("op", (trace.op_ready_s, trace.op_start_s, trace.op_finish_s, trace.op_release_s)),
            (
                "edge",
                (
                    trace.transfer_ready_s,
                    trace.transfer_start_s,
                    trace.transfer_arrival_s,
                    trace.transfer_release_s,
                ),
            ),
        ):
            for column in columns:
                want = np.ones(graph.n_ops, dtype=bool) if kind == "op" else expected
                wrong = np.flatnonzero(np.isfinite(column) != want)
                if wrong.size:
                    raise InvalidSchedule(f"trace: {kind} {wrong[0]} has a time where none belongs, or lacks one")
            for earlier, later in pairwise(columns):
                wrong = np.flatnonzero(later < earlier)
                if wrong.size:
                    raise InvalidSchedule(
                        f"trace: {kind} {wrong[0]} goes back in time: {earlier[wrong[0]]} > {later[wrong[0]]}"
                    )

    def _check_precedence(self, tolerance_s: float) -> None:
        graph, trace = self.problem.graph, self.trace
        heads = transfer_heads(graph, self.op_device, self.rule)
        there = np.where(heads < 0, trace.op_finish_s[graph.edge_src], trace.transfer_arrival_s[heads])
        ready = np.zeros(graph.n_ops)
        np.maximum.at(ready, graph.edge_dst, there)
        wrong = np.flatnonzero(np.abs(trace.op_ready_s - ready) > tolerance_s)
        if wrong.size:
            i = int(wrong[0])
            raise InvalidSchedule(
                f"precedence: {self._op(i)} is ready at {trace.op_ready_s[i]} s; expected {ready[i]} s, its last input"
            )
        for e in self.transfers().tolist():
            done = trace.op_finish_s[graph.edge_src[e]]
            if abs(trace.transfer_ready_s[e] - done) > tolerance_s:
                raise InvalidSchedule(
                    f"precedence: {self._transfer(e)} is ready at {trace.transfer_ready_s[e]} s; expected {done} s"
                )

    def _check_durations(self) -> None:
        problem, graph, trace = self.problem, self.problem.graph, self.trace
        want = problem.op_time_s[np.arange(problem.n_ops), self.op_device]
        hold = np.where(want > 0, self.rule.device_hold_s, 0.0)
        for start, length, finish in (
            (trace.op_start_s, want, trace.op_finish_s),
            (trace.op_finish_s, hold, trace.op_release_s),
        ):
            wrong = np.flatnonzero(~np.isclose(start + length, finish, rtol=1e-12, atol=0.0))
            if wrong.size:
                i = int(wrong[0])
                raise InvalidSchedule(f"duration: {self._op(i)} takes {finish[i] - start[i]} s; expected {length[i]} s")
        heads = transfer_heads(graph, self.op_device, self.rule)
        remote = np.flatnonzero(heads >= 0)
        src, dst = self.op_device[graph.edge_src[remote]], self.op_device[graph.edge_dst[remote]]
        latency = problem.link_latency_s[src, dst]
        flight = graph.edge_bytes[remote] / problem.link_bytes_per_s[src, dst]
        delays = self.rule.latency == "delays"
        moving, holding = np.zeros(graph.n_edges), np.zeros(graph.n_edges)
        np.maximum.at(moving, heads[remote], latency + flight if delays else flight)
        np.maximum.at(holding, heads[remote], np.zeros_like(latency) if delays else latency)
        for start, length, finish in (
            (trace.transfer_start_s, moving, trace.transfer_arrival_s),
            (trace.transfer_arrival_s, holding, trace.transfer_release_s),
        ):
            made = self.transfers()
            wrong = made[~np.isclose(start[made] + length[made], finish[made], rtol=1e-12, atol=0.0)]
            if wrong.size:
                e = int(wrong[0])
                raise InvalidSchedule(
                    f"duration: {self._transfer(e)} takes {finish[e] - start[e]} s; expected {length[e]} s"
                )

    def _check_last_event(self, tolerance_s: float) -> None:
        trace = self.trace
        contended = bool((channels_of(self.rule.contention, self.problem.device_node) >= 0).any())
        transfers = trace.transfer_release_s if contended else trace.transfer_arrival_s
        last = max(float(trace.op_release_s.max()), float(np.nanmax(transfers, initial=0.0)))
        if abs(trace.last_event_s - last) > tolerance_s:
            raise InvalidSchedule(f"trace: the last event is at {trace.last_event_s} s; expected {last} s")

    def _check_device(self, name: str, ops: IntArray, slots: int, tolerance_s: float) -> None:
        trace = self.trace
        start, release, ready = trace.op_start_s[ops], trace.op_release_s[ops], trace.op_ready_s[ops]
        time, busy = _busy(start, release - tolerance_s)
        if busy.size and busy.max() > slots:
            raise InvalidSchedule(
                f"capacity: device {name!r} runs {busy.max()} ops at {time[busy.argmax()]} s; it has {slots} slots"
            )
        time, busy = _busy(start, release)
        # Seconds with a free slot until each instant of interest; ops that take no time are instants, too.
        grid = np.unique(np.concatenate([time, start, ready]))
        at = np.searchsorted(time, grid, side="right") - 1
        free = np.where(at >= 0, busy[at] if len(busy) else 0, 0) < slots
        idle = np.concatenate([[0.0], np.cumsum(np.where(free[:-1], np.diff(grid), 0.0))])
        for k in np.flatnonzero(start > ready + tolerance_s):
            i = int(ops[k])
            since, until = np.searchsorted(grid, [ready[k], start[k]])
            waited_idle = idle[until] - idle[since] > tolerance_s
            if waited_idle:
                raise InvalidSchedule(
                    f"work conservation: {self._op(i)} is ready at {ready[k]} s and starts at {start[k]} s, "
                    f"but device {name!r} has a free slot in between"
                )
            self._check_queue_order(name, ops, i, tolerance_s)

    def _check_queue_order(self, name: str, ops: IntArray, waiting: int, tolerance_s: float) -> None:
        """No op that started while `waiting` waited may come after it in the queue order."""
        trace = self.trace
        ready, start = trace.op_ready_s[waiting], trace.op_start_s[waiting]
        passed = ops[(trace.op_start_s[ops] > ready + tolerance_s) & (trace.op_start_s[ops] < start - tolerance_s)]
        if self.rule.queue == "fifo":
            wrong = passed[trace.op_ready_s[passed] > ready + tolerance_s]
        elif self.rule.queue == "lifo":
            wrong = passed[trace.op_ready_s[passed] < ready - tolerance_s]
        else:
            wrong = passed[self.priority[passed] < self.priority[waiting]]
        if wrong.size:
            first = self._op(int(wrong[0]))
            raise InvalidSchedule(
                f"queue order ({self.rule.queue}) on {name!r}: {first} starts before {self._op(waiting)}"
            )

    def _channels(self) -> dict[int, list[int]]:
        """What each transfer occupies: edge at which it is written -> channels, ascending."""
        graph, pairs = self.problem.graph, channels_of(self.rule.contention, self.problem.device_node)
        heads = transfer_heads(graph, self.op_device, self.rule)
        taken: dict[int, set[int]] = {}
        for e in np.flatnonzero(heads >= 0).tolist():
            src, dst = self.op_device[graph.edge_src[e]], self.op_device[graph.edge_dst[e]]
            taken.setdefault(int(heads[e]), set()).update(c for c in pairs[src, dst].tolist() if c >= 0)
        return {e: sorted(channels) for e, channels in taken.items()}

    def _check_transfer_order(
        self,
        waiting: int,
        others: NDArray[np.int64],
        channels: dict[int, list[int]],
        priority: FloatArray,
        tolerance_s: float,
    ) -> None:
        """No transfer may start on a channel of `waiting` while all these are free and `waiting` comes first."""
        trace = self.trace
        ready, start = trace.transfer_ready_s[waiting], trace.transfer_start_s[waiting]
        begun, released = trace.transfer_start_s[others], trace.transfer_release_s[others]
        for o in others[(begun > ready + tolerance_s) & (begun < start - tolerance_s)].tolist():
            at = trace.transfer_start_s[o]
            # What starts at this very instant may have taken the other channel first; with single events, what is
            # released at this instant may be so by a later event. What takes a channel of `o` is out of the way.
            held = released > at - tolerance_s if self.rule.instant == "whole" else released >= at - tolerance_s
            held |= begun >= at - tolerance_s  # also what takes no time
            holders = others[(others != o) & (begun <= at + tolerance_s) & held].tolist()
            if not all({*channels[o]} & {*channels[x]} for x in holders):
                continue
            if self.rule.queue == "fifo":
                wrong = trace.transfer_ready_s[o] > ready + tolerance_s
            elif self.rule.queue == "lifo":
                wrong = trace.transfer_ready_s[o] < ready - tolerance_s
            else:
                wrong = priority[o] < priority[waiting]
            if wrong:
                raise InvalidSchedule(
                    f"queue order ({self.rule.queue}): {self._transfer(o)} starts before {self._transfer(waiting)}"
                )

    def _transfer_priority(self) -> FloatArray:
        """float64 [n_edges]: the largest priority among the ops that the transfer written at an edge feeds."""
        graph = self.problem.graph
        heads = transfer_heads(graph, self.op_device, self.rule)
        priority = np.full(graph.n_edges, -np.inf)
        remote = heads >= 0
        np.maximum.at(priority, heads[remote], self.priority[graph.edge_dst[remote]])
        return priority

    def _check_channels(self, tolerance_s: float) -> None:
        trace, channels, priority = self.trace, self._channels(), self._transfer_priority()
        used: dict[int, list[int]] = {}
        for e, taken in channels.items():
            for channel in taken:
                used.setdefault(channel, []).append(e)
        for channel, edges in used.items():
            time, busy = _busy(trace.transfer_start_s[edges], trace.transfer_release_s[edges] - tolerance_s)
            if busy.size and busy.max() > 1:
                raise InvalidSchedule(
                    f"contention ({self.rule.contention}): channel {channel}, which {self._transfer(edges[0])} takes, "
                    f"carries {busy.max()} transfers at {time[busy.argmax()]} s"
                )
        for e in self.transfers().tolist():
            ready, start = trace.transfer_ready_s[e], trace.transfer_start_s[e]
            if start > ready + tolerance_s:
                others = np.unique([o for channel in channels[e] for o in used[channel] if o != e]).astype(int)
                covered = ready
                for o in others[np.argsort(trace.transfer_start_s[others], kind="stable")]:
                    if trace.transfer_start_s[o] > covered + tolerance_s:
                        break
                    covered = max(covered, trace.transfer_release_s[o])
                self._check_transfer_order(e, others, channels, priority, tolerance_s)
                if covered < start - tolerance_s:
                    raise InvalidSchedule(
                        f"work conservation: {self._transfer(e)} is ready at {ready} s and starts at {start} s, "
                        f"but all its channels are free at {covered} s"
                    )


def _busy(start: FloatArray, end: FloatArray) -> tuple[FloatArray, IntArray]:
    """(times, how many of the intervals [start, end) hold from each time on); empty intervals count nothing."""
    lasting = end > start
    start, end = start[lasting], end[lasting]
    time = np.unique(np.concatenate([start, end]))
    change = np.zeros(len(time), dtype=np.int32)
    np.add.at(change, np.searchsorted(time, start), 1)
    np.add.at(change, np.searchsorted(time, end), -1)
    return time, np.cumsum(change).astype(np.int32)
