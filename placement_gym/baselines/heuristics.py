"""Constructive baselines that plan nothing: one device, round robin."""

import numpy as np

from placement_gym.errors import InfeasiblePlacement
from placement_gym.groups import Groups, Room
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule


def single_device(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Everything on one device: the fastest of those that can hold it all.

    Raises:
        InfeasiblePlacement: No device can run every op.
    """
    evaluator = Evaluator("single_device", problem, rule)
    able = np.flatnonzero(np.isfinite(problem.op_time_s).all(axis=0))
    if not able.size:
        reason = infeasibility(problem, np.zeros(problem.n_ops, dtype=np.int32))
        raise InfeasiblePlacement(f"no device can run all of {problem.name!r} alone: {reason}")
    placements = np.repeat(able[:, None], problem.n_ops, axis=1).astype(np.int32)
    _, row = evaluator.best(placements)
    return evaluator.result(placements[row], simulated=True)


def round_robin(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Ops in topological order on devices 0, 1, 2, ... in turn, past devices that cannot run or hold them.

    What fits nowhere goes where least is missing.
    """
    evaluator, groups = Evaluator("round_robin", problem, rule), Groups.of(problem)
    room, group_device = Room(groups, problem), np.zeros(groups.n_groups, dtype=np.int32)
    turn = 0
    for u in range(groups.n_groups):
        open_to = room.open_to(u).tolist()
        while turn % problem.n_devices not in open_to:
            turn += 1
        group_device[u] = turn % problem.n_devices
        room.put(u, int(group_device[u]))
        turn += 1
    return evaluator.result(groups.op_device(group_device))
