"""Latency by dynamic programming over ideals: good placements, and bounds far above those of linear relaxations."""

from collections import defaultdict
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from placement_gym.arrays import BoolArray, IntArray
from placement_gym.errors import InvalidProblem
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.device_classes import tensor_times_s
from placement_gym.exact.ideals import Ideals, Tensors, list_ideals, rows_of, tensors_of
from placement_gym.exact.latency.blocks import comparable_blocks, leave_out, taken_apart
from placement_gym.exact.latency.chains import Graph, Stages, enter_stages
from placement_gym.exact.max_load.blocks import tensors_between
from placement_gym.groups import Groups
from placement_gym.objectives import pays_for_transfers
from placement_gym.problem import Problem
from placement_gym.ranks import fastest_op_time_s

# Pairs of ideals are compared, so many more would take too long.
MAX_IDEALS = 60_000
MAX_BORDERS = 10_000
# There is a table with an entry for each pair of blocks.
MAX_BLOCKS = 10_000
SIZES = 250
MEMORY_UNITS = 2.0**40
LOOKS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Stagewise:
    """A problem as the kernels read it: blocks and their ideals, with one kind of accelerator and one kind of CPU.

    Of several accelerators (CPUs) the one kind has the least time of each block and the largest memory.

    Attributes:
        problem: The problem.
        op_block: int32 [n_ops], block of each op (topological numbers), -1 if it is left out.
        graph: The blocks.
        tensors: Tensors between them.
        ideals: All ideals.
        n_serial: int32 [n_ideals], serial blocks in each.
        n_subgraphs: Subgraphs of all accelerators together.
        capacity: Memory of the largest accelerator.
        window: Units of memory that a part on an accelerator may have.
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
    def whole(cls, problem: Problem, deadline: Deadline) -> "Stagewise | None":
        """For placements with one subgraph per accelerator; `None` as in `_of`.

        What must share a device, and what waits for each other, is one block.
        """
        groups = Groups.acyclic(problem)
        return cls._of(problem, groups.op_group, np.zeros(problem.graph.n_edges, dtype=np.bool_), 1, deadline)

    @classmethod
    def relaxed(cls, problem: Problem, subgraphs: int, deadline: Deadline) -> "Stagewise | None":
        """For lower bounds, with less work and fewer constraints than the problem has; `None` as in `_of`.

        On CPUs each op of a colocation group runs by itself, so groups are taken apart into single ops. Three kinds
        of ops still join a block of their group:

        1. An op without work or inputs, whose readers are all in its group, joins one of them.
        2. An op without work, whose single input is from its group, joins that.
        3. An op that waits for nothing outside a block, and whose readers come after the block anyhow, joins the
           block, and takes no time on CPUs.

        With several subgraphs only the first is safe, because a group may be in several of them. Blocks that are
        beside a large share of the work (neither before nor after it) are left out, so that others become serial.
        """
        op_block, ignored, beside = taken_apart(problem, subgraphs, deadline)
        return cls._of(problem, op_block, ignored, subgraphs, deadline, beside=beside)

    @classmethod
    def _of(
        cls,
        problem: Problem,
        op_block: IntArray,
        ignored: BoolArray,
        subgraphs: int,
        deadline: Deadline,
        *,
        beside: BoolArray | None = None,
    ) -> "Stagewise | None":
        """None where the method does not apply: no accelerator, links that differ, too many blocks or ideals.

        Args:
            problem: The problem.
            op_block: int32 [n_ops], any numbers.
            ignored: bool [n_edges], edges that count neither for the order nor for transfers.
            subgraphs: Subgraphs per accelerator.
            deadline: When to stop.
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
        n = int(op_block.max()) + 1
        if n > MAX_BLOCKS:
            return None
        comparable = comparable_blocks(order, n, deadline)
        if beside is not None:
            fastest = np.zeros(n)
            np.add.at(fastest, op_block, fastest_op_time_s(problem))
            leave_out(order, fastest, comparable, deadline)
        number = np.full(n, -1, dtype=np.int32)
        number[list(nx.lexicographical_topological_sort(order))] = np.arange(len(order))
        seconds = {(int(number[a]), int(number[b])): sum(known.values()) for (a, b), known in pairs.items()}
        numbered = number[op_block]
        seconds = {ends: s for ends, s in seconds.items() if min(ends) >= 0}
        graph = _graph(problem, numbered, len(order), seconds, beside)
        tensors = tensors_of(*tensors_between(problem, numbered, ignored), len(order))
        per_byte = MEMORY_UNITS / max(float(graph.memory_bytes.sum()), 1.0)
        ideals = _ideals(
            graph, tensors, number[np.array(order.edges, dtype=np.int64).reshape(-1, 2)], per_byte, deadline
        )
        if ideals is None:
            return None
        left = list(order)
        serial = number[[v for v in left if comparable[v, left].all()]]
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

    def stages(self, *, relaxed: bool, cutoff: float, deadline: Deadline) -> Stages:
        """The dynamic programme below `cutoff` (`chains.enter_stages`).

        Raises:
            OutOfTimeError: The deadline is over.
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
            deadline.check()
        return stages

    def lower_bound_s(self, upper_s: float, deadline: Deadline) -> float:
        """Seconds of latency that no placement beats, `upper_s` if that is reached."""
        least = float(self.stages(relaxed=True, cutoff=upper_s, deadline=deadline).value[-1].min())
        return min(least, upper_s) * (1 - 1e-12)

    def placement(self, upper_s: float, deadline: Deadline) -> IntArray | None:
        """int32 [n_ops], the best placement whose stages wait for all before them; None if none is below `upper_s`.

        Of many ideals only those whose tensors to the rest take the least seconds are looked at.
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


def _ideals(graph: Graph, tensors: Tensors, pairs: IntArray, per_byte: float, deadline: Deadline) -> Ideals | None:
    """All ideals, sorted by (units of memory, size); None if there are more than `MAX_IDEALS`.

    Args:
        graph: The blocks.
        tensors: Tensors between them.
        pairs: int32 [n_pairs, 2], a block and one that waits for it.
        per_byte: Units of memory in a byte.
        deadline: When to stop.

    Raises:
        OutOfTimeError: The deadline is over.
    """
    n = len(graph.cpu_s)
    start, successors = rows_of(pairs[:, 0], pairs[:, 1], n)
    count, found = deadline.run_kernel(
        lambda stop: list_ideals(
            start,
            successors,
            np.bincount(pairs[:, 1], minlength=n).astype(np.int32),
            np.floor(graph.memory_bytes * per_byte).astype(np.int64),
            np.ascontiguousarray(graph.accelerator_s[:, None]),
            graph.memory_bytes,
            tensors,
            MAX_IDEALS,
            stop,
        )
    )
    deadline.check()
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
    """Blocks with the least seconds of all accelerators and of all CPUs; `inf` where none can run them."""
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


def _holds(ideals: Ideals, ideal: int) -> BoolArray:
    """Bool [n_words * 64]: the blocks of an ideal."""
    return np.unpackbits(ideals.bits[ideal].view(np.uint8), bitorder="little").astype(np.bool_)
