"""Latency by dynamic programming over ideals: good placements, and bounds far above those of linear relaxations."""

import time
from collections import defaultdict
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.errors import InvalidProblem
from placement_gym.exact.device_classes import tensor_times_s
from placement_gym.exact.ideals import Ideals, OutOfTimeError, Tensors, list_ideals, rows_of, tensors_of
from placement_gym.exact.latency.chains import Graph, Stages, enter_stages
from placement_gym.exact.max_load.blocks import tensors_between
from placement_gym.groups import Groups
from placement_gym.objectives import pays_for_transfers
from placement_gym.problem import Problem
from placement_gym.ranks import fastest_op_time_s

# Pairs of ideals are compared, so many more would take too long.
MAX_IDEALS = 60_000
MAX_BORDERS = 10_000
SIZES = 250
MEMORY_UNITS = 2.0**40
LOOKS = 64
# A block is left out of a lower bound if more than this share of the work is neither before nor after it.
BESIDE = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Stagewise:
    """A problem as the kernels see it: blocks, their ideals, one kind of accelerator at its best and one of CPU.

    Attributes:
        problem: The problem.
        op_block: int32 [n_ops], block of each op (topological numbers), -1 if it is left out.
        graph: The blocks.
        tensors: Tensors between them.
        ideals: All ideals.
        n_serial: int32 [n_ideals], serial blocks in each.
        n_subgraphs: Subgraphs of all accelerators together.
        capacity: Memory of the largest accelerator.
        window: Groups of memory that a part on an accelerator may have.
    """

    problem: Problem
    op_block: IntArray
    graph: Graph
    tensors: Tensors
    ideals: Ideals
    n_serial: IntArray
    n_subgraphs: int
    capacity: float
    window: int

    @classmethod
    def whole(cls, problem: Problem) -> "Stagewise | None":
        """For placements with one subgraph per accelerator; `None` as in `_of`.

        What must share a device, and what waits for each other, is one block.
        """
        units = Groups.acyclic(problem)
        return cls._of(problem, units.op_unit, np.zeros(problem.graph.n_edges, dtype=np.bool_), 1, beside=None)

    @classmethod
    def relaxed(cls, problem: Problem, subgraphs: int) -> "Stagewise | None":
        """For lower bounds, with less to do and to heed than the problem has; `None` as in `_of`.

        On CPUs each op of a colocation group goes by itself, so groups are taken apart but for ops without work: a
        source whose readers are all of its group goes with one of them, and one with a single input, of its group,
        goes with that. An op that waits for nothing outside such a block, and whose readers come after the block
        anyhow, goes with it as well, but takes no time on CPUs. (With several subgraphs only the first of these three
        is safe: a group may be in several.) Blocks that are beside a large share of the work are left out, so that
        others are serial.
        """
        op_block, ignored, beside = _taken_apart(problem, subgraphs)
        return cls._of(problem, op_block, ignored, subgraphs, beside=beside)

    @classmethod
    def _of(
        cls, problem: Problem, op_block: IntArray, ignored: BoolArray, subgraphs: int, *, beside: BoolArray | None
    ) -> "Stagewise | None":
        """None where the method does not apply: no accelerator, links that differ, or too many ideals.

        Args:
            problem: The problem.
            op_block: int32 [n_ops], any numbers.
            ignored: bool [n_edges], edges that count neither for the order nor for transfers.
            subgraphs: Subgraphs per accelerator.
            beside: For a relaxation, bool [n_ops], ops that take no time on CPUs.
        """
        pays = pays_for_transfers(problem)
        try:
            edge_s = tensor_times_s(problem)
        except InvalidProblem:
            return None
        if not pays.any():
            return None
        op_graph = problem.graph
        pairs: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
        for e in np.flatnonzero(~ignored & (op_block[op_graph.edge_src] != op_block[op_graph.edge_dst])).tolist():
            ends = int(op_block[op_graph.edge_src[e]]), int(op_block[op_graph.edge_dst[e]])
            pairs[ends][int(op_graph.edge_tensor[e])] = float(edge_s[e])
        order: nx.DiGraph[int] = nx.DiGraph()
        order.add_nodes_from(op_block.tolist())
        order.add_edges_from(pairs)
        if beside is not None:
            fastest = np.zeros(int(op_block.max()) + 1)
            np.add.at(fastest, op_block, fastest_op_time_s(problem))
            _leave_out(order, fastest)
        number = np.full(int(op_block.max()) + 1, -1, dtype=np.int32)
        number[list(nx.lexicographical_topological_sort(order))] = np.arange(len(order))
        seconds = {(int(number[a]), int(number[b])): sum(known.values()) for (a, b), known in pairs.items()}
        numbered = number[op_block]
        seconds = {ends: s for ends, s in seconds.items() if min(ends) >= 0}
        graph = _graph(problem, numbered, len(order), seconds, beside)
        tensors = tensors_of(*tensors_between(problem, numbered, ignored), len(order))
        per_byte = MEMORY_UNITS / max(float(graph.memory_bytes.sum()), 1.0)
        ideals = _ideals(graph, tensors, [(int(number[a]), int(number[b])) for a, b in order.edges], per_byte)
        if ideals is None:
            return None
        serial = number[[v for v in order if _n_comparable(order, v) == len(order) - 1]]
        n_serial = [int(np.count_nonzero(_holds(ideals, i)[serial])) for i in range(len(ideals.units))]
        capacity = float(problem.device_memory_bytes[pays].max())
        return cls(
            problem,
            numbered,
            graph,
            tensors,
            ideals,
            np.array(n_serial, dtype=np.int32),
            int(pays.sum()) * subgraphs,
            capacity,
            int(min(capacity * per_byte, 2 * MEMORY_UNITS)) + len(order) + 1,
        )

    def stages(self, *, relaxed: bool, cutoff: float, deadline: float) -> Stages:
        """The dynamic programme below `cutoff` (`latency_chains.enter_stages`).

        Raises:
            OutOfTimeError: `time.perf_counter` went past the deadline.
        """
        n_ideals, shape = len(self.ideals.units), (len(self.ideals.units), self.n_subgraphs + 1)
        unknown = np.full(shape, -1, np.int32)
        stages = Stages(np.full(shape, np.inf), np.full(shape, np.inf), unknown, unknown.copy())
        stages.value[0, 0] = stages.staged[0, 0] = 0.0
        start, group = rows_of(self.n_serial, np.arange(n_ideals), int(self.n_serial.max()) + 1)
        step = n_ideals // LOOKS + 1
        for begin in range(1, n_ideals, step):
            enter_stages(
                self.ideals,
                self.tensors,
                self.graph,
                self.n_serial,
                start,
                group,
                self.capacity,
                self.window,
                relaxed,
                cutoff,
                stages,
                begin,
                min(begin + step, n_ideals),
            )
            if time.perf_counter() > deadline:
                raise OutOfTimeError
        return stages

    def lower_bound_s(self, upper_s: float, deadline: float) -> float:
        """Seconds of latency that no placement beats, `upper_s` if that is reached."""
        least = float(self.stages(relaxed=True, cutoff=upper_s, deadline=deadline).value[-1].min())
        return min(least, upper_s) * (1 - 1e-12)

    def placement(self, upper_s: float, deadline: float) -> IntArray | None:
        """int32 [n_ops], the best placement in which every stage waits for all before it; None if none is better.

        Of many ideals only those of the cheapest borders are looked at.
        """
        if len(self.ideals.units) > MAX_BORDERS:
            # As many of each size; nothing and everything have no border, so they are among them.
            size = self.ideals.units * SIZES // (int(self.ideals.units[-1]) + 1)
            by_size = np.lexsort((self.ideals.cut_s, size))
            place = np.arange(len(by_size)) - np.searchsorted(size[by_size], size[by_size])
            kept = np.sort(by_size[place < MAX_BORDERS // SIZES])
            fewer = Ideals(*(np.ascontiguousarray(array[kept]) for array in self.ideals))
            return replace(self, ideals=fewer, n_serial=self.n_serial[kept]).placement(upper_s, deadline)
        stages = self.stages(relaxed=False, cutoff=upper_s, deadline=deadline)
        s, i = int(stages.value[-1].argmin()), len(self.ideals.units) - 1
        if not np.isfinite(stages.value[i, s]):
            return None
        pays = pays_for_transfers(self.problem)
        accelerators = iter(np.flatnonzero(pays).tolist())
        on_cpu = np.where(pays[None, :], np.inf, self.problem.op_time_s).argmin(axis=1).astype(np.int32)
        device = np.full(len(self.graph.cpu_s), -1, dtype=np.int32)
        while i > 0:
            if stages.between[i, s] >= 0:
                i = int(stages.between[i, s])
                if i == 0:
                    break
            came = int(stages.came[i, s])
            if came >= 0:
                device[(_holds(self.ideals, i) & ~_holds(self.ideals, came))[: len(device)]] = next(accelerators)
                i, s = came, s - 1
            else:
                i = -2 - came
        chosen = device[self.op_block]
        return np.where(chosen < 0, on_cpu, chosen).astype(np.int32)


def _ideals(graph: Graph, tensors: Tensors, order: list[tuple[int, int]], per_byte: float) -> Ideals | None:
    """All ideals, sorted by (units of memory, size); None if there are more than `MAX_IDEALS`."""
    pairs, n = np.array(order, dtype=np.int32).reshape(-1, 2), len(graph.cpu_s)
    count, found = list_ideals(
        *rows_of(pairs[:, 0], pairs[:, 1], n),
        np.bincount(pairs[:, 1], minlength=n).astype(np.int32),
        np.floor(graph.memory_bytes * per_byte).astype(np.int64),
        np.ascontiguousarray(graph.accelerator_s[:, None]),
        graph.memory_bytes,
        tensors,
        MAX_IDEALS,
        np.zeros(1, dtype=np.uint8),
    )
    if count > MAX_IDEALS:
        return None
    by_memory = np.lexsort((np.bitwise_count(found.bits).sum(axis=1), found.units))
    return Ideals(*(np.ascontiguousarray(array[by_memory]) for array in found))


def _graph(
    problem: Problem,
    op_block: IntArray,
    n_blocks: int,
    seconds: dict[tuple[int, int], float],
    beside: BoolArray | None,
) -> Graph:
    """Blocks at the best of what accelerators, and of what CPUs need for them; `inf` where there is none."""
    pays, there = pays_for_transfers(problem), op_block >= 0
    time = np.zeros((n_blocks, problem.n_devices))
    op_time_s = problem.op_time_s.copy()
    if beside is not None:
        op_time_s[np.ix_(beside, ~pays)] = 0.0
    np.add.at(time, op_block[there], op_time_s[there])
    memory = np.zeros(n_blocks)
    np.add.at(memory, op_block[there], problem.op_memory_bytes[there])
    accelerator, cpu = (np.where(kind[None, :], time, np.inf).min(axis=1) for kind in (pays, ~pays))
    edges = np.array(sorted(seconds), dtype=np.int32).reshape(-1, 2)
    values = np.array([seconds[a, b] for a, b in edges.tolist()])
    before_start, before = rows_of(edges[:, 1], edges[:, 0], n_blocks)
    after_start, after = rows_of(edges[:, 0], edges[:, 1], n_blocks)
    into = np.argsort(edges[:, 1], kind="stable")
    return Graph(accelerator, cpu, memory, before_start, before, values[into], after_start, after, values)


def _taken_apart(problem: Problem, subgraphs: int) -> tuple[IntArray, BoolArray, BoolArray]:
    """(block of each op, edges to ignore, ops that take no time on CPUs): see `Stagewise.relaxed`."""
    graph = problem.graph
    group = graph.op_colocation
    idle: BoolArray = np.logical_not(np.logical_or.reduce(problem.op_time_s > 0, axis=1))
    before: list[set[int]] = [set() for _ in range(problem.n_ops)]
    after: list[set[int]] = [set() for _ in range(problem.n_ops)]
    for a, b in zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), strict=True):
        before[b].add(a)
        after[a].add(b)
    block = np.arange(problem.n_ops, dtype=np.int32)
    ignored = np.zeros(graph.n_edges, dtype=np.bool_)
    for op in graph.order.tolist():
        if not idle[op] or group[op] < 0:
            continue
        if not before[op] and after[op] and all(group[b] == group[op] for b in after[op]):
            # It keeps its own number for now: its host has a number of its own and takes it in below.
            ignored[graph.edge_src == op] = True
            block[op] = min(after[op])
        elif len(before[op]) == 1 and subgraphs == 1 and all(group[a] == group[op] for a in before[op]):
            (host,) = before[op]
            if not ignored[graph.edge_dst == op].any():
                block[op] = block[host]
    while (block[block] != block).any():
        block = block[block]
    beside = np.zeros(problem.n_ops, dtype=np.bool_)
    if subgraphs > 1:
        return block, ignored, beside
    later: nx.DiGraph[int] = nx.DiGraph()
    later.add_nodes_from(range(problem.n_ops))
    later.add_edges_from(zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), strict=True))
    for op in np.flatnonzero((group >= 0) & ~idle).tolist():
        for host in np.flatnonzero((group == group[op]) & ~idle & ~beside & (block != block[op])).tolist():
            waits = [a for a in before[op] if block[a] not in (block[op], block[host])]
            readers = {b for b in after[op] if block[b] not in (block[op], block[host])}
            if not waits and not bool(np.any(beside[block == block[op]])) and readers <= nx.descendants(later, host):
                block[block == block[op]] = block[host]
                beside[op] = True
                break
    return block, ignored, beside


def _leave_out(order: "nx.DiGraph[int]", work_s: FloatArray) -> None:
    """Takes blocks out of `order` (what is before them stays before what is after) until none is beside much work."""
    total = work_s.sum()
    while True:
        beside = {v: total - _comparable_s(order, v, work_s) for v in order}
        total_beside = {v: seconds for v, seconds in beside.items() if seconds > BESIDE * total and work_s[v] < seconds}
        if not total_beside:
            return
        v = max(total_beside, key=lambda block: total_beside[block] - work_s[block])
        order.add_edges_from([(a, b) for a in order.predecessors(v) for b in order.successors(v)])
        order.remove_node(v)
        total -= work_s[v]


def _comparable_s(order: "nx.DiGraph[int]", v: int, work_s: FloatArray) -> float:
    """Work of the blocks that are before or after v, and its own."""
    return float(work_s[[v, *nx.ancestors(order, v), *nx.descendants(order, v)]].sum())


def _n_comparable(order: "nx.DiGraph[int]", v: int) -> int:
    return len(nx.ancestors(order, v)) + len(nx.descendants(order, v))


def _holds(ideals: Ideals, ideal: int) -> BoolArray:
    """Bool [n_words * 64]: the blocks of an ideal."""
    return np.unpackbits(ideals.bits[ideal].view(np.uint8), bitorder="little").astype(np.bool_)
