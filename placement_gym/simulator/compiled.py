"""CompiledProblem: a problem and a rule as the flat arrays that the kernel runs on."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.contention import channels_of
from placement_gym.memory import LiveRows, MemoryArrays, memory_arrays
from placement_gym.problem import Problem
from placement_gym.rule import CHOICES, Rule, resolve_rule
from placement_gym.simulator.arrays import Arrays, Options, Workspace
from placement_gym.simulator.kernel import run_many
from placement_gym.simulator.ticks import times_in_ticks
from placement_gym.simulator.weigh import run_and_weigh
from placement_gym.trace import Trace, walk_order


@dataclass(frozen=True, slots=True, eq=False)
class CompiledProblem:
    """What `simulate` and `simulate_batch` run, for callers that simulate in a loop. Checks nothing.

    Attributes:
        problem: The problem.
        rule: The rule.
        walk: int32 [n_edges], edge number at each place of the walk.
        options: The rule in numbers, makespan only.
        arrays: The problem in walking order, no priority.
        memory: What decides whether a placement fits.
        tick_s: Seconds per unit of the kernel's time.
    """

    problem: Problem
    rule: Rule
    walk: IntArray
    options: Options
    arrays: Arrays
    memory: MemoryArrays
    tick_s: float

    def trace(
        self,
        op_device: IntArray,
        priority: FloatArray,
        op_factor: FloatArray | None,
        edge_factor: FloatArray | None,
    ) -> Trace:
        """The trace of one run; factors multiply durations, per op and per edge (None: exact durations)."""
        trace = Trace.empty(self.problem.n_ops, self.problem.graph.n_edges)
        arrays = self.arrays._replace(priority=priority)
        if op_factor is not None and edge_factor is not None:
            arrays = arrays._replace(op_factor=op_factor, edge_factor=edge_factor[self.walk])
        options = self.options._replace(noisy=op_factor is not None, recording=True)
        op_times = np.full((4, self.problem.n_ops), np.nan)
        transfer_times = np.full((4, self.problem.graph.n_edges), np.nan)
        one, ends_s = np.array(op_device[None, :]), np.empty((1, 2))
        run_many(options, arrays, one, ends_s, op_times, transfer_times, Workspace.for_run(arrays))
        op_times *= self.tick_s
        transfer_times *= self.tick_s
        trace.last_event_s = float(ends_s[0, 1] * self.tick_s)
        trace.op_ready_s, trace.op_start_s, trace.op_finish_s, trace.op_release_s = op_times
        for row, column in zip(
            transfer_times,
            (
                trace.transfer_ready_s,
                trace.transfer_start_s,
                trace.transfer_arrival_s,
                trace.transfer_release_s,
            ),
            strict=True,
        ):
            column[self.walk] = row
        return trace

    def makespans_s(
        self, op_devices: IntArray, priorities: FloatArray | None = None, n_threads: int | None = None
    ) -> FloatArray:
        """float64 [B]: makespan of each row of op_devices, int32 [B, n_ops], on `n_threads` (default: all cores).

        priorities: float64 [n_ops] or [B, n_ops]. Whether a placement fits into memory is not asked, see `weigh`.
        """
        untold = np.empty((4, 0))

        def run(arrays: Arrays, devices: IntArray, ends: FloatArray, rows: slice) -> None:  # noqa: ARG001
            run_many(self.options, arrays, devices, ends, untold, untold, Workspace.for_run(arrays))

        return self._in_threads(op_devices, priorities, n_threads, run)

    def weigh(
        self, op_devices: IntArray, priorities: FloatArray | None = None, n_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """(float64 [B], float64 [B]): makespans as `makespans_s`, and bytes over capacity, 0 for what fits.

        The bytes are those of all devices together, each at its worst instant, by the problem's memory rule.
        """
        if not self.memory.binds:
            return self.makespans_s(op_devices, priorities, n_threads), np.zeros(len(op_devices))
        excess_bytes = np.empty(len(op_devices))
        recording, problem = self.options._replace(recording=True), self.problem

        def run(arrays: Arrays, devices: IntArray, ends: FloatArray, rows: slice) -> None:
            live = LiveRows.of_size(problem.n_ops, problem.graph.n_edges, problem.n_devices)
            work = Workspace.for_run(arrays)
            run_and_weigh(self.options, recording, arrays, self.memory, devices, ends, excess_bytes[rows], work, live)

        return self._in_threads(op_devices, priorities, n_threads, run), excess_bytes

    def _in_threads(
        self, op_devices: IntArray, priorities: FloatArray | None, n_threads: int | None, run: Callable[..., None]
    ) -> FloatArray:
        """Makespans by run(arrays, op_devices[rows], ends[rows], rows), which writes ends, on several threads."""
        b, op_devices = len(op_devices), np.require(op_devices, requirements="W")
        ends = np.empty((b, 2))
        own = priorities is not None and priorities.ndim == 2
        arrays = self.arrays if priorities is None or own else self.arrays._replace(priority=priorities)

        def part(i: int, j: int) -> None:
            if not own:
                run(arrays, op_devices[i:j], ends[i:j], slice(i, j))
                return
            assert priorities is not None
            for k in range(i, j):
                run(arrays._replace(priority=priorities[k]), op_devices[k : k + 1], ends[k : k + 1], slice(k, k + 1))

        n_parts = min(n_threads or os.cpu_count() or 1, b)
        if n_parts <= 1:
            part(0, b)
        else:
            # The kernel lets go of the interpreter lock, so plain threads use all cores. Several parts per thread
            # even out placements that take longer than others.
            bounds = np.linspace(0, b, min(16 * n_parts, b) + 1).astype(int).tolist()
            with ThreadPoolExecutor(n_parts) as pool:
                list(pool.map(part, bounds[:-1], bounds[1:]))
        column = 1 if self.rule.makespan == "last_event" else 0
        return ends[:, column] * self.tick_s

    def makespan_s(self, op_device: IntArray) -> float:
        """Makespan of one placement, int32 [n_ops]."""
        return float(self.makespans_s(op_device[None, :], n_threads=1)[0])


def _pairs_of(channels: IntArray) -> tuple[IntArray, IntArray]:
    """Which ordered pairs (src * d + dst) take each channel: int32 [n_channels + 1] starts, int32 pairs."""
    d = len(channels)
    pair, _ = np.nonzero(channels.reshape(d * d, -1) >= 0)
    channel = channels[channels >= 0]
    order = np.argsort(channel, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(channel))]) if channel.size else np.zeros(1)
    return start.astype(np.int32), pair[order].astype(np.int32)


@lru_cache(maxsize=64)
def _compile(problem: Problem, rule: Rule) -> CompiledProblem:
    graph = problem.graph
    walk = walk_order(graph, rule)
    op_time, latency, bytes_per_tick, hold, tick_s = times_in_ticks(problem, rule)
    channels = channels_of(rule.contention, problem.device_node)
    channel_start, channel_pairs = _pairs_of(channels)
    options = Options(
        queue=CHOICES["queue"].index(rule.queue),
        transfers=CHOICES["transfers"].index(rule.transfers),
        whole=rule.instant == "whole",
        device_hold=float(hold),
        latency_holds=rule.latency == "holds",
        noisy=False,
        recording=False,
    )
    arrays = Arrays(
        op_time=op_time,
        slots=problem.device_slots,
        n_inputs=np.diff(graph.in_start).astype(np.int32),
        out_start=graph.out_start,
        src=graph.edge_src[walk],
        dst=graph.edge_dst[walk],
        size=graph.edge_bytes[walk],
        tensor=graph.edge_tensor[walk],
        latency=latency,
        bytes_per_tick=bytes_per_tick,
        channels=channels.reshape(problem.n_devices**2, -1),
        channel_start=channel_start,
        channel_pairs=channel_pairs,
        priority=np.zeros(problem.n_ops),
        op_factor=np.ones(0),
        edge_factor=np.ones(0),
    )
    # The kernel is compiled per array type, and a read-only array is a type of its own: make all alike.
    fresh = Arrays(*(np.array(x) for x in arrays))
    memory = memory_arrays(problem.memory_rule, graph, problem.op_memory_bytes, problem.device_memory_bytes)
    return CompiledProblem(problem, rule, walk, options, fresh, memory, tick_s)


def compile_problem(problem: Problem, rule: str | Rule = "physical") -> CompiledProblem:
    """The compiled form of a problem under a rule; the last 64 are remembered.

    Raises:
        InvalidRule: The rule is unknown.
    """
    return _compile(problem, resolve_rule(rule))
