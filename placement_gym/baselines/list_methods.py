"""List schedulers as pairs of (rank, choice): critical path, HEFT, CPoP, PEFT, ETF, m-ETF, DLS.

Each takes one ready op after the other and puts it on a device by an estimate that counts communication and waiting
(`list_scheduling.py`). The order of the planned starts comes with the result as its priority.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.list_scheduling import Listed, place_by_list
from placement_gym.baselines.plan_repair import placed_b_level_s, repaired
from placement_gym.errors import InvalidOption
from placement_gym.groups import Groups, Room
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s, t_level_s
from placement_gym.ranks import critical_path as longest_path
from placement_gym.result import Evaluator, Result, Score
from placement_gym.rule import Rule
from placement_gym.simulator.partial import PartialProblem


def upward_rank_s(problem: Problem) -> FloatArray:
    """float64 [n_ops], HEFT's upward rank: b-level with mean times and mean communication."""
    return b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))


def critical_path(problem: Problem, *, rule: str | Rule = "physical", n_tries: int = 50, seed: int = 0) -> Result:
    """List scheduling by critical path (Kwok and Ahmad, ACM Computing Surveys 1999), best of `n_tries`.

    The ready op with the longest way to the end goes where it finishes first, communication and waiting counted;
    ties between ops and between devices are broken at random, and the best try in the simulator wins.

    Raises:
        InvalidOption: `n_tries` below 1.
    """
    if n_tries < 1:
        raise InvalidOption(f"n_tries is {n_tries}; expected >= 1")
    evaluator = Evaluator("critical_path", problem, rule, seed)
    rng, rank = np.random.default_rng(seed), upward_rank_s(problem)
    made: list[tuple[Score, IntArray, FloatArray]] = []
    for groups in Groups.of(problem).ways_to_fit(problem):
        partial = PartialProblem.of(evaluator.compiled, groups)
        tries = [
            place_by_list(evaluator.compiled, rank=rank, jitter=rng.random(problem.n_ops), partial=partial)
            for _ in range(n_tries)
        ]
        placements, orders = np.stack([t.op_device for t in tries]), np.stack([t.priority for t in tries])
        score, best = evaluator.best(placements, orders)
        made.append((score, placements[best], orders[best]))
        if score.excess_bytes == 0:
            break
    _, op_device, order = min(made, key=lambda one: one[0])
    return evaluator.result(op_device, simulated=True, priority=order)


def _listed(
    method: str,
    problem: Problem,
    rule: str | Rule,
    *,
    rank: FloatArray,
    bias: FloatArray | None = None,
    earliest_first: bool = False,
    insertion: bool = False,
    pinned: tuple[IntArray, int] | None = None,
) -> Result:
    """One pass of the list scheduler; the ops of `pinned` go to its device where that can run and hold their groups."""
    evaluator, groups = Evaluator(method, problem, rule), Groups.of(problem)
    if pinned is not None:
        ops, device = pinned
        members = np.unique(groups.op_group[ops])
        able = members[groups.allowed[members, device]]
        room = Room(groups, problem)
        for group in able.tolist():
            room.put(group, device)
        if room.excess_bytes == 0:
            allowed = groups.allowed.copy()
            allowed[able] = np.arange(problem.n_devices) == device
            groups = replace(groups, allowed=allowed)
    listed = _fitting(evaluator, groups, rank=rank, bias=bias, earliest_first=earliest_first, insertion=insertion)
    simulated = evaluator.simulator_calls > 0  # to see whether it fits
    return evaluator.result(listed.op_device, simulated=simulated, priority=listed.priority)


def _fitting(evaluator: Evaluator, groups: Groups, **options: Any) -> Listed:  # noqa: ANN401
    """What `place_by_list` makes, with every output kept where it would not fit otherwise; what lacks less of both."""
    made = []
    for way in groups.ways_to_fit(evaluator.problem):
        listed = place_by_list(evaluator.compiled, partial=PartialProblem.of(evaluator.compiled, way), **options)
        made.append((evaluator.excess_bytes(listed.op_device, listed.priority), listed))
        if made[-1][0] == 0:
            break
    return min(made, key=lambda one: one[0])[1]


def heft(problem: Problem, *, rule: str | Rule = "physical", simulator_calls: int = 128) -> Result:
    """Heterogeneous earliest finish time with insertion (Topcuoglu, Hariri and Wu, IEEE TPDS 2002).

    Departures from the paper; all but the first under a `priority` queue alone, since others ignore an order:

    1. Transfers, memory, colocation and slots are those of the problem and the rule.
    2. It plans twice: ranks go by the mean transfer time over pairs of distinct devices, and over all pairs, a device
       with itself (0 s) included, as in the package anrg-saga. Authors differ in what ranks are made of, and much
       hangs on it (Zhao and Sakellariou, Euro-Par 2003).
    3. The paper's schedule may leave a device idle beside a ready op, for one that is more urgent; the simulator does
       not. So each plan is simulated in three orders, and the shortest is kept: planned starts, upward ranks, b-levels
       with the times of the placement.
    4. While the simulator takes longer than the shorter plan, ops of the critical chain move (`plan_repair.py`).

    Args:
        problem: The problem.
        rule: Simulator rule.
        simulator_calls: Under a `priority` queue, at most so many placements are simulated; with 1 the schedule is
            the paper's placement in the order of its starts.

    Raises:
        InvalidOption: `simulator_calls` below 1.
    """
    if simulator_calls < 1:
        raise InvalidOption(f"simulator_calls is {simulator_calls}; expected >= 1")
    evaluator, edge_time = Evaluator("heft", problem, rule), mean_edge_time_s(problem)
    ordered = evaluator.rule.queue == "priority" and simulator_calls > 1
    d = problem.n_devices
    op_devices, orders, planned_s = [], [], np.inf
    for share in (1.0, (d - 1) / (d + 1)) if ordered else (1.0,):
        rank = b_level_s(problem, mean_op_time_s(problem), share * edge_time)
        listed = _fitting(evaluator, Groups.of(problem), rank=rank, insertion=True)
        if not ordered:
            simulated = evaluator.simulator_calls > 0
            return evaluator.result(listed.op_device, simulated=simulated, priority=listed.priority)
        planned_s = min(planned_s, listed.makespan_s)
        orders += [listed.priority, rank, placed_b_level_s(problem, listed.op_device)]
        op_devices += 3 * [listed.op_device]
    return repaired(evaluator, np.stack(op_devices), np.stack(orders), planned_s, simulator_calls)


def cpop(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Critical path on a processor with insertion (same paper): the critical path goes to its fastest device."""
    op_time, edge_time = mean_op_time_s(problem), mean_edge_time_s(problem)
    rank = b_level_s(problem, op_time, edge_time) + t_level_s(problem, op_time, edge_time)
    path = longest_path(problem, op_time, edge_time)
    device = int(np.argmin(problem.op_time_s[path].sum(axis=0)))
    return _listed("cpop", problem, rule, rank=rank, insertion=True, pinned=(path, device))


def optimistic_cost_s(problem: Problem) -> FloatArray:
    """float64 [n_ops, n_devices]: PEFT's table, the least time from the end of an op on a device to the end of all."""
    graph, edge_time = problem.graph, mean_edge_time_s(problem)
    table = np.zeros(problem.op_time_s.shape)
    for op in graph.order[::-1].tolist():
        for e in graph.out_edges[graph.out_start[op] : graph.out_start[op + 1]].tolist():
            reader = graph.edge_dst[e]
            here = table[reader] + problem.op_time_s[reader]
            table[op] = np.maximum(table[op], np.minimum(here, (here + edge_time[e]).min()))
    return table


def peft(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Predict earliest finish time with insertion (Arabnejad and Barbosa, IEEE TPDS 2014)."""
    table = optimistic_cost_s(problem)
    able = np.isfinite(problem.op_time_s)
    finite = np.where(np.isfinite(table), table, 0.0)
    return _listed(
        "peft", problem, rule, rank=np.where(able, finite, 0.0).sum(1) / able.sum(1), bias=finite, insertion=True
    )


def etf(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Earliest task first (Hwang et al., SIAM J. Comput. 1989): the ready op that can start first.

    Ties go by static level, the longest way to the end without communication.
    """
    level = b_level_s(problem, mean_op_time_s(problem), np.zeros(problem.graph.n_edges))
    return _listed("etf", problem, rule, rank=level, earliest_first=True)


def dls(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Dynamic level scheduling (Sih and Lee, IEEE TPDS 1993): level, less the start, plus the device's advantage.

    The static level goes by median times; the advantage of a device is the median time of the op less its own there.
    """
    able = np.isfinite(problem.op_time_s)
    median = np.nanmedian(np.where(able, problem.op_time_s, np.nan), axis=1)
    level = b_level_s(problem, median, np.zeros(problem.graph.n_edges))
    bias = np.where(able, problem.op_time_s, 0.0) - median[:, None] - level[:, None]
    return _listed("dls", problem, rule, rank=level, bias=bias, earliest_first=True)


def m_etf(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Memory-aware earliest task first (Baechi, Jeon et al., SoCC 2020): as ETF; ties by upward rank."""
    return _listed("m_etf", problem, rule, rank=upward_rank_s(problem), earliest_first=True)
