"""exact_ilp: integer and constraint programmes for every objective, by solvers that are free."""

import time
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.arrays import IntArray
from placement_gym.baselines.linear_program import Solver
from placement_gym.baselines.load_program import solve_load
from placement_gym.baselines.partitioning import load_local_search
from placement_gym.baselines.pipeline import exact_dp
from placement_gym.baselines.result import Answer, Judge, Result
from placement_gym.errors import InfeasiblePlacement, InvalidOption, InvalidProblem
from placement_gym.objectives import Objective, gpipe_load_s, max_load_s
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.rule import Rule


def exact_ilp(
    problem: Problem,
    *,
    rule: str | Rule = "physical",
    objective: Objective = "max_load",
    contiguous: bool = False,
    start: ArrayLike | None = None,
    solver: Solver | None = None,
) -> Result:
    """ """
    solver = solver or Solver()
    solver.check_installed()
    judge, began = Judge("exact_ilp", problem, rule, objective=objective), time.perf_counter()
    known = (
        _start(problem, objective, contiguous, solver.seed) if start is None else Placement(np.asarray(start)).op_device
    )
    left = replace(solver, time_limit_s=max(1e-3, solver.time_limit_s - (time.perf_counter() - began)))
    answer = solve_load(problem, left, start=known, contiguous=contiguous, gpipe=objective == "gpipe_load")
    return _judged(judge, answer, known)


def _start(problem, objective, contiguous, seed):
    found = []
    value = gpipe_load_s if objective == "gpipe_load" else max_load_s
    for find in (lambda: exact_dp(problem), lambda: load_local_search(problem, restarts=100, seed=seed))[
        : 1 if contiguous else 2
    ]:
        try:
            found.append(find().placement.op_device)
        except (InfeasiblePlacement, InvalidProblem):
            continue
    return min(found, key=lambda one: value(problem, one), default=None)


def _judged(judge, answer, start):
    if answer.op_device is None and start is None:
        raise InfeasiblePlacement("no")
    r = judge.result(
        start if answer.op_device is None else answer.op_device,
        "optimal" if answer.proven else "limit_reached",
        lower_bound=answer.lower_bound,
    )
    return r
