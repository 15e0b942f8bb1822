"""ENUMERATIVEOPTIMIZER: groups of like ops, one after the other, each laid out in the cheapest of many ways."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numba import njit

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.arrangements import arrangements
from placement_gym.baselines.meta_ops import meta_ops
from placement_gym.errors import InvalidOption, unknown_name
from placement_gym.groups import Groups
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result, Score
from placement_gym.rule import Rule
from placement_gym.simulator.partial import (
    PartialPlacement,
    PartialProblem,
    copy_row,
    earliest_start,
    fits,
    lacking,
    least_lacking,
    put,
)

Cost = Literal["network", "finish", "total_finish"]

# Columns of costs.
FINISH, TOTAL_FINISH, NETWORK, LOAD = range(4)
# Ways to place a group: on given devices, or op by op.
AS_GIVEN, BY_FINISH, BY_NETWORK = range(3)
# Seconds beyond all others: what a device costs that has its share of a group.
FULL = 1e30


class _State(NamedTuple):
    """Row 0 is what was decided, row 1 what is tried.

    Attributes:
        placement: Two partial placements.
        sent: bool [2, n_tensors, n_devices], whether a copy was paid for.
        per_edge: Whether each edge pays, whatever was sent before.
        taken: int32 [n_devices], scratch.
    """

    placement: PartialPlacement
    sent: np.ndarray
    per_edge: bool
    taken: np.ndarray


@njit(cache=True, error_model="numpy", _nrt=False)
def _network(f: PartialProblem, s: _State, row: int, op: int, device: int, pay: bool) -> float:
    """Seconds of the transfers that bring the inputs of `op` to `device`; if `pay`, their copies are there then."""
    c, seconds = f.clock, 0.0
    for k in range(c.in_start[op], c.in_start[op + 1]):
        home = s.placement.clock.op_device[row, c.src[k]]
        if home != device and (s.per_edge or not s.sent[row, c.tensor[k], device]):
            seconds += c.delay[home, device] + c.hold[home, device] + c.size[k] / c.bytes_per_s[home, device]
            if pay:
                s.sent[row, c.tensor[k], device] = True
    return seconds


@njit(cache=True, error_model="numpy", _nrt=False)
def _choose(f: PartialProblem, s: _State, row: int, op: int, way: int, share: int) -> int:
    """Where `op` is best itself or, where it fits nowhere, lacks least memory; ties go to the least load.

    Best is earliest finish, or least network time among devices that have fewer than `share` ops of the group.
    """
    chosen, best, least = -1, np.inf, np.inf
    for device in range(f.slots.size):
        if not fits(f, s.placement, row, f.op_group[op], device):
            continue
        if way == BY_NETWORK:
            cost = _network(f, s, row, op, device, np.bool_(False)) + (FULL if s.taken[device] >= share else 0.0)
        else:
            cost = earliest_start(f, s.placement, row, op, device) + f.clock.op_time[op, device]
        load = s.placement.load[row, device] + f.clock.op_time[op, device]
        if chosen < 0 or cost < best or (cost == best and load < least):
            chosen, best, least = device, cost, load
    return chosen if chosen >= 0 else least_lacking(f, s.placement, row, f.op_group[op])


@njit(cache=True, error_model="numpy", _nrt=False)
def _place(
    f: PartialProblem, s: _State, row: int, ops: np.ndarray, devices: np.ndarray, way: int, cost: np.ndarray
) -> None:
    """Puts a group on `devices` (way AS_GIVEN), or writes there where it puts them.

    Writes (latest finish, sum of finishes, network seconds, largest load) into `cost`; inf if it breaks support or
    colocation, FULL more for every byte that is lacking.
    """
    lack = 0.0
    share = (ops.size + f.slots.size - 1) // f.slots.size
    for i in range(4):
        cost[i] = 0.0
    for d in range(f.slots.size):
        s.taken[d] = 0
    for i in range(ops.size):
        op = np.int64(ops[i])
        if way != AS_GIVEN:
            devices[i] = _choose(f, s, row, op, way, share)
        device, group = np.int64(devices[i]), f.op_group[op]
        home = s.placement.group_device[row, group]
        if (home >= 0 and home != device) or not f.allowed[group, device]:
            for k in range(4):
                cost[k] = np.inf
            return
        if home < 0:
            lack += max(0.0, lacking(f, s.placement, row, group, device))
        s.taken[device] += 1
        cost[NETWORK] += _network(f, s, row, op, device, np.bool_(True))
        put(f, s.placement, row, op, device)
        cost[FINISH] = max(cost[FINISH], s.placement.clock.finish[row, op])
        cost[TOTAL_FINISH] += s.placement.clock.finish[row, op]
    for d in range(f.slots.size):
        cost[LOAD] = max(cost[LOAD], s.placement.load[row, d])
    if lack > 0.0:
        for i in range(4):
            cost[i] += FULL * (1.0 + lack)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _costs(f: PartialProblem, s: _State, ops: np.ndarray, tried: np.ndarray, costs: np.ndarray) -> None:
    """Writes costs [n_tried, 4], see `_place`; the last two rows of `tried` are written first, op by op."""
    last = tried.shape[0] - 1
    for i in range(last + 1):
        way = BY_FINISH if i == last - 1 else BY_NETWORK if i == last else AS_GIVEN
        _place(f, s, np.int64(1), ops, tried[i], way, costs[i])
        copy_row(f, s.placement, 0, 1, ops)
        for op in ops:
            for k in range(f.clock.in_start[op], f.clock.in_start[op + 1]):
                for d in range(f.slots.size):
                    s.sent[1, f.clock.tensor[k], d] = s.sent[0, f.clock.tensor[k], d]


def _cheapest(cost: Cost, tried: IntArray, costs: FloatArray, n_devices: int) -> int:
    """Row of the cheapest arrangement, those that fit before all others; the first of equals."""
    finish, total, network, load = costs.T
    if cost == "finish":
        return int(np.lexsort((load, network, finish))[0])
    if cost == "total_finish":
        return int(np.lexsort((load, network, finish, total))[0])
    counts = (tried[:, :, None] == np.arange(n_devices)).sum(axis=1)
    uneven = counts.max(axis=1) > -(-tried.shape[1] // n_devices)
    return int(np.lexsort((finish, load, network, uneven, np.where(finish >= FULL, finish, 0.0)))[0])


def _lay_out(evaluator: Evaluator, bytes_of: Groups, groups: list[IntArray], cost: Cost) -> IntArray:
    """int32 [n_ops], by one pass over the groups; memory is counted as `bytes_of` does."""
    n_devices = evaluator.problem.n_devices
    partial = PartialProblem.of(evaluator.compiled, bytes_of)
    sent = np.zeros((2, int(partial.clock.tensor.max(initial=-1)) + 1, n_devices), np.bool_)
    per_edge = evaluator.rule.transfers == "edge"
    state = _State(PartialPlacement.fresh(partial, 2), sent, per_edge, np.zeros(n_devices, np.int32))
    for ops in groups:
        own = np.full((2, len(ops)), -1, np.int32)
        tried = np.concatenate([arrangements(len(ops), n_devices), own])
        costs = np.empty((len(tried), 4))
        _costs(partial, state, ops, tried, costs)
        best = _cheapest(cost, tried, costs, n_devices)
        for row in range(2):
            _place(partial, state, row, ops, tried[best], AS_GIVEN, costs[best])
    return np.array(state.placement.clock.op_device[0])


def enumerative(problem: Problem, *, rule: str | Rule = "physical", cost: Cost | Literal["best"] = "best") -> Result:
    """ENUMERATIVEOPTIMIZER of DOPPLER (arXiv 2505.23131), as far as it is known.

    For each meta-op in turn, shards before the joins that read them, many arrangements on the devices are tried and
    the one that costs least, given what was decided before, is kept (`meta_ops`, `arrangements`; beside those, each
    op where it finishes first and each where it moves least). Nothing is random.

    The authors' program is not public, and network time is said to be its cost. Here that is the least network time
    among arrangements that are even, as far as one is. By the clock of `simulator.clock`, which counts work and
    waiting too, the cost is the latest finish of the group's ops, or the sum of their finishes.

    Args:
        problem: The problem.
        rule: Simulator rule.
        cost: "network", "finish" or "total_finish"; with "best", the strongest, a pass for each, of which the
            simulator's best is kept.

    Raises:
        InvalidOption: An unknown cost.
    """
    names = get_args(Cost)
    if cost not in (*names, "best"):
        raise InvalidOption(unknown_name("cost", cost, (*names, "best")))
    evaluator, groups = Evaluator("enumerative", problem, rule), meta_ops(problem)
    found: list[tuple[Score, IntArray]] = []
    for bytes_of in Groups.of(problem).ways_to_fit(problem):
        made = [_lay_out(evaluator, bytes_of, groups, name) for name in (names if cost == "best" else (cost,))]
        score, row = evaluator.best(np.stack(made))
        found.append((score, made[row]))
        if score.excess_bytes == 0:
            break
    return evaluator.result(min(found, key=lambda one: one[0])[1], simulated=True)
