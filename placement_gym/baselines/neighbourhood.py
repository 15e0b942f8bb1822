"""Neighbourhood: what the moves of a local search go by, and the call of its loop."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.moves import search_loop
from placement_gym.groups import Groups
from placement_gym.memory import LiveRows
from placement_gym.problem import Problem
from placement_gym.result import Score
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.arrays import Workspace


class Found(NamedTuple):
    """The best of a search.

    Attributes:
        op_device: int32 [n_ops].
        priority: float64 [n_ops], its order under a `priority` queue, None under others.
        score: Bytes over capacity and makespan.
        calls: Simulations made.
    """

    op_device: IntArray
    priority: FloatArray | None
    score: Score
    calls: int


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhood:
    """Neighbours and bundles of every group.

    Attributes:
        groups: The groups.
        near_start: int32 [n_groups + 1], `near[near_start[u]:near_start[u + 1]]` are joined to group u by an edge.
        near: int32.
        bundle_start: int32 [n_bundles + 1], as above: the groups of a bundle.
        bundle_groups: int32.
        group_bundle: int32 [n_groups, 2], for each group the bundle of its like (same kind and depth) and a run of the
            topological order around it.
    """

    groups: Groups
    near_start: IntArray
    near: IntArray
    bundle_start: IntArray
    bundle_groups: IntArray
    group_bundle: IntArray

    @classmethod
    def of(cls, problem: Problem, *, run_length: int = 8) -> "Neighbourhood":
        """The neighbourhood of a problem; runs of the topological order have `run_length` groups."""
        graph, groups = problem.graph, Groups.of(problem)
        joined: list[set[int]] = [set() for _ in range(groups.n_groups)]
        for a, b in zip(
            groups.op_group[graph.edge_src].tolist(), groups.op_group[graph.edge_dst].tolist(), strict=True
        ):
            if a != b:
                joined[a].add(b)
                joined[b].add(a)
        depth = np.zeros(problem.n_ops, dtype=np.int64)
        for op in graph.order.tolist():
            for e in graph.out_edges[graph.out_start[op] : graph.out_start[op + 1]]:
                depth[graph.edge_dst[e]] = max(depth[graph.edge_dst[e]], depth[op] + 1)
        first_op = groups.ops[groups.start[:-1]]
        like: dict[tuple[str, int], list[int]] = {}
        for u, op in enumerate(first_op.tolist()):
            like.setdefault((graph.op_kinds[op], int(depth[op])), []).append(u)
        position = np.empty(problem.n_ops, dtype=np.int64)
        position[graph.order] = np.arange(problem.n_ops)
        by_order = np.argsort(position[first_op], kind="stable")
        runs = [by_order[i : i + run_length].tolist() for i in range(0, groups.n_groups, run_length)]
        bundles = [*like.values(), *runs]
        group_bundle = np.zeros((groups.n_groups, 2), dtype=np.int32)
        for g, members in enumerate(bundles):
            group_bundle[members, 0 if g < len(like) else 1] = g
        return cls(
            groups,
            _starts([len(x) for x in joined]),
            np.array([v for x in joined for v in sorted(x)], dtype=np.int32),
            _starts([len(x) for x in bundles]),
            np.array([u for x in bundles for u in x], dtype=np.int32),
            group_bundle,
        )

    def search(
        self,
        compiled: CompiledProblem,
        op_device: IntArray,
        priority: FloatArray | None = None,
        *,
        calls: int,
        rng: np.random.Generator,
        hot: float,
        cold: float,
        critical_share: float,
        stop_now: NDArray[np.uint8] | None = None,
    ) -> Found:
        """Runs `moves.search_loop` from `op_device`; under a `priority` queue the order is searched, too.

        Args:
            compiled: Problem and rule.
            op_device: int32 [n_ops], the start.
            priority: float64 [n_ops], the order to begin from, under a `priority` queue alone.
            calls: Simulations, that of the start included.
            rng: Where the moves come from.
            hot: First temperature over the start's makespan; 0 for a descent.
            cold: Last temperature over the start's makespan.
            critical_share: Share of moves that touch the chain of ops that sets the makespan.
            stop_now: uint8 [1], the search ends once another thread makes it 1.
        """
        problem, graph, groups = compiled.problem, compiled.problem.graph, self.groups
        group_device = groups.group_device(op_device)
        best, orders = group_device.copy(), priority is not None
        order = np.array(compiled.arrays.priority if priority is None else priority)
        best_order = order.copy()
        excess_bytes, makespan, done = search_loop(
            compiled.options._replace(recording=True),
            compiled.arrays._replace(priority=order),
            compiled.memory,
            Workspace.for_run(compiled.arrays),
            LiveRows.of_size(problem.n_ops, graph.n_edges, problem.n_devices),
            rng,
            calls,
            hot,
            cold,
            critical_share,
            1 if compiled.rule.makespan == "last_event" else 0,
            orders,
            graph.in_start,
            graph.in_edges,
            graph.edge_src,
            graph.edge_bytes,
            groups.op_group,
            groups.start,
            groups.ops,
            groups.allowed,
            groups.memory_bytes,
            self.near_start,
            self.near,
            self.bundle_start,
            self.bundle_groups,
            self.group_bundle,
            group_device,
            best,
            best_order,
            np.zeros(1, dtype=np.uint8) if stop_now is None else stop_now,
        )
        score = Score(excess_bytes, makespan * compiled.tick_s)
        return Found(groups.op_device(best), best_order if orders else None, score, done)


def _starts(lengths: list[int]) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
