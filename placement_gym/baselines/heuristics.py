"""Constructive baselines that plan nothing: one device, round robin."""

import numpy as np

from placement_gym.errors import InfeasiblePlacement
from placement_gym.groups import Groups
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule


def single_device(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Everything on one device: the fastest that can run and hold it all.

    Raises:
        InfeasiblePlacement: No device can run and hold every op.
    """
    evaluator = Evaluator("single_device", problem, rule)
    placements = [np.full(problem.n_ops, d, dtype=np.int32) for d in range(problem.n_devices)]
    reasons = [infeasibility(problem, p) for p in placements]
    fitting = [p for p, reason in zip(placements, reasons, strict=True) if reason is None]
    if not fitting:
        raise InfeasiblePlacement(f"no device can run all of {problem.name!r} alone: {reasons[0]}")
    makespans = evaluator.makespans_s(np.stack(fitting))
    return evaluator.result(fitting[int(np.argmin(makespans))], simulated=True)


def round_robin(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Ops in topological order on devices 0, 1, 2, ... in turn, past devices that cannot run or hold them.

    Raises:
        InfeasiblePlacement: An op fits on no device any more.
    """
    evaluator, units = Evaluator("round_robin", problem, rule), Groups.of(problem)
    free = problem.device_memory_bytes.copy()
    unit_device = np.zeros(units.n_units, dtype=np.int32)
    turn = 0
    for u in range(units.n_units):
        fits = units.allowed[u] & (free >= units.memory_bytes[u])
        if not fits.any():
            op = problem.graph.op_names[units.ops[units.start[u]]]
            raise InfeasiblePlacement(f"round robin of {problem.name!r} has no device left with room for op {op!r}")
        while not fits[turn % problem.n_devices]:
            turn += 1
        unit_device[u] = turn % problem.n_devices
        free[unit_device[u]] -= units.memory_bytes[u]
        turn += 1
    return evaluator.result(units.op_device(unit_device))
