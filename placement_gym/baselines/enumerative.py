"""ENUMERATIVEOPTIMIZER: groups of like ops, one after the other, each laid out in the cheapest of many ways."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numba import njit

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.arrangements import arrangements
from placement_gym.baselines.meta_ops import meta_ops
from placement_gym.errors import InfeasiblePlacement, InvalidOption, unknown_name
from placement_gym.groups import Groups
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule
from placement_gym.simulator.clock import ClockProblem, ClockState, inputs_ready, move_inputs

Cost = Literal["network", "finish", "total_finish"]

# Columns of costs.
FINISH, TOTAL_FINISH, NETWORK, LOAD = range(4)
# Ways to place a group: on given devices, or op by op.
AS_GIVEN, BY_FINISH, BY_NETWORK = range(3)
# Seconds beyond all others: what a device costs that has its share of a group.
FULL = 1e30


class _Fixed(NamedTuple):
    """What holds throughout: the clock's problem, and units as in `Groups`; arrays are writable copies."""

    clock: ClockProblem
    slots: np.ndarray
    memory: np.ndarray
    op_unit: np.ndarray
    unit_memory: np.ndarray
    allowed: np.ndarray
    per_edge: bool


class _State(NamedTuple):
    """Row 0 is what was decided, row 1 what is tried.

    Attributes:
        clock: The clock.
        unit_device: int32 [2, n_units], -1 for none.
        slot_free: float64 [2, n_devices, most slots], seconds; inf where there is no such slot.
        load: float64 [2, n_devices], seconds of work.
        memory_used: float64 [2, n_devices], bytes.
        sent: bool [2, n_tensors, n_devices], whether a copy was paid for.
    """

    clock: ClockState
    unit_device: np.ndarray
    slot_free: np.ndarray
    load: np.ndarray
    memory_used: np.ndarray
    sent: np.ndarray


@njit(cache=True, error_model="numpy", _nrt=False)
def _fits(f: _Fixed, s: _State, row: int, op: int, device: int) -> bool:
    u = f.op_unit[op]
    if s.unit_device[row, u] >= 0:
        return bool(s.unit_device[row, u] == device)
    return bool(f.allowed[u, device] and s.memory_used[row, device] + f.unit_memory[u] <= f.memory[device])


@njit(cache=True, error_model="numpy", _nrt=False)
def _network(f: _Fixed, s: _State, row: int, op: int, device: int, pay: bool) -> float:
    """Seconds of the transfers that bring the inputs of `op` to `device`; if `pay`, their copies are there then."""
    c, seconds = f.clock, 0.0
    for k in range(c.in_start[op], c.in_start[op + 1]):
        home = s.clock.op_device[row, c.src[k]]
        if home != device and (f.per_edge or not s.sent[row, c.tensor[k], device]):
            seconds += c.delay[home, device] + c.hold[home, device] + c.size[k] / c.bytes_per_s[home, device]
            if pay:
                s.sent[row, c.tensor[k], device] = True
    return seconds


@njit(cache=True, error_model="numpy", _nrt=False)
def _choose(f: _Fixed, s: _State, row: int, op: int, way: int, taken: np.ndarray, share: int) -> int:
    """Where `op` is best itself, -1 if it fits nowhere; ties go to the least load.

    Best is earliest finish, or least network time among devices that have fewer than `share` ops of the group.
    """
    chosen, best, least = -1, np.inf, np.inf
    for device in range(f.slots.size):
        if not _fits(f, s, row, op, device):
            continue
        if way == BY_NETWORK:
            cost = _network(f, s, row, op, device, False) + (FULL if taken[device] >= share else 0.0)
        else:
            free = s.slot_free[row, device, 0]
            for i in range(1, s.slot_free.shape[2]):
                free = min(free, s.slot_free[row, device, i])
            cost = max(inputs_ready(f.clock, s.clock, row, op, device), free) + f.clock.op_time[op, device]
        load = s.load[row, device] + f.clock.op_time[op, device]
        if chosen < 0 or cost < best or (cost == best and load < least):
            chosen, best, least = device, cost, load
    return chosen


@njit(cache=True, error_model="numpy", _nrt=False)
def _place(
    f: _Fixed, s: _State, row: int, ops: np.ndarray, devices: np.ndarray, way: int, taken: np.ndarray, cost: np.ndarray
) -> None:
    """Puts a group on `devices` (way AS_GIVEN), or writes there where it puts them; `taken` is scratch.

    Writes (latest finish, sum of finishes, network seconds, largest load) into `cost`; inf if it does not fit.
    """
    share = (ops.size + f.slots.size - 1) // f.slots.size
    for i in range(4):
        cost[i] = 0.0
    for d in range(f.slots.size):
        taken[d] = 0
    for i in range(ops.size):
        op = ops[i]
        if way != AS_GIVEN:
            devices[i] = _choose(f, s, row, op, way, taken, share)
        device = devices[i]
        if device < 0 or not _fits(f, s, row, op, device):
            for k in range(4):
                cost[k] = np.inf
            return
        taken[device] += 1
        u, time = f.op_unit[op], f.clock.op_time[op, device]
        if s.unit_device[row, u] < 0:
            s.unit_device[row, u] = device
            s.memory_used[row, device] += f.unit_memory[u]
        slot = 0
        for k in range(1, s.slot_free.shape[2]):
            if s.slot_free[row, device, k] < s.slot_free[row, device, slot]:
                slot = k
        cost[NETWORK] += _network(f, s, row, op, device, True)
        finish = max(move_inputs(f.clock, s.clock, row, op, device), s.slot_free[row, device, slot]) + time
        s.clock.op_device[row, op] = device
        s.clock.finish[row, op] = finish
        s.slot_free[row, device, slot] = finish + (f.clock.device_hold if time > 0.0 else 0.0)
        s.load[row, device] += time
        cost[FINISH] = max(cost[FINISH], finish)
        cost[TOTAL_FINISH] += finish
    for d in range(f.slots.size):
        cost[LOAD] = max(cost[LOAD], s.load[row, d])


@njit(cache=True, error_model="numpy", _nrt=False)
def _undo(f: _Fixed, s: _State, ops: np.ndarray) -> None:
    """Makes row 1 what row 0 is, where the placement of `ops` can have changed it."""
    for i in range(s.clock.channel_free.shape[1]):
        s.clock.channel_free[1, i] = s.clock.channel_free[0, i]
    for d in range(f.slots.size):
        s.load[1, d] = s.load[0, d]
        s.memory_used[1, d] = s.memory_used[0, d]
        for i in range(s.slot_free.shape[2]):
            s.slot_free[1, d, i] = s.slot_free[0, d, i]
    for op in ops:
        s.clock.op_device[1, op] = s.clock.op_device[0, op]
        s.unit_device[1, f.op_unit[op]] = s.unit_device[0, f.op_unit[op]]
        for k in range(f.clock.in_start[op], f.clock.in_start[op + 1]):
            tensor = f.clock.tensor[k]
            for d in range(f.slots.size):
                s.sent[1, tensor, d] = s.sent[0, tensor, d]
                if f.clock.copies:
                    s.clock.copied[1, tensor, d] = s.clock.copied[0, tensor, d]


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _costs(f: _Fixed, s: _State, ops: np.ndarray, tried: np.ndarray, taken: np.ndarray, costs: np.ndarray) -> None:
    """Writes costs [n_tried, 4], see `_place`; the last two rows of `tried` are written first, op by op."""
    last = tried.shape[0] - 1
    for i in range(last + 1):
        way = BY_FINISH if i == last - 1 else BY_NETWORK if i == last else AS_GIVEN
        _place(f, s, 1, ops, tried[i], way, taken, costs[i])
        _undo(f, s, ops)


def _start(evaluator: Evaluator) -> tuple[_Fixed, _State]:
    """The problem, with nothing placed."""
    problem, units, clock = evaluator.problem, Groups.of(evaluator.problem), ClockProblem.of(evaluator.compiled)
    slots, d = np.array(problem.device_slots), problem.n_devices
    free = np.where(np.arange(slots.max()) < slots[:, None], 0.0, np.inf)
    n_tensors = int(clock.tensor.max(initial=-1)) + 1
    return _Fixed(
        clock,
        slots,
        np.array(problem.device_memory_bytes),
        np.array(units.op_unit),
        np.array(units.memory_bytes),
        np.array(units.allowed),
        evaluator.rule.transfers == "edge",
    ), _State(
        ClockState.fresh(clock, 2),
        np.full((2, units.n_units), -1, np.int32),
        np.repeat(free[None], 2, axis=0),
        np.zeros((2, d)),
        np.zeros((2, d)),
        np.zeros((2, n_tensors, d), np.bool_),
    )


def _cheapest(cost: Cost, tried: IntArray, costs: FloatArray, n_devices: int) -> int:
    """Row of the cheapest arrangement that fits; the first of equals."""
    finish, total, network, load = costs.T
    if cost == "finish":
        return int(np.lexsort((load, network, finish))[0])
    if cost == "total_finish":
        return int(np.lexsort((load, network, finish, total))[0])
    counts = (tried[:, :, None] == np.arange(n_devices)).sum(axis=1)
    uneven = counts.max(axis=1) > -(-tried.shape[1] // n_devices)
    return int(np.lexsort((finish, load, network, uneven, np.isinf(finish)))[0])


def _lay_out(evaluator: Evaluator, groups: list[IntArray], cost: Cost) -> IntArray:
    """int32 [n_ops], by one pass over the groups."""
    problem, n_devices = evaluator.problem, evaluator.problem.n_devices
    fixed, state = _start(evaluator)
    taken = np.zeros(n_devices, np.int32)
    for ops in groups:
        own = np.full((2, len(ops)), -1, np.int32)
        tried = np.concatenate([arrangements(len(ops), n_devices), own])
        costs = np.empty((len(tried), 4))
        _costs(fixed, state, ops, tried, taken, costs)
        best = _cheapest(cost, tried, costs, n_devices)
        if np.isinf(costs[best, FINISH]):
            raise InfeasiblePlacement(
                f"enumeration of {problem.name!r} has no device left with room for the {len(ops)} ops that begin "
                f"with {problem.graph.op_names[int(ops[0])]!r}"
            )
        for row in range(2):
            _place(fixed, state, row, ops, tried[best], AS_GIVEN, taken, costs[best])
    return np.array(state.clock.op_device[0])


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
        InfeasiblePlacement: Some group fits in no arrangement into what memory is left.
    """
    names = get_args(Cost)
    if cost not in (*names, "best"):
        raise InvalidOption(unknown_name("cost", cost, (*names, "best")))
    evaluator, groups = Evaluator("enumerative", problem, rule), meta_ops(problem)
    made, failure = [], None
    for name in names if cost == "best" else (cost,):
        try:
            made.append(_lay_out(evaluator, groups, name))
        except InfeasiblePlacement as error:
            failure = error
    if failure is not None and not made:
        raise failure
    return evaluator.result(made[evaluator.best(np.stack(made))[1]], simulated=True)
