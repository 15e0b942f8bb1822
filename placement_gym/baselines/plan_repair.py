"""Repair of list schedules: ops of the critical chain move until the simulator is as fast as was planned."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.groups import Groups
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s
from placement_gym.result import Evaluator, Result, Score
from placement_gym.simulator import critical_chain


def placed_b_level_s(problem: Problem, op_device: IntArray) -> FloatArray:
    """float64 [n_ops]: b-level with the times on the devices of a placement, waiting left out."""
    src, dst = op_device[problem.graph.edge_src], op_device[problem.graph.edge_dst]
    move_s = problem.link_latency_s[src, dst] + problem.graph.edge_bytes / problem.link_bytes_per_s[src, dst]
    op_time_s = problem.op_time_s[np.arange(problem.n_ops), op_device]
    return b_level_s(problem, op_time_s, np.where(src == dst, 0.0, move_s))


def _moves(problem: Problem, groups: Groups, op_device: IntArray, chain: IntArray) -> Iterator[IntArray]:
    """Feasible placements that differ in one group of the chain, last op first."""
    for op in chain.tolist():
        group = groups.op_group[op]
        members = groups.ops[groups.start[group] : groups.start[group + 1]]
        for device in np.flatnonzero(groups.allowed[group]).tolist():
            moved = op_device.copy()
            moved[members] = device
            if infeasibility(problem, moved) is None:
                yield moved


def repaired(
    evaluator: Evaluator, op_devices: IntArray, orders: FloatArray, planned_s: float, simulator_calls: int
) -> Result:
    """The best of some list schedules under a `priority` queue, changed until it is as short as was planned.

    A list schedule may leave a device idle beside a ready op, for one that is more urgent; the simulator does not.
    While the best takes longer than planned, a group of its critical chain moves to another device: of all such
    placements not tried yet the best, even if it takes longer than the one before (tabu search, Glover 1989).
    Nothing is random.

    Args:
        evaluator: Simulates and counts.
        op_devices: int32 [n_schedules, n_ops].
        orders: float64 [n_schedules, n_ops], their priorities.
        planned_s: Makespan that was planned, seconds.
        simulator_calls: At most so many placements are simulated, at least 1; the first schedules go first.
    """
    problem, groups = evaluator.problem, Groups.of(evaluator.problem)
    least, first = evaluator.best(op_devices[:simulator_calls], orders[:simulator_calls])
    best, order = op_devices[first], orders[first]
    at, tried, planned = best, {best.tobytes()}, Score(0.0, planned_s * (1 + 1e-9))
    while least > planned:
        left = simulator_calls - evaluator.simulator_calls - 1  # one call finds the critical chain
        if left < 1:
            break
        evaluator.simulator_calls += 1
        chain = critical_chain(evaluator.compiled, at, evaluator.compiled.trace(at, order, None, None))
        moves = (moved for moved in _moves(problem, groups, at, chain) if moved.tobytes() not in tried)
        placements = list(islice(moves, left))
        if not placements:
            break
        score, row = evaluator.best(np.stack(placements), order)
        tried.update(moved.tobytes() for moved in placements)
        at = placements[row]
        if score < least:
            best, least = at, score
    return evaluator.result(best, simulated=True, priority=order)
