"""OpModel: the ops' half of the constraint programme for the makespan (`program.py` says what it is for)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from placement_gym.arrays import BoolArray
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.device_classes import DeviceClasses
from placement_gym.exact.makespan.grid import Grid, Whole
from placement_gym.groups import Groups
from placement_gym.problem import Problem
from placement_gym.rule import Rule

# Literals and linear expressions of CP-SAT, which has no types: a literal may be negated with ~.
Literal = Any
Linear = Any
Case = tuple[list[Literal], Linear]


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """What follows about the ops from their order alone, without communication.

    Attributes:
        ahead: bool [n_ops, n_ops], whether a path leads from one op to the other.
        head: int64 [n_ops], units before which no op can start.
        tail: int64 [n_ops], units that must follow the end of an op.
    """

    ahead: BoolArray
    head: Whole
    tail: Whole

    @classmethod
    def of(cls, problem: Problem, least: Whole, deadline: Deadline) -> "Reach":
        """From int64 [n_ops], the least duration of each op; communication counts nothing."""
        graph, n = problem.graph, problem.n_ops
        ahead = np.zeros((n, n), dtype=np.bool_)
        head, tail = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        for j in graph.order.tolist():
            deadline.check()
            for i in graph.edge_src[graph.in_edges[graph.in_start[j] : graph.in_start[j + 1]]].tolist():
                ahead[:, j] |= ahead[:, i]
                ahead[i, j] = True
                head[j] = max(head[j], head[i] + least[i])
        for i in reversed(graph.order.tolist()):
            for j in graph.edge_dst[graph.out_edges[graph.out_start[i] : graph.out_start[i + 1]]].tolist():
                tail[i] = max(tail[i], tail[j] + least[j])
        return cls(ahead, head, tail)


class OpModel:
    """Variables and constraints of placement, ops and devices; transfers are added by `transfers.py`.

    Every constraint holds for the rounded simulated schedule of every feasible placement (see `Grid`):

    * an op starts when it is ready or later, and is ready at the instant at which its last input is delivered
      (`add_readiness`);
    * a device with s slots runs at most s ops at a time, each until its release;
    * nothing idles beside ready work: an op starts at the instant at which it becomes ready, or at one at which an op
      of its device releases a slot while the others are taken: at these events a device starts what it can;
    * of two ops on one device, the one that is taken from the queue first starts no later. In a `fifo` queue it
      became ready no later either; in a `lifo` queue it became ready no earlier, unless the other was not there yet.
      Ties are left free. Nothing is said of a `priority` queue.

    Attributes:
        model: The `CpModel`.
        place: Literals [n_groups][n_devices].
        start: Start of each op, units.
        ready: Readiness of each op, units.
        end: Lower bound of each op's finish as an expression; the finish is at most `slack` later.
        makespan: The objective, units.

    Raises:
        OutOfTimeError: The deadline is over before the constraints are all there.
    """

    def __init__(
        self,
        problem: Problem,
        rule: Rule,
        grid: Grid,
        latest: int,
        deadline: Deadline,
        cp_model: Any,  # noqa: ANN401
    ) -> None:
        self.problem, self.rule, self.grid, self.latest, self.deadline = problem, rule, grid, latest, deadline
        self.groups = Groups.of(problem)
        self.model = model = cp_model.CpModel()
        self.true = model.new_constant(1)
        able = np.isfinite(problem.op_time_s)
        self.least: Whole = np.where(able, grid.op_time, np.iinfo(np.int64).max).min(axis=1)
        self.reach = Reach.of(problem, self.least, deadline)
        self.is_source = (np.diff(problem.graph.in_start) == 0).tolist()
        self._same: dict[tuple[int, int], Literal] = {}
        self._first: dict[tuple[int, int], Literal] = {}
        self.feasible = int((self.reach.head + self.least + self.reach.tail).max()) <= latest
        if not self.feasible:
            return
        self._add_placement()
        self._add_times()
        self._add_devices()
        self._add_loads()
        self._add_order()

    def on(self, op: int, device: int) -> Literal:
        """Whether the op is on the device."""
        return self.place[self.groups.op_group[op]][device]

    def _add_placement(self) -> None:
        problem, groups, model = self.problem, self.groups, self.model
        self.place = [
            [model.new_bool_var("") if may else ~self.true for may in groups.allowed[u]] for u in range(groups.n_groups)
        ]
        for literals in self.place:
            model.add_exactly_one(literals)
        for d, capacity in enumerate(problem.device_memory_bytes.tolist()):
            if groups.memory_bytes.sum() > capacity:
                # Claims rounded down and a capacity rounded up by more than sums in floating point can err.
                scale = 2.0 ** (40 - np.ceil(np.log2(capacity)))
                claims = np.floor(np.minimum(groups.memory_bytes * scale, 2.0**42)).astype(np.int64).tolist()
                room = int(np.ceil(capacity * scale * (1 + 1e-9))) + 1
                model.add(sum(claim * self.place[u][d] for u, claim in enumerate(claims)) <= room)
        for group in DeviceClasses.of(problem).members:
            # The simulator breaks no tie by the number of a device. Alike devices are used in ascending order: one gets
            # its first group after the one before it got one.
            for before, d in pairwise(group):
                for u in range(groups.n_groups):
                    self.deadline.check()
                    model.add_bool_or([~self.place[u][d]] + [self.place[v][before] for v in range(u)])

    def _add_times(self) -> None:
        model, grid, reach, latest = self.model, self.grid, self.reach, self.latest
        self.start, self.ready, self.end, self.release = [], [], [], []
        self.makespan = model.new_int_var(0, latest, "")
        for i in range(self.problem.n_ops):
            self.deadline.check()
            last = latest - int(reach.tail[i] + self.least[i])
            self.start.append(model.new_int_var(int(reach.head[i]), last, ""))
            self.ready.append(0 if self.is_source[i] else model.new_int_var(int(reach.head[i]), last, ""))
            model.add(self.ready[i] <= self.start[i])
            self.end.append(self.start[i] + self._by_device(i, grid.op_time))
            self.release.append(self.end[i] + self._by_device(i, grid.op_hold))
            model.add(self.makespan >= self.end[i] + int(reach.tail[i]))
            if self.rule.makespan == "last_event":
                model.add(self.makespan >= self.release[i])

    def _by_device(self, op: int, values: Whole) -> Linear:
        """The value of [n_ops, n_devices] at the op's device."""
        able = np.flatnonzero(self.groups.allowed[self.groups.op_group[op]]).tolist()
        least = int(values[op, able].min())
        return least + sum((int(values[op, d]) - least) * self.on(op, d) for d in able if values[op, d] != least)

    def _add_devices(self) -> None:
        model, grid, problem = self.model, self.grid, self.problem
        for d, slots in enumerate(problem.device_slots.tolist()):
            intervals = [
                model.new_optional_fixed_size_interval_var(
                    self.start[i], int(grid.op_time[i, d] + grid.op_hold[i, d]), self.on(i, d), ""
                )
                for i in range(problem.n_ops)
                if self.groups.allowed[self.groups.op_group[i], d]
            ]
            if slots == 1:
                model.add_no_overlap(intervals)
            elif len(intervals) > slots:
                model.add_cumulative(intervals, [1] * len(intervals), slots)

    def _add_loads(self) -> None:
        """The ops of a device that cannot start before h and are followed by t take turns in makespan - h - t."""
        grid, problem, reach = self.grid, self.problem, self.reach
        slots, seen = problem.device_slots.tolist(), set()
        for h in np.unique(reach.head).tolist():
            for t in np.unique(reach.tail).tolist():
                self.deadline.check()
                ops = np.flatnonzero((reach.head >= h) & (reach.tail >= t)).tolist()
                room = (self.latest - h - t) * sum(slots)
                if len(ops) < 3 or tuple(ops) in seen or 2 * sum(self.least[ops].tolist()) < room:
                    continue
                seen.add(tuple(ops))
                h_of, t_of = int(reach.head[ops].min()), int(reach.tail[ops].min())
                for d in range(problem.n_devices):
                    load = sum(int(grid.op_time[i, d]) * self.on(i, d) for i in ops)
                    self.model.add(load <= slots[d] * (self.makespan - h_of - t_of))

    def same(self, a: int, b: int) -> Literal:
        """Whether two ops share a device."""
        u, v = sorted((int(self.groups.op_group[a]), int(self.groups.op_group[b])))
        if u == v:
            return self.true
        if (u, v) not in self._same:
            both = self.groups.allowed[u] & self.groups.allowed[v]
            self._same[u, v] = literal = self.model.new_bool_var("") if both.any() else ~self.true
            for x, y in zip(self.place[u], self.place[v], strict=True):
                self.model.add_bool_or([~x, ~y, literal])
                self.model.add_bool_or([~x, y, ~literal])
                self.model.add_bool_or([x, ~y, ~literal])
        return self._same[u, v]

    def first(self, a: int, b: int) -> Literal:
        """Whether op a is taken from the queue of its device before op b, where they share one."""
        if self.reach.ahead[a, b] or self.reach.ahead[b, a]:
            return self.true if self.reach.ahead[a, b] else ~self.true
        if self.rule.queue == "fifo" and (self.is_source[a] or self.is_source[b]):
            # Ops without inputs join the queues before all others, in op order.
            return self.true if self.is_source[a] and (a < b or not self.is_source[b]) else ~self.true
        low, high = min(a, b), max(a, b)
        if (low, high) not in self._first:
            self._first[low, high] = self.model.new_bool_var("")
        return self._first[low, high] if a == low else ~self._first[low, high]

    def _add_order(self) -> None:
        n, model = self.problem.n_ops, self.model
        single = bool((self.problem.device_slots == 1).all())
        for a in range(n):
            idle: list[Literal] = [model.new_bool_var("")]
            model.add(self.start[a] <= self.ready[a]).only_enforce_if(idle[0])
            busy: list[Literal] = []
            for b in range(n):
                self.deadline.check()
                if a == b or (self.groups.allowed[self.groups.op_group[[a, b]]].all(axis=0) == 0).all():
                    continue
                if not self.reach.ahead[a, b] and (not self.reach.ahead[b, a] or self.grid.op_hold[b].any()):
                    # The device is taken by b until a starts.
                    idle.append(model.new_bool_var(""))
                    model.add_implication(idle[-1], self.same(a, b))
                    model.add_implication(idle[-1], self.first(b, a))
                    model.add(self.start[a] <= self.release[b] + self.grid.slack).only_enforce_if(idle[-1])
                    model.add(self.start[a] >= self.release[b]).only_enforce_if(idle[-1])
                    if not single:
                        busy.append(self._add_busy(a, b))
                if not self.reach.ahead[a, b] and not self.reach.ahead[b, a]:
                    self._add_turn(a, b, single)
            model.add_bool_or(idle)
            for d, slots in enumerate(self.problem.device_slots.tolist()):
                if slots > 1:
                    model.add(sum(busy) >= slots).only_enforce_if([self.on(a, d), ~idle[0]])

    def _add_busy(self, a: int, b: int) -> Literal:
        """A literal that can be true only if op b holds a slot of a's device until a starts."""
        busy = self.model.new_bool_var("")
        self.model.add_implication(busy, self.same(a, b))
        self.model.add_implication(busy, self.first(b, a))
        self.model.add(self.start[a] <= self.release[b] + self.grid.slack).only_enforce_if(busy)
        return busy

    def _add_turn(self, a: int, b: int, single: bool) -> None:
        """Constraints that hold where op a is taken from the queue before op b."""
        model, given = self.model, [self.same(a, b), self.first(a, b)]
        after = self.release[a] if single else self.start[a]
        model.add(self.start[b] >= after).only_enforce_if(given)
        if self.rule.queue == "fifo":
            model.add(self.ready[a] <= self.ready[b]).only_enforce_if(given)
        elif self.rule.queue == "lifo":
            late = model.new_bool_var("")
            model.add(self.ready[b] >= self.start[a]).only_enforce_if([*given, late])
            model.add(self.ready[a] >= self.ready[b]).only_enforce_if([*given, ~late])

    def add_readiness(self, op: int, inputs: list[list[Case]]) -> list[Literal]:
        """The op is ready at the instant of its last delivery; returns literals of which the last input's is true.

        Args:
            op: The op.
            inputs: For each input, the cases (literals, instant) of which one holds; an instant is at most `slack`
                later than it says.
        """
        last = [self.model.new_bool_var("") for _ in inputs] if len(inputs) > 1 else [self.true] * len(inputs)
        for is_last, cases in zip(last, inputs, strict=True):
            for literals, instant in cases:
                self.model.add(self.ready[op] >= instant).only_enforce_if(literals)
                self.model.add(self.ready[op] <= instant + self.grid.slack).only_enforce_if([*literals, is_last])
        if len(inputs) > 1:
            self.model.add_exactly_one(last)
        return last
