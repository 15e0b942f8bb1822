"""Brute force: every placement, for problems small enough."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.errors import InfeasiblePlacement, InvalidOption, unknown_name
from placement_gym.exact.latency.subgraphs import check_subgraphs, kind_of
from placement_gym.groups import Groups
from placement_gym.objectives import OBJECTIVES, Objective, gpipe_load_s, latency_s, max_load_s, pays_for_transfers
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule

# So many placements are evaluated together.
CHUNK = 4096


def brute_force(
    problem: Problem,
    *,
    rule: str | Rule = "physical",
    objective: Objective = "makespan",
    subgraphs: int = 1,
    limit: int = 1_000_000,
) -> Result:
    """The optimum, by evaluating every feasible placement.

    The objectives mean what they mean for `mip`. The makespan is simulated, a million placements in seconds or
    minutes; the others take about a hundred times as long. Ctrl-C ends it with the best placement so far, status
    "limit_reached".

    Args:
        problem: The problem.
        rule: Of the makespan; of the schedule that comes with the result for any objective.
        objective: What is minimised.
        subgraphs: For the latency: most contiguous subgraphs per accelerator. Every division of an accelerator's ops
            into so many is tried, so there are (devices * subgraphs) ** ops placements or so.
        limit: Most placements to try.

    Raises:
        InvalidOption: There are more than `limit` placements, or an option that the objective does not have.
        InfeasiblePlacement: No placement fits into memory; for the latency, none has so few subgraphs.
    """
    if objective not in OBJECTIVES:
        raise InvalidOption(unknown_name("objective", objective, OBJECTIVES))
    check_subgraphs(objective, subgraphs)
    evaluator = Evaluator("brute_force", problem, rule, objective=objective)
    places = _Places(problem, subgraphs)
    if places.number > limit:
        # Beyond what a float holds only the order of magnitude is printed.
        many = f"{places.number:.3g}" if places.number < 10**300 else f"1e{math.log10(places.number):.0f}"
        raise InvalidOption(f"{problem.name!r} has {many} placements; brute force is limited to {limit}")
    kind = kind_of(subgraphs) if objective == "latency" else None
    if evaluator.order_decides_fit or (objective == "makespan" and evaluator.ranks is not None):
        # Under a `priority` queue another order may be better than the one in which placements are simulated.
        kind = f"{kind}, b-level order" if kind else "b-level order"
    best: tuple[float, IntArray, IntArray] | None = None
    complete = False
    try:
        for seconds, op_device, op_subgraph in _best_of_chunks(evaluator, places):
            if best is None or seconds < best[0]:
                best = seconds, op_device, op_subgraph
        complete = True
    except KeyboardInterrupt:
        if best is None:
            raise
        evaluator.interrupted = True
    if best is None:
        said = " in b-level order" if evaluator.order_decides_fit else ""
        raise InfeasiblePlacement(f"none of the {places.number} placements of {problem.name!r} is feasible{said}")
    return evaluator.result(
        best[1],
        "optimal" if complete else "limit_reached",
        simulated=objective == "makespan",
        op_subgraph=best[2] if subgraphs > 1 else None,
        restricted_to=kind,
    )


class _Places:
    """Where groups may be: devices, or the subgraphs of accelerators.

    Attributes:
        groups: What moves together: with several subgraphs, ops of a colocation group may be in several of one device.
        device: int32 [n_places].
        subgraph: int32 [n_places], 0 on CPUs.
        choices: Places of each group.
        number: Number of placements, feasible or not.
    """

    def __init__(self, problem: Problem, subgraphs: int) -> None:
        self.groups = Groups.of(problem) if subgraphs == 1 else Groups.single(problem)
        pays = pays_for_transfers(problem)
        pairs = [(d, s) for d in range(problem.n_devices) for s in range(subgraphs if pays[d] else 1)]
        self.device, self.subgraph = np.array(pairs, dtype=np.int32).T
        self.choices = [np.flatnonzero(row[self.device]).tolist() for row in self.groups.allowed]
        self.number = math.prod(len(places) for places in self.choices)


def _best_of_chunks(evaluator: Evaluator, places: _Places) -> Iterator[tuple[float, IntArray, IntArray]]:
    """(value, int32 [n_ops] devices, int32 [n_ops] subgraphs) of the best of every few thousand, if one is feasible."""
    problem, groups, every = evaluator.problem, places.groups, itertools.product(*places.choices)
    while chunk := list(itertools.islice(every, CHUNK)):
        group_places = np.array(chunk, dtype=np.int32).reshape(len(chunk), groups.n_groups)
        group_devices = places.device[group_places]
        used = np.zeros((len(chunk), problem.n_devices))
        for d in range(problem.n_devices):
            used[:, d] = ((group_devices == d) * groups.memory_bytes).sum(axis=1)
        op_places = np.ascontiguousarray(
            group_places[(used <= problem.device_memory_bytes).all(axis=1)][:, groups.op_group]
        )
        if not len(op_places):
            continue
        op_devices, op_subgraphs = places.device[op_places], places.subgraph[op_places]
        values = _values_s(evaluator, op_devices, op_subgraphs)
        i = int(np.argmin(values))
        if np.isfinite(values[i]):
            yield float(values[i]), op_devices[i], op_subgraphs[i]


def _values_s(evaluator: Evaluator, op_devices: IntArray, op_subgraphs: IntArray) -> FloatArray:
    """float64 [B], seconds; `inf` where a placement does not fit, subgraphs wait for each other or a group is split."""
    problem, objective = evaluator.problem, evaluator.objective
    if objective == "makespan":
        makespans_s, excess_bytes = evaluator.weigh(op_devices)
        return np.where(excess_bytes > 0, np.inf, makespans_s)
    values = np.full(len(op_devices), np.inf)
    fits = np.array([evaluator.excess_bytes(row) == 0 for row in op_devices])
    if objective != "latency":
        load_s = max_load_s if objective == "max_load" else gpipe_load_s
        values[fits] = [load_s(problem, row) for row in op_devices[fits]]
        return values
    for i in np.flatnonzero(fits):
        try:
            values[i] = latency_s(problem, op_devices[i], op_subgraphs[i])
        except InfeasiblePlacement:
            continue
    return values
