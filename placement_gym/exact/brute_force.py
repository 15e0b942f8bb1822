"""Brute force: every placement, for problems small enough."""

import itertools
import math

import numpy as np

from placement_gym.arrays import IntArray
from placement_gym.errors import InfeasiblePlacement, InvalidOption
from placement_gym.groups import Groups
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule


def brute_force(problem: Problem, *, rule: str | Rule = "physical", limit: int = 1_000_000) -> Result:
    """The optimum, by simulating every feasible placement.

    Args:
        problem: The problem.
        rule: Simulator rule.
        limit: Most placements to try.

    Raises:
        InvalidOption: There are more than `limit` placements.
        InfeasiblePlacement: No placement fits into memory.
    """
    evaluator, units = Evaluator("brute_force", problem, rule), Groups.of(problem)
    choices = [np.flatnonzero(row).tolist() for row in units.allowed]
    n_placements = math.prod(len(c) for c in choices)
    if n_placements > limit:
        many = f"10^{sum(math.log10(len(c)) for c in choices):.1f}"
        raise InvalidOption(f"{problem.name!r} has {many} placements; brute force is limited to {limit}")
    best: tuple[float, IntArray] | None = None
    every = itertools.product(*choices)
    while chunk := list(itertools.islice(every, 4096)):
        unit_devices = np.array(chunk, dtype=np.int32).reshape(len(chunk), units.n_units)
        used = np.zeros((len(chunk), problem.n_devices))
        for d in range(problem.n_devices):
            used[:, d] = ((unit_devices == d) * units.memory_bytes).sum(axis=1)
        unit_devices = unit_devices[(used <= problem.device_memory_bytes).all(axis=1)]
        if not len(unit_devices):
            continue
        op_devices = np.ascontiguousarray(unit_devices[:, units.op_unit])
        makespans = evaluator.makespans_s(op_devices)
        i = int(np.argmin(makespans))
        if best is None or makespans[i] < best[0]:
            best = (float(makespans[i]), op_devices[i])
    if best is None:
        raise InfeasiblePlacement(f"none of the {n_placements} placements of {problem.name!r} fits into memory")
    return evaluator.result(best[1], "optimal", simulated=True)
