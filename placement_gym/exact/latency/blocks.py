"""Blocks of the dynamic programmes for the latency: which groups are taken apart, and which blocks are left out."""

import networkx as nx
import numpy as np

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.exact.deadline import Deadline
from placement_gym.problem import Problem

# A block is left out of a lower bound if more than this share of the work is neither before nor after it.
BESIDE = 0.2


def taken_apart(problem: Problem, subgraphs: int, deadline: Deadline) -> tuple[IntArray, BoolArray, BoolArray]:
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
        deadline.check()
        for host in np.flatnonzero((group == group[op]) & ~idle & ~beside & (block != block[op])).tolist():
            waits = [a for a in before[op] if block[a] not in (block[op], block[host])]
            readers = {b for b in after[op] if block[b] not in (block[op], block[host])}
            if not waits and not bool(np.any(beside[block == block[op]])) and readers <= nx.descendants(later, host):
                block[block == block[op]] = block[host]
                beside[op] = True
                break
    return block, ignored, beside


def comparable_blocks(order: "nx.DiGraph[int]", n: int, deadline: Deadline) -> BoolArray:
    """Bool [n, n], whether one of two blocks is before the other; true for a block and itself."""
    before = np.eye(n, dtype=np.bool_)
    for v in nx.topological_sort(order):
        deadline.check()
        for a in order.predecessors(v):
            before[v] |= before[a]
    comparable: BoolArray = before | before.T
    return comparable


def leave_out(order: "nx.DiGraph[int]", work_s: FloatArray, comparable: BoolArray, deadline: Deadline) -> None:
    """Takes blocks out of `order` (what is before them stays before what is after) until none is beside much work.

    Args:
        order: The blocks.
        work_s: float64 [n], work of each.
        comparable: bool [n, n], see `comparable_blocks`; it is that of the blocks that stay, too.
        deadline: When to stop.

    Raises:
        OutOfTimeError: The deadline is over.
    """
    total, beside_s = float(work_s.sum()), np.zeros(len(work_s))
    for v in order:
        deadline.check()
        beside_s[v] = work_s[~comparable[v]].sum()
    while True:
        deadline.check()
        much = [v for v in order if beside_s[v] > BESIDE * total and work_s[v] < beside_s[v]]
        if not much:
            return
        v = max(much, key=lambda block: beside_s[block] - work_s[block])
        order.add_edges_from([(a, b) for a in order.predecessors(v) for b in order.successors(v)])
        order.remove_node(v)
        total -= work_s[v]
        beside_s[~comparable[v]] -= work_s[v]
