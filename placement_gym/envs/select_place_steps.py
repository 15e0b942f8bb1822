"""What a step of SelectPlace-v0 does, for many episodes in one call, written in Numba.

Of all functions: `missing` int32 [B, max_ops] counts the inputs of each op that are not placed; `ready`, `order` and
`position` are those of `SelectPlaceProcess`; the others are those of `Process`.
"""

import numpy as np
from numba import njit

from placement_gym.envs.device_features import describe
from placement_gym.envs.observation import PLACE, SELECT
from placement_gym.envs.stack import StackArrays, problem_at
from placement_gym.simulator.partial import PartialPlacement, PartialProblem, clear_row, put


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def _place(
    f: PartialProblem,
    s: PartialPlacement,
    b: int,
    op: int,
    device: int,
    by_group: bool,
    missing: np.ndarray,
    ready: np.ndarray,
    order: np.ndarray,
    position: np.ndarray,
) -> None:
    """Puts an op on a device and updates the ready set; with groups then also the ready ops whose group has a device.

    These are looked for from the lowest number to the highest, again and again until there is none.
    """
    k, moved = 0, False
    while True:
        put(f, s, b, op, device)
        order[b, position[b]] = op
        position[b] += 1
        ready[b, op] = False
        for i in range(f.out_start[op], f.out_start[op + 1]):
            reader = f.out_ops[i]
            missing[b, reader] -= 1
            if missing[b, reader] == 0:
                ready[b, reader] = True
        if not by_group:
            return
        op, moved = -1, True
        while op < 0:
            if k == f.op_group.size:
                if not moved:
                    return
                k, moved = 0, False
            home: int = s.group_device[b, f.op_group[k]]
            if ready[b, k] and home >= 0:
                op, device = k, home
            k += 1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def begin_rows(
    stack: StackArrays,
    s: PartialPlacement,
    rows: np.ndarray,
    place: np.ndarray,
    missing: np.ndarray,
    ready: np.ndarray,
    order: np.ndarray,
    position: np.ndarray,
) -> None:
    """Takes everything off the devices of these rows; ops without inputs are ready."""
    for b in rows:
        f = problem_at(stack, place[b])
        clear_row(f.partial, s, b)
        for op in range(ready.shape[1]):
            ready[b, op], order[b, op] = False, -1
        for op in range(f.partial.op_group.size):
            missing[b, op] = f.partial.clock.in_start[op + 1] - f.partial.clock.in_start[op]
            ready[b, op] = missing[b, op] == 0
        position[b] = 0


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def select_or_place(
    stack: StackArrays,
    s: PartialPlacement,
    actions: np.ndarray,
    active: np.ndarray,
    by_group: bool,
    place: np.ndarray,
    missing: np.ndarray,
    ready: np.ndarray,
    order: np.ndarray,
    position: np.ndarray,
    phase: np.ndarray,
    op: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
    done: np.ndarray,
) -> None:
    """Selects an op in each active row, or places the selected one, by its phase; writes what is allowed next."""
    b = 0
    while b < actions.size:
        p = place[b]
        f = problem_at(stack, p)
        # Rows of one problem in a row: the compiler keeps what it reads of the problem.
        while b < actions.size and place[b] == p:
            if active[b] and phase[b, 0] == SELECT:
                mask[b, :] = False
                op[b, 0], phase[b, 0] = actions[b], PLACE
                describe(f, s, b, np.int64(op[b, 0]), b, features, mask)
            elif active[b]:
                device = np.int64(actions[b])
                _place(f.partial, s, b, np.int64(op[b, 0]), device, by_group, missing, ready, order, position)
                done[b] = position[b] == stack.n_ops[p]
                if not done[b]:
                    op[b, 0], phase[b, 0] = -1, SELECT
                    features[b, :, :] = 0.0
                    for i in range(ready.shape[1]):
                        mask[b, i] = ready[b, i]
                    for i in range(ready.shape[1], mask.shape[1]):
                        mask[b, i] = False
            b += 1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def place_pairs(
    stack: StackArrays,
    s: PartialPlacement,
    actions: np.ndarray,
    active: np.ndarray,
    by_group: bool,
    place: np.ndarray,
    missing: np.ndarray,
    ready: np.ndarray,
    order: np.ndarray,
    position: np.ndarray,
    done: np.ndarray,
) -> None:
    """Places the op of each active row's action on its device."""
    width = s.load.shape[1]
    for b in range(actions.size):
        if active[b]:
            f = problem_at(stack, place[b])
            op, device = np.int64(actions[b] // width), np.int64(actions[b] % width)
            _place(f.partial, s, b, op, device, by_group, missing, ready, order, position)
            done[b] = position[b] == stack.n_ops[place[b]]


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def describe_pairs(
    stack: StackArrays,
    s: PartialPlacement,
    rows: np.ndarray,
    place: np.ndarray,
    ready: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> None:
    """Writes features and mask of all pairs, their first axis the row and the op joined."""
    n = ready.shape[1]
    for b in rows:
        f = problem_at(stack, place[b])
        for op in range(n):
            row = b * n + op
            for d in range(mask.shape[1]):
                mask[row, d] = False
                for i in range(features.shape[2]):
                    features[row, d, i] = 0.0
            if ready[b, op]:
                describe(f, s, b, op, row, features, mask)
