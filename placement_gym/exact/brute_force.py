"""Brute force: every placement, for problems small enough."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from placement_gym.arrays import IntArray
from placement_gym.errors import InfeasiblePlacement, InvalidOption
from placement_gym.groups import Groups
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule

# So many placements are simulated together.
CHUNK = 4096


def brute_force(problem: Problem, *, rule: str | Rule = "physical", limit: int = 1_000_000) -> Result:
    """The optimum, by simulating every feasible placement.

    Ctrl-C ends it with the best placement so far, status "limit_reached".

    Args:
        problem: The problem.
        rule: Simulator rule.
        limit: Most placements to try.

    Raises:
        InvalidOption: There are more than `limit` placements.
        InfeasiblePlacement: No placement fits into memory.
    """
    evaluator, units = Evaluator("brute_force", problem, rule), Groups.of(problem)
    # Under a `priority` queue another order may be better than the one that placements are evaluated by.
    kind = None if evaluator.ranks is None else "b-level order"
    choices = [np.flatnonzero(row).tolist() for row in units.allowed]
    n_placements = math.prod(len(c) for c in choices)
    if n_placements > limit:
        # Beyond what a float holds only the order of magnitude is printed.
        many = f"{n_placements:.3g}" if n_placements < 10**300 else f"1e{math.log10(n_placements):.0f}"
        raise InvalidOption(f"{problem.name!r} has {many} placements; brute force is limited to {limit}")
    best: tuple[float, IntArray] | None = None
    complete = False
    try:
        for makespan, op_device in _best_of_chunks(evaluator, units, choices):
            if best is None or makespan < best[0]:
                best = makespan, op_device
        complete = True
    except KeyboardInterrupt:
        if best is None:
            raise
    if best is None:
        raise InfeasiblePlacement(f"none of the {n_placements} placements of {problem.name!r} fits into memory")
    return evaluator.result(best[1], "optimal" if complete else "limit_reached", simulated=True, restricted_to=kind)


def _best_of_chunks(evaluator: Evaluator, units: Groups, choices: list[list[int]]) -> Iterator[tuple[float, IntArray]]:
    """(makespan, int32 [n_ops]) of the best placement of every few thousand that has a feasible one."""
    problem, every = evaluator.problem, itertools.product(*choices)
    while chunk := list(itertools.islice(every, CHUNK)):
        unit_devices = np.array(chunk, dtype=np.int32).reshape(len(chunk), units.n_units)
        used = np.zeros((len(chunk), problem.n_devices))
        for d in range(problem.n_devices):
            used[:, d] = ((unit_devices == d) * units.memory_bytes).sum(axis=1)
        unit_devices = unit_devices[(used <= problem.device_memory_bytes).all(axis=1)]
        if not len(unit_devices):
            continue
        op_devices = np.ascontiguousarray(unit_devices[:, units.op_unit])
        score, row = evaluator.best(op_devices)
        if score.excess_bytes == 0:
            yield score.makespan_s, op_devices[row]
