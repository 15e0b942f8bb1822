"""Meta-ops: groups of ops that are alike, as the shards of one op of a program, and an order in which to place them."""

import re

import networkx as nx
import numpy as np

from placement_gym.arrays import IntArray
from placement_gym.problem import Problem

Key = tuple[object, ...]


def _depths(problem: Problem) -> list[int]:
    """Edges on the longest path to each op."""
    graph, depth = problem.graph, [0] * problem.n_ops
    for op in graph.order.tolist():
        for e in graph.out_edges[graph.out_start[op] : graph.out_start[op + 1]].tolist():
            reader = int(graph.edge_dst[e])
            depth[reader] = max(depth[reader], depth[op] + 1)
    return depth


def _between(problem: Problem, keys: list[Key]) -> "nx.DiGraph[Key]":
    """Which group waits for which."""
    between: nx.DiGraph[Key] = nx.DiGraph()
    between.add_nodes_from(keys)
    graph = problem.graph
    ends = zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), strict=True)
    between.add_edges_from((keys[a], keys[b]) for a, b in ends if keys[a] != keys[b])
    return between


def meta_ops(problem: Problem) -> list[IntArray]:
    """int32 op numbers of each group, groups and their ops in an order in which no op comes before its inputs.

    The ops of a group are of one kind and take the same times. Where names are "<op>/<what><number>", as those of
    sharded programs, they come from one op and are the same `what` (shards, joins, repartitions); elsewhere, and
    where groups would wait for each other in a circle, they are equally deep. Of several groups that could be next,
    the one with the shallowest op is, then the one with the smallest op number.
    """
    graph, depth = problem.graph, _depths(problem)
    keys: list[Key] = []
    for op, name in enumerate(graph.op_names):
        named = re.fullmatch(r"(.+)/([a-z]*)\d+", name)
        origin: Key = named.groups() if named else ("at depth", depth[op])
        keys.append((*origin, graph.op_kinds[op], problem.op_time_s[op].tobytes()))
    circles = [group for group in nx.strongly_connected_components(_between(problem, keys)) if len(group) > 1]
    circular = set().union(*circles)
    keys = [(*key, depth[op]) if key in circular else key for op, key in enumerate(keys)]
    members: dict[Key, list[int]] = {}
    for op in graph.order.tolist():
        members.setdefault(keys[op], []).append(op)
    shallowest = {key: (min(depth[op] for op in ops), min(ops)) for key, ops in members.items()}
    ordered = nx.lexicographical_topological_sort(_between(problem, keys), key=lambda key: shallowest[key])
    return [np.array(members[key], dtype=np.int32) for key in ordered]
