"""Complete placements on the clock, in Numba: they are changed, replayed in the assignment order, and described.

An op has its turn when the ops before it in the order have been put on the clock, and no other. Arrays that episodes of
all problems have in common have the place in the stack as axis 0: `order`, int32 [places, max_ops], and `leads`, bool
[places, max_ops], whether an op is the first of its group in the order.
"""

import numpy as np
from numba import njit

from placement_gym.envs.device_features import LOAD, EpisodeProblem, describe_masked
from placement_gym.envs.observation import BOUND
from placement_gym.envs.stack import StackArrays, problem_at
from placement_gym.simulator.partial import (
    PartialPlacement,
    PartialProblem,
    clear_row,
    earliest_start,
    fits,
    least_lacking,
    put,
    rewind,
)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def recount(f: PartialProblem, s: PartialPlacement, b: int) -> None:
    """Writes the memory that the groups on devices take."""
    for d in range(f.slots.size):
        s.memory_used[b, d], s.working[b, d] = 0.0, 0.0
    for group in range(f.group_memory.size):
        d = s.group_device[b, group]
        if d >= 0:
            s.memory_used[b, d] += f.group_memory[group]
            s.working[b, d] = max(s.working[b, d], f.group_working[group])


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def move(f: PartialProblem, s: PartialPlacement, b: int, group: int, device: int) -> None:
    """Moves a group, and its memory, to a device; the clock does not know yet."""
    s.group_device[b, group] = device
    for op in range(f.op_group.size):
        if f.op_group[op] == group:
            s.clock.op_device[b, op] = device
    recount(f, s, b)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def free_neighbourhood(f: PartialProblem, s: PartialPlacement, b: int, group: int) -> None:
    """Takes a group off its device, and every group that an edge joins with it."""
    s.group_device[b, group] = -1
    for op in range(f.op_group.size):
        for k in range(f.clock.in_start[op], f.clock.in_start[op + 1]):
            source, reader = f.op_group[f.clock.src[k]], f.op_group[op]
            if source == group or reader == group:
                s.group_device[b, source], s.group_device[b, reader] = -1, -1
    recount(f, s, b)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def first_finish(problem: EpisodeProblem, s: PartialPlacement, b: int, op: int) -> int:
    """Where what goes with `op`, whose turn it is, fits and ends first, the first of equals; else what lacks least."""
    f, best, best_finish = problem.partial, -1, np.inf
    for d in range(f.slots.size):
        if fits(f, s, b, f.op_group[op], d):
            finish = earliest_start(f, s, b, op, d) + problem.work[op, d]
            if finish < best_finish:
                best, best_finish = d, finish
    return best if best >= 0 else least_lacking(f, s, b, f.op_group[op])


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def replay(problem: EpisodeProblem, s: PartialPlacement, b: int, order: np.ndarray) -> None:
    """Puts all ops on the clock by `order`, int32 [>= n_ops]; groups without a device go where they end first."""
    f = problem.partial
    rewind(f, s, b)
    for k in range(f.op_group.size):
        op = order[k]
        device = s.group_device[b, f.op_group[op]]
        if device < 0:
            device = first_finish(problem, s, b, op)
        put(f, s, b, op, device)


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def write_loads(f: PartialProblem, s: PartialPlacement, b: int, loads: np.ndarray) -> None:
    """Writes loads[b], seconds of all ops on each device, whether the clock knows of them yet or not."""
    for d in range(f.slots.size):
        loads[b, d] = 0.0
    for op in range(f.op_group.size):
        d = s.clock.op_device[b, op]
        loads[b, d] += f.clock.op_time[op, d]


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def describe_turn(
    problem: EpisodeProblem,
    s: PartialPlacement,
    b: int,
    op: int,
    row: int,
    loads: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> None:
    """Writes features[row] [n_devices, N_FEATURES] and mask[row] for the group of `op`, the first of it, at its turn.

    Times are those at its turn. Loads and memory are those of all other groups, before it and behind. The mask allows
    the device where the group is, and those that can run it and have room for it.
    """
    f, group = problem.partial, problem.partial.op_group[op]
    home = s.group_device[b, group]
    used = s.memory_used[b, home]
    s.group_device[b, group] = -1
    s.memory_used[b, home] = used - f.group_memory[group]
    for d in range(f.slots.size):
        mask[row, d] = d == home or fits(f, s, b, group, d)
    describe_masked(problem, s, b, op, row, features, mask)
    for d in range(f.slots.size):
        load = loads[b, d]
        if d == home:
            load = max(0.0, load - problem.work[op, home])
        features[row, d, LOAD] = min(load / problem.reference_s, BOUND)
    s.group_device[b, group], s.memory_used[b, home] = home, used


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def complete_rows(
    stack: StackArrays,
    s: PartialPlacement,
    rows: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
    group_device: np.ndarray,
) -> None:
    """Makes the placements of rows complete; group_device, int32 [len(rows), any], is -1 where a group is free."""
    for i in range(rows.size):
        b = rows[i]
        f = problem_at(stack, place[b])
        clear_row(f.partial, s, b)
        for group in range(min(group_device.shape[1], s.group_device.shape[1])):
            s.group_device[b, group] = group_device[i, group]
        recount(f.partial, s, b)
        replay(f, s, b, order[place[b]])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def visit_first(
    stack: StackArrays,
    s: PartialPlacement,
    rows: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
    loads: np.ndarray,
    position: np.ndarray,
    op: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> None:
    """Visits the op that is first in the order, in each of these rows."""
    for b in rows:
        f = problem_at(stack, place[b])
        rewind(f.partial, s, b)
        position[b] = 0
        op[b, 0] = order[place[b], 0]
        write_loads(f.partial, s, b, loads)
        describe_turn(f, s, b, op[b, 0], b, loads, features, mask)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def visit_next(
    stack: StackArrays,
    s: PartialPlacement,
    actions: np.ndarray,
    active: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
    leads: np.ndarray,
    loads: np.ndarray,
    position: np.ndarray,
    op: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
    done: np.ndarray,
) -> None:
    """Moves what is visited and puts ops on the clock until the next one's turn: what is before it stays as it is."""
    for b in range(actions.size):
        if not active[b]:
            continue
        p = place[b]
        f = problem_at(stack, p)
        move(f.partial, s, b, f.partial.op_group[op[b, 0]], actions[b])
        following, moving = op[b, 0], True
        while moving:
            put(f.partial, s, b, following, s.group_device[b, f.partial.op_group[following]])
            position[b] += 1
            done[b] = position[b] == stack.n_ops[p]
            if not done[b]:
                following = order[p, position[b]]
            moving = not done[b] and not leads[p, following]
        if not done[b]:
            op[b, 0] = following
            write_loads(f.partial, s, b, loads)
            describe_turn(f, s, b, following, b, loads, features, mask)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def move_pairs(
    stack: StackArrays, s: PartialPlacement, actions: np.ndarray, active: np.ndarray, place: np.ndarray
) -> None:
    """Moves the group of an op to a device, actions[b] = op * max_devices + device, in each row where active."""
    width = s.load.shape[1]
    for b in range(actions.size):
        if active[b]:
            f = problem_at(stack, place[b])
            move(f.partial, s, b, f.partial.op_group[actions[b] // width], actions[b] % width)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def rebuild(
    stack: StackArrays,
    s: PartialPlacement,
    actions: np.ndarray,
    active: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
) -> None:
    """Frees what an edge joins with the group of op actions[b], and places it again, in each row where active."""
    for b in range(actions.size):
        if active[b]:
            f = problem_at(stack, place[b])
            free_neighbourhood(f.partial, s, b, f.partial.op_group[actions[b]])
            replay(f, s, b, order[place[b]])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def describe_all(
    stack: StackArrays,
    s: PartialPlacement,
    rows: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
    leads: np.ndarray,
    loads: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
    home_features: np.ndarray,
) -> None:
    """Describes the first op of each group on all devices, at its turn of one replay.

    Features [B * max_ops, n_devices, N_FEATURES] and mask have the row and the op joined as first axis. Or they are
    scratch of each row, and what is said of an op where it is goes to home_features [B, max_ops, N_FEATURES].
    """
    n = leads.shape[1]
    to_home = home_features.shape[1] > 0
    for b in rows:
        p = place[b]
        f = problem_at(stack, p)
        rewind(f.partial, s, b)
        write_loads(f.partial, s, b, loads)
        for k in range(f.partial.op_group.size):
            op = order[p, k]
            home = s.group_device[b, f.partial.op_group[op]]
            if leads[p, op]:
                row = b if to_home else b * n + op
                describe_turn(f, s, b, op, row, loads, features, mask)
                if to_home:
                    for i in range(features.shape[2]):
                        home_features[b, op, i] = features[row, home, i]
            put(f.partial, s, b, op, home)
