"""Blocks: a problem contracted to what a pipeline can cut (Tarnawski et al., NeurIPS 2020, section 5 and appendix).

Ops that must share a device become one block. Blocks are ordered by the forward edges alone: a backward op goes
where its forward op is.
"""

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.errors import InfeasiblePlacement
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.device_classes import DeviceClasses, tensor_times_s
from placement_gym.groups import Groups
from placement_gym.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A directed acyclic graph of blocks, numbered in a topological order, and the tensors between them.

    Attributes:
        op_block: int32 [n_ops], block of each op.
        time_s: float64 [n_blocks, n_classes], work of one sample, `inf` where a class cannot run it.
        memory_bytes: float64 [n_blocks].
        order: int32 [n_pairs, 2], pairs (a, b), each once: b does not come before a in the pipeline.
        tensor_s: float64 [n_tensors], seconds that an accelerator pays to send or to fetch the tensor.
        tensor_blocks: Per tensor the blocks that make or read it, two at least.
    """

    op_block: IntArray
    time_s: FloatArray
    memory_bytes: FloatArray
    order: IntArray
    tensor_s: FloatArray
    tensor_blocks: tuple[tuple[int, ...], ...]

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.memory_bytes)

    @classmethod
    def of(cls, problem: Problem, classes: DeviceClasses, deadline: Deadline | None = None) -> "Blocks":
        """The blocks of a problem, built until the deadline.

        1. A colocation group is one block.
        2. A group without forward ops is ordered by its backward edges, reversed.
        3. Blocks on a cycle become one.
        4. A block without work joins its only predecessor or successor where that cannot cost transfers; the paper's
           programs do so for blocks with a single neighbour. It must claim no memory, unless each device could hold
           everything.

        Raises:
            InfeasiblePlacement: A block fits no device.
            InvalidProblem: The time of a tensor depends on the pair of devices.
            OutOfTimeError: The deadline is over.
        """
        deadline = deadline or Deadline()
        op_block = Groups.of(problem).op_group.astype(np.int64)
        order = _order(problem, op_block)
        deadline.check()
        op_block, order = _join_cycles(op_block, order)
        deadline.check()
        op_block, order = _join_idle(problem, classes, op_block, order, deadline)
        deadline.check()
        number = _topological_numbers(order, op_block)
        op_block = number[op_block]
        n = int(op_block.max()) + 1
        time, memory = np.zeros((n, classes.n_classes)), np.zeros(n)
        np.add.at(time, op_block, classes.time_s)
        np.add.at(memory, op_block, problem.op_memory_bytes)
        _check_fits(problem, classes, op_block, time, memory)
        deadline.check()
        return cls(
            op_block.astype(np.int32), time, memory, number[order].astype(np.int32), *tensors_between(problem, op_block)
        )


def _distinct(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of different blocks, each once."""
    apart: NDArray[np.int64] = np.unique(pairs[pairs[:, 0] != pairs[:, 1]].reshape(-1, 2), axis=0)
    return apart


def _order(problem: Problem, op_block: NDArray[np.int64]) -> NDArray[np.int64]:
    """Forward edges between blocks, and backward ones, reversed, where a block has no forward op."""
    graph = problem.graph
    src, dst, backward = graph.edge_src, graph.edge_dst, graph.op_is_backward
    has_forward = np.zeros(int(op_block.max()) + 1, dtype=bool)
    has_forward[op_block[~backward]] = True
    ahead = ~backward[src] & ~backward[dst]
    orphan = backward[src] & backward[dst] & ~(has_forward[op_block[src]] & has_forward[op_block[dst]])
    pairs = [
        np.stack([op_block[src[ahead]], op_block[dst[ahead]]], axis=1),
        np.stack([op_block[dst[orphan]], op_block[src[orphan]]], axis=1),
    ]
    return _distinct(np.concatenate(pairs))


def _join_cycles(op_block: NDArray[np.int64], order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Blocks on a cycle become one."""
    directed: nx.DiGraph[int] = nx.DiGraph()
    directed.add_edges_from(order.tolist())
    joined = np.arange(int(op_block.max()) + 1)
    for component in nx.strongly_connected_components(directed):
        joined[list(component)] = min(component)
    return joined[op_block], _distinct(joined[order])


def _idle_blocks(problem: Problem, classes: DeviceClasses, op_block: NDArray[np.int64], n: int) -> BoolArray:
    """Bool [n], blocks without work, and without memory unless each device could hold everything."""
    memory_binds = problem.op_memory_bytes.sum() > classes.memory_bytes.min()
    idle = np.zeros(n, dtype=np.bool_)
    idle[op_block] = True
    idle[op_block[(classes.time_s > 0).any(axis=1) | (memory_binds & (problem.op_memory_bytes > 0))]] = False
    return idle


def _join_idle(
    problem: Problem,
    classes: DeviceClasses,
    op_block: NDArray[np.int64],
    order: NDArray[np.int64],
    deadline: Deadline,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Step 4 of `Blocks.of`, repeated until nothing changes.

    Block v may always be moved to the device of u, its only predecessor or its only successor: the order allows it,
    and v has no work. Tensors that both u and v make or read cost no device more than before. The other tensors of v
    cost the device that v leaves, and that of u, at most their seconds more. Tensors of u and v alone cost nothing
    any more.
    """
    n = int(op_block.max()) + 1
    idle = _idle_blocks(problem, classes, op_block, n)
    before: list[set[int]] = [set() for _ in range(n)]
    after: list[set[int]] = [set() for _ in range(n)]
    for a, b in order.tolist():
        after[a].add(b)
        before[b].add(a)
    seconds, known = tensors_between(problem, op_block)
    tensors = [set(blocks) for blocks in known]
    touch: list[set[int]] = [set() for _ in range(n)]
    for t, blocks in enumerate(tensors):
        for v in blocks:
            touch[v].add(t)

    def host(v: int) -> int | None:
        """The block that v may join."""
        others = set().union(*(tensors[t] for t in touch[v])) - {v} if not before[v] and not after[v] else set()
        for u in [*(before[v] if len(before[v]) == 1 else ()), *(after[v] if len(after[v]) == 1 else ()), *others]:
            between = sum(seconds[t] for t in touch[v] if tensors[t] == {u, v})
            if between >= sum(seconds[t] for t in touch[v] if u not in tensors[t]):
                return int(u)
        return None

    joined = np.arange(n)
    pending = [v for v in reversed(range(n)) if idle[v]]
    while pending:
        deadline.check()
        v = pending.pop()
        u = host(v) if idle[v] else None
        if u is None:
            continue
        joined[v], idle[v] = u, False
        for w in before[v]:
            after[w].discard(v)
            if w != u:
                after[w].add(u)
                before[u].add(w)
        for w in after[v]:
            before[w].discard(v)
            if w != u:
                before[w].add(u)
                after[u].add(w)
        for t in touch[v]:
            tensors[t] = (tensors[t] - {v}) | {u}
            touch[u].add(t)
            if len(tensors[t]) == 1:
                touch[u].discard(t)
        near = {u, *before[u], *after[u]}.union(*(tensors[t] for t in touch[v]))
        pending += [w for w in near if idle[w]]
    while (joined[joined] != joined).any():
        joined = joined[joined]
    return joined[op_block], _distinct(joined[order])


def _topological_numbers(order: NDArray[np.int64], op_block: NDArray[np.int64]) -> NDArray[np.int64]:
    """A topological number of each block that is left; neighbours get numbers that are close."""
    used = np.unique(op_block)
    successors: dict[int, list[int]] = {v: [] for v in used.tolist()}
    waiting = dict.fromkeys(used.tolist(), 0)
    for a, b in order.tolist():
        successors[a].append(b)
        waiting[b] += 1
    number = np.full(int(op_block.max()) + 1, -1, dtype=np.int64)
    ready = [v for v in reversed(used.tolist()) if waiting[v] == 0]
    for i in range(len(used)):
        v = ready.pop()
        number[v] = i
        for w in reversed(successors[v]):
            waiting[w] -= 1
            if waiting[w] == 0:
                ready.append(w)
    return number


def _check_fits(
    problem: Problem, classes: DeviceClasses, op_block: NDArray[np.int64], time: FloatArray, memory: FloatArray
) -> None:
    fits = np.isfinite(time) & (memory[:, None] <= classes.memory_bytes[None, :])
    nowhere = np.flatnonzero(~fits.any(axis=1))
    if nowhere.size:
        ops = np.flatnonzero(op_block == nowhere[0])
        raise InfeasiblePlacement(
            f"the {ops.size} ops that a contiguous placement of {problem.name!r} must keep together (first "
            f"{problem.graph.op_names[int(ops[0])]!r}, {memory[nowhere[0]]:.4g} bytes) fit no device that can run them"
        )


def tensors_between(
    problem: Problem, op_block: NDArray[np.integer], ignored: BoolArray | None = None
) -> tuple[FloatArray, tuple[tuple[int, ...], ...]]:
    """Tensors that more than one block makes or reads; those of the same blocks are added up.

    Args:
        problem: The problem.
        op_block: int [n_ops], block of each op, negative for ops that are left out.
        ignored: bool [n_edges], edges that are left out.

    Returns:
        (float64 [n_tensors] seconds, the blocks of each).
    """
    graph, seconds = problem.graph, tensor_times_s(problem)
    blocks_of: dict[int, tuple[float, set[int]]] = {}
    src, dst = op_block[graph.edge_src], op_block[graph.edge_dst]
    crossing = (src != dst) & (src >= 0) & (dst >= 0)
    for e in np.flatnonzero(crossing if ignored is None else crossing & ~ignored).tolist():
        maker = int(op_block[graph.edge_src[e]])
        known = blocks_of.setdefault(int(graph.edge_tensor[e]), (float(seconds[e]), {maker}))[1]
        known.add(int(op_block[graph.edge_dst[e]]))
    total: dict[tuple[int, ...], float] = {}
    for time_s, known in blocks_of.values():
        key = tuple(sorted(known))
        total[key] = total.get(key, 0.0) + time_s
    return np.array(list(total.values())), tuple(total)
