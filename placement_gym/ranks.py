"""t-level, b-level and the critical path of a problem (Kwok and Ahmad, ACM Computing Surveys 1999, section 4)."""

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.problem import Problem


def mean_op_time_s(problem: Problem) -> FloatArray:
    """float64 [n_ops]: mean over the devices that can run the op."""
    able = np.isfinite(problem.op_time_s)
    mean: FloatArray = np.where(able, problem.op_time_s, 0.0).sum(axis=1) / able.sum(axis=1)
    return mean


def fastest_op_time_s(problem: Problem) -> FloatArray:
    """float64 [n_ops]: time on the op's fastest device."""
    fastest: FloatArray = problem.op_time_s.min(axis=1)
    return fastest


def mean_edge_time_s(problem: Problem) -> FloatArray:
    """float64 [n_edges]: transfer time of each edge, mean over ordered pairs of distinct devices (0 on one device)."""
    d = problem.n_devices
    if d == 1:
        return np.zeros(problem.graph.n_edges)
    apart = ~np.eye(d, dtype=bool)
    latency = problem.link_latency_s[apart].mean()
    seconds_per_byte = (1.0 / problem.link_bytes_per_s[apart]).mean()
    return np.asarray(latency + problem.graph.edge_bytes * seconds_per_byte)


def b_level_s(problem: Problem, op_time_s: FloatArray, edge_time_s: FloatArray) -> FloatArray:
    """float64 [n_ops]: longest path from the start of each op to the end, ops and edges counted.

    Args:
        problem: The problem.
        op_time_s: float64 [n_ops], a time per op (see `mean_op_time_s`, `fastest_op_time_s`).
        edge_time_s: float64 [n_edges], a time per edge (zeros leave communication out).
    """
    graph = problem.graph
    level = op_time_s.astype(np.float64).tolist()
    own, edge = op_time_s.tolist(), edge_time_s.tolist()
    start, edges, head = graph.out_start.tolist(), graph.out_edges.tolist(), graph.edge_dst.tolist()
    for op in reversed(graph.order.tolist()):
        longest = 0.0
        for e in edges[start[op] : start[op + 1]]:
            longest = max(longest, edge[e] + level[head[e]])
        level[op] = own[op] + longest
    return np.array(level)


def t_level_s(problem: Problem, op_time_s: FloatArray, edge_time_s: FloatArray) -> FloatArray:
    """float64 [n_ops]: longest path from the beginning to the start of each op, its own time left out.

    Arguments as in `b_level_s`.
    """
    graph = problem.graph
    level = [0.0] * graph.n_ops
    own, edge = op_time_s.tolist(), edge_time_s.tolist()
    start, edges, tail = graph.in_start.tolist(), graph.in_edges.tolist(), graph.edge_src.tolist()
    for op in graph.order.tolist():
        for e in edges[start[op] : start[op + 1]]:
            level[op] = max(level[op], level[tail[e]] + own[tail[e]] + edge[e])
    return np.array(level)


def critical_path(problem: Problem, op_time_s: FloatArray, edge_time_s: FloatArray) -> IntArray:
    """int32 [length]: ops of a longest path, first to last (ties: smallest op number)."""
    graph = problem.graph
    level = b_level_s(problem, op_time_s, edge_time_s)
    sources = np.flatnonzero(np.diff(graph.in_start) == 0)
    op = int(sources[np.argmax(level[sources])])
    path = [op]
    while graph.out_start[op] < graph.out_start[op + 1]:
        out = graph.out_edges[graph.out_start[op] : graph.out_start[op + 1]]
        heads = graph.edge_dst[out]
        value = edge_time_s[out] + level[heads]
        op = int(heads[value == value.max()].min())
        path.append(op)
    return np.array(path, dtype=np.int32)
