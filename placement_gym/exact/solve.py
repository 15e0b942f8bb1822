"""mip: integer and constraint programmes for every objective, solved by free solvers."""

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.errors import InfeasiblePlacement, InvalidOption, unknown_name
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.fitting import solve_within_memory, value_s
from placement_gym.exact.latency.mip import solve_latency
from placement_gym.exact.latency.subgraphs import check_subgraphs, kind_of
from placement_gym.exact.makespan.program import solve_makespan
from placement_gym.exact.max_load.mip import solve_load
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.exact.starts import Start, best_start
from placement_gym.objectives import OBJECTIVES, Objective
from placement_gym.placement import Placement, infeasibility
from placement_gym.problem import Problem
from placement_gym.result import Answer, Evaluator, Result, Status
from placement_gym.rule import Rule


def mip(
    problem: Problem,
    *,
    rule: str | Rule = "physical",
    objective: Objective = "makespan",
    contiguous: bool = False,
    subgraphs: int = 1,
    start: ArrayLike | None = None,
    solver: Solver | None = None,
) -> Result:
    """The best placement by integer programming, with a proven bound.

    Objectives:

    - "max_load", "gpipe_load": the programmes for throughput (`max_load.mip.solve_load`), `contiguous` or not.
    - "latency": every accelerator runs up to `subgraphs` contiguous subgraphs (`latency.mip.solve_latency`).
    - "makespan": a scheduling model of the simulator's rule (`makespan.program.solve_makespan`).

    The search begins from `start`, or from the best of a few heuristics where no start is given. Solvers round their
    numbers; the result does not depend on that, because its placement is evaluated like any other, and the bounds
    allow for rounding. The status is "optimal" where the solver has proved that no placement is better, to its
    tolerance of about 1e-6 and the gap asked for, and "limit_reached" otherwise. With `contiguous`, and for the
    latency, the status is about such placements alone (`Result.restricted_to`). What is proved of them is
    `Result.class_lower_bound`; `Result.lower_bound` holds for all placements.

    The time limit counts from the call on, heuristics and the building of models included. With tens of thousands of
    ops the heuristic of the latency alone may take longer. Ctrl-C ends the search as the limit does: the result is the
    best placement so far, status "limit_reached". Where there is none yet, KeyboardInterrupt is raised.

    Args:
        problem: Any.
        rule: Of the makespan; of the schedule that comes with the result for any objective.
        objective: What is minimised.
        contiguous: For the loads: forward ops leave each device once, see `solve_load`.
        subgraphs: For the latency: contiguous subgraphs per accelerator.
        start: int [n_ops], a feasible placement, contiguous if that is asked for.
        solver: Solver and limits; CP-SAT for 300 s by default.

    Returns:
        The result; its gap is to the bound on all placements, `class_gap` to what is proved of the kind searched.

    Raises:
        InfeasiblePlacement: No placement is feasible, `start` is not, or no placement at all was found in time.
        InvalidOption: An option that the objective does not have, or a value out of range.
        MissingDependency: The solver is not installed.
    """
    solver = solver or Solver()
    solver.check_installed()
    if objective not in OBJECTIVES:
        raise InvalidOption(unknown_name("objective", objective, OBJECTIVES))
    if contiguous and objective not in ("max_load", "gpipe_load"):
        raise InvalidOption(f"contiguous is an option of max_load and gpipe_load, not of {objective}")
    check_subgraphs(objective, subgraphs)
    evaluator, deadline = Evaluator("mip", problem, rule, solver.seed, objective), Deadline(solver.time_limit_s)
    if start is not None:
        Placement(np.asarray(start)).check(problem)
        op_device = Placement(np.asarray(start)).op_device
        excess_bytes = evaluator.excess_bytes(op_device)
        if excess_bytes > 0:
            raise InfeasiblePlacement(f"start exceeds the memory of its devices by {excess_bytes:.6g} bytes in all")
        known: Start | None = Start(op_device, None, excess_bytes)
    else:
        known = best_start(evaluator, deadline, contiguous=contiguous, seed=solver.seed)
    fitting = known if known is not None and known.excess_bytes == 0 else None
    answer = _solve(evaluator, solver, deadline, fitting, contiguous, subgraphs)
    if known is not None and _is_better(evaluator, known, answer):
        answer = Answer(known.op_device, answer.lower_bound, False, priority=known.priority)
    if answer.op_device is None and not answer.proven and deadline.interrupted:
        raise KeyboardInterrupt
    evaluator.interrupted = deadline.interrupted
    return _result(evaluator, answer, _kind(evaluator, contiguous, subgraphs))


def _is_better(evaluator: Evaluator, known: Start, answer: Answer) -> bool:
    """Whether what the search began from is better than what it found; under "live" that may not fit."""
    if answer.op_device is None:
        return not answer.proven
    if evaluator.objective == "makespan":
        return False
    found = evaluator.excess_bytes(answer.op_device), value_s(evaluator, answer.op_device, answer.op_subgraph)
    return (known.excess_bytes, value_s(evaluator, known.op_device) * (1 + 1e-9)) < found


def _solve(
    evaluator: Evaluator, solver: Solver, deadline: Deadline, start: Start | None, contiguous: bool, subgraphs: int
) -> Answer:
    """What the programme of the objective finds and proves."""
    objective = evaluator.objective
    if objective == "makespan":
        begin, order = (None, None) if start is None else (start.op_device, start.priority)
        return solve_makespan(evaluator, solver, deadline, start=begin, priority=order)

    def programme(one: Problem, until: Deadline) -> Answer:
        begin = start.op_device if start is not None and infeasibility(one, start.op_device) is None else None
        if objective == "latency":
            return solve_latency(one, solver, until, start=begin, subgraphs=subgraphs)
        gpipe = objective == "gpipe_load"
        return solve_load(one, solver, until, start=begin, contiguous=contiguous, gpipe=gpipe)

    return solve_within_memory(evaluator, deadline, programme)


def _kind(evaluator: Evaluator, contiguous: bool, subgraphs: int) -> str | None:
    """The kind of placements that are searched, None if all are."""
    if evaluator.objective == "latency":
        return kind_of(subgraphs)
    if evaluator.objective == "makespan" and evaluator.ranks is not None:
        # A placement is ruled out once it was simulated in one order or a few.
        return "the orders tried"
    return "contiguous" if contiguous else None


def _result(evaluator: Evaluator, answer: Answer, restricted_to: str | None) -> Result:
    """The result of an answer; InfeasiblePlacement where it has no placement."""
    if answer.op_device is None:
        raise InfeasiblePlacement(
            f"no placement of {evaluator.problem.name!r} is feasible{f' ({restricted_to})' if restricted_to else ''}"
            if answer.proven
            else f"no feasible placement of {evaluator.problem.name!r} was found within the solver's time limit"
        )
    status: Status = "optimal" if answer.proven else "limit_reached"
    return evaluator.result(
        answer.op_device,
        status,
        lower_bound=answer.lower_bound,
        op_subgraph=answer.op_subgraph,
        priority=answer.priority,
        restricted_to=restricted_to,
    )
