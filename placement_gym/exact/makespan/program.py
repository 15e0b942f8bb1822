"""solve_makespan: the placement of least simulated makespan, by constraint programming, with a proven bound."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InvalidOption
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.makespan.annealing import anneal
from placement_gym.exact.makespan.grid import Grid
from placement_gym.exact.makespan.model import OpModel
from placement_gym.exact.makespan.ports import add_port_rules
from placement_gym.exact.makespan.transfers import TransferModel
from placement_gym.exact.mip.linear_program import Solver, run_cp_sat
from placement_gym.groups import Groups
from placement_gym.placement import infeasibility
from placement_gym.result import Answer, Evaluator

# Placements closer than this to the best one are not looked for: rounding to whole units takes less.
TOLERANCE = 1e-6
POLISHING_CALLS = 5000
POLISHING_SHARE = 0.2


@dataclass(slots=True, eq=False)
class Incumbent:
    """The best placement so far and what was learnt from all that were proposed.

    Attributes:
        evaluator: Who simulates.
        groups: What is placed.
        op_device: int32 [n_ops] or None.
        priority: float64 [n_ops], its order under a `priority` queue; None for b-level ranks.
        makespan_s: Its simulated makespan, `inf` without one.
        seen: Group devices of the placements that need not be proposed again.
        latest: The last proposal.
        waiting_edges: Edges of the transfers that waited in a proposal where the simulator lets them start.
    """

    evaluator: Evaluator
    groups: Groups
    op_device: IntArray | None = None
    priority: FloatArray | None = None
    makespan_s: float = math.inf
    seen: set[tuple[int, ...]] = field(default_factory=set)
    latest: IntArray | None = None
    waiting_edges: set[int] = field(default_factory=set)

    def offer(self, op_device: IntArray, priority: FloatArray | None = None) -> None:
        """Simulates a placement, if it is feasible, and keeps it if it is the best."""
        if infeasibility(self.evaluator.problem, op_device) is None:
            score, _ = self.evaluator.best(op_device[None, :], priority)
            if score.excess_bytes == 0 and score.makespan_s < self.makespan_s:
                self.op_device, self.priority, self.makespan_s = op_device, priority, score.makespan_s

    def propose(self, group_device: tuple[int, ...], start: list[int]) -> None:
        """Offers what the solver found, under a `priority` queue also in the order of its starts.

        It may find one placement several times.
        """
        self.latest = self.groups.op_device(np.array(group_device, dtype=np.int32))
        if group_device not in self.seen:
            self.seen.add(group_device)
            self.offer(self.latest)
        if self.evaluator.ranks is not None:
            self.offer(self.latest, -np.array(start, dtype=np.float64))

    def polish(self, seed: int, deadline: Deadline) -> None:
        """Anneals from the best placement: the better it is, the less is left to search."""
        if self.op_device is not None:
            calls, known = POLISHING_CALLS, self.op_device
            order = self.priority
            for found in anneal(self.evaluator, known, order, deadline, calls=calls, hot=0.02, cold=0.0002, seed=seed):
                self.offer(found.op_device, found.priority)

    def learn(self, edge_start_s: dict[int, float], tolerance_s: float) -> None:
        """Notes the first transfer that starts later in the last proposal than in its simulation."""
        if self.latest is None or infeasibility(self.evaluator.problem, self.latest) is not None:
            return
        self.evaluator.simulator_calls += 1
        start_s = self.evaluator.compiled.trace(self.latest, np.zeros(len(self.latest)), None, None).transfer_start_s
        late = [(start_s[e], e) for e, proposed_s in edge_start_s.items() if proposed_s > start_s[e] + tolerance_s]
        self.waiting_edges.update(e for _, e in sorted(late)[:1])


def solve_makespan(
    evaluator: Evaluator,
    solver: Solver,
    deadline: Deadline,
    *,
    start: IntArray | None,
    priority: FloatArray | None = None,
) -> Answer:
    """The placement of least simulated makespan, and a bound that no placement beats.

    A constraint programme (OR-Tools CP-SAT) whose solutions include the simulated schedule of every feasible
    placement (`OpModel`, `TransferModel`): its optimum is a lower bound. It leaves ties and overtaking open, so the
    makespan of a solution may be lower than that of the simulated placement. Each solution is therefore a proposal:
    its placement is simulated and then ruled out, and the search goes on. Only placements better than the best
    simulated one by more than the tolerance are looked for; when none is left, the best is proven. Exchanging devices
    that are alike changes no simulated makespan, so only one order of them is looked at.

    Args:
        evaluator: Gives problem and rule, simulates and counts.
        solver: CP-SAT and its limits; a gap below 1e-6 counts as 1e-6.
        deadline: Ends the search, and the building of models; so does Ctrl-C.
        start: int [n_ops], a feasible placement to begin from; the result is not worse.
        priority: float [n_ops], its order under a `priority` queue; b-level ranks where not given.

    Returns:
        The answer; "proven" says that no placement is better by more than a relative 1e-6 or, without a placement,
        that there is none.

    Raises:
        InvalidOption: A solver that has no scheduling model.
        MissingDependency: OR-Tools is not installed.
    """
    if solver.name != "cp_sat":
        raise InvalidOption(f"the makespan is a scheduling model, which solver {solver.name!r} lacks; expected cp_sat")
    solver.check_installed()
    from ortools.sat.python import cp_model

    best = Incumbent(evaluator, Groups.of(evaluator.problem))
    bound, done = lower_bound_s(evaluator.problem), max(solver.gap, TOLERANCE)
    with deadline.ends():
        if start is not None:
            best.offer(np.ascontiguousarray(start, dtype=np.int32), priority)
            best.polish(solver.seed, deadline.share(POLISHING_SHARE))
        else:
            _offer_random(best, solver.seed, deadline)
        while bound < best.makespan_s * (1 - done) and not deadline.is_over:
            bound = max(bound, _round(best, done, deadline, solver, cp_model))
    bound = min(bound, best.makespan_s)
    if math.isinf(bound):
        # Where the order decides what fits, a placement that was ruled out may fit in another one.
        return Answer(None, 0.0, not (evaluator.order_decides_fit and best.seen))
    return Answer(best.op_device, bound, bound >= best.makespan_s * (1 - TOLERANCE), priority=best.priority)


def _offer_random(best: Incumbent, seed: int, deadline: Deadline) -> None:
    """Begins from random placements, polished, where there is nothing to begin from."""
    problem, rng = best.evaluator.problem, np.random.default_rng(seed)
    for _ in range(20):
        deadline.check()
        best.offer(best.groups.op_device(best.groups.random(problem, rng, n_tries=10)))
    best.polish(seed, deadline)


def _serial_s(evaluator: Evaluator) -> float:
    """Seconds that no placement exceeds: all work and all transfers one after the other."""
    problem = evaluator.problem
    work = np.where(np.isfinite(problem.op_time_s), problem.op_time_s, 0.0).max(axis=1) + evaluator.rule.device_hold_s
    transfer = problem.link_latency_s.max() + problem.graph.edge_bytes / problem.link_bytes_per_s.min()
    return float(work.sum() + transfer.sum()) or 1.0


def _round(best: Incumbent, gap: float, deadline: Deadline, solver: Solver, cp_model: Any) -> float:  # noqa: ANN401
    """One search for a placement better than the best by `gap`; returns a bound on the placements not seen before it.

    Placements that were ruled out have been simulated: the smaller of what it returns and the best makespan is a bound
    on all placements.

    Raises:
        OutOfTimeError: The deadline is over before the model is there.
    """
    evaluator, known = best.evaluator, best.op_device is not None
    longest_s = best.makespan_s if known else _serial_s(evaluator)
    grid = Grid.of(evaluator.problem, evaluator.rule, longest_s)
    # Rounded down, the makespan of a placement that is better than wanted is at most this.
    latest = math.floor(longest_s * (1 - gap if known else 1.001) / grid.unit_s)
    beyond_s = (latest + 1) * grid.unit_s * (1 - 1e-15) if known else math.inf
    ops = OpModel(evaluator.problem, evaluator.rule, grid, latest, deadline, cp_model)
    if not ops.feasible:
        return beyond_s
    transfers = TransferModel(ops)
    if best.seen:
        # These constraints are many and rarely needed: not before a proposal has failed.
        add_port_rules(transfers, best.waiting_edges)
    deadline.check()
    for group_device in best.seen:
        ops.model.add_bool_or([~ops.place[u][d] for u, d in enumerate(group_device)])
    ops.model.minimize(ops.makespan)
    engine = cp_model.CpSolver()

    class Proposals(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
        """Simulates every placement that the solver finds."""

        def on_solution_callback(self) -> None:
            places = [[self.boolean_value(literal) for literal in row] for row in ops.place]
            best.propose(tuple(row.index(True) for row in places), [self.value(start) for start in ops.start])

    retry = bool(best.seen)
    status = run_cp_sat(engine, ops.model, solver, deadline, Proposals())
    if status == cp_model.MODEL_INVALID:
        raise AssertionError(ops.model.validate())
    if status == cp_model.INFEASIBLE:
        return beyond_s
    if status == cp_model.OPTIMAL and retry:
        happens = [one for one in transfers.transfers if engine.boolean_value(one.present)]
        starts_s = {one.edge: engine.value(one.start) * grid.unit_s for one in happens}
        best.learn(starts_s, 1e-6 * longest_s)
    best.polish(solver.seed, deadline)
    return min(float(engine.best_objective_bound) * grid.unit_s * (1 - 1e-15), beyond_s)
