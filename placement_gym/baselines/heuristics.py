"""Constructive baselines: one device, round robin, and list schedulers."""

import numpy as np

from placement_gym.baselines.list_scheduling import place_by_list
from placement_gym.errors import InfeasiblePlacement, InvalidOption
from placement_gym.groups import Groups
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
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


def _ranks(problem: Problem) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The upward rank of HEFT: b-level with mean times and mean communication."""
    return np.ascontiguousarray(b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem)))


def critical_path(problem: Problem, *, rule: str | Rule = "physical", n_tries: int = 50, seed: int = 0) -> Result:
    """List scheduling by critical path (Kwok and Ahmad, ACM Computing Surveys 1999), best of `n_tries`.

    The ready op with the longest way to the end goes where it finishes first, communication and waiting counted;
    ties between ops and between devices are broken at random, and the best try in the simulator wins.

    Raises:
        InvalidOption: `n_tries` below 1.
        InfeasiblePlacement: No try fitted into memory.
    """
    if n_tries < 1:
        raise InvalidOption(f"n_tries is {n_tries}; expected >= 1")
    evaluator, units = Evaluator("critical_path", problem, rule, seed), Groups.of(problem)
    rng, rank = np.random.default_rng(seed), _ranks(problem)
    tries: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    failure: InfeasiblePlacement | None = None
    for _ in range(n_tries):
        try:
            tries.append(place_by_list(evaluator.compiled, units, rank=rank, jitter=rng.random(problem.n_ops)))
        except InfeasiblePlacement as error:
            failure = error
    if not tries:
        assert failure is not None
        raise failure
    makespans = evaluator.makespans_s(np.stack(tries))
    return evaluator.result(tries[int(np.argmin(makespans))], simulated=True)


def heft(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Heterogeneous earliest finish time with insertion (Topcuoglu, Hariri and Wu, IEEE TPDS 2002).

    Raises:
        InfeasiblePlacement: An op fits on no device any more.
    """
    evaluator, units = Evaluator("heft", problem, rule), Groups.of(problem)
    nothing = np.zeros(problem.n_ops)
    return evaluator.result(
        place_by_list(evaluator.compiled, units, rank=_ranks(problem), jitter=nothing, insertion=True)
    )


def m_etf(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """Memory-aware earliest task first (Baechi, Jeon et al., SoCC 2020): the ready op that can start first, there.

    Raises:
        InfeasiblePlacement: An op fits on no device any more.
    """
    evaluator, units = Evaluator("m_etf", problem, rule), Groups.of(problem)
    nothing = np.zeros(problem.n_ops)
    return evaluator.result(
        place_by_list(evaluator.compiled, units, rank=_ranks(problem), jitter=nothing, earliest_first=True)
    )
