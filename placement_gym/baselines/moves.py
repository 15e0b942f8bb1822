"""Moves and acceptance of the local searches: one Numba loop around the simulator's kernel."""

import numpy as np
from numba import njit

from placement_gym.memory import LiveRows, MemoryArrays, excess
from placement_gym.simulator.arrays import Arrays, Options, Workspace
from placement_gym.simulator.chain import write_chain
from placement_gym.simulator.kernel import run_many
from placement_gym.simulator.weigh import excess_of_run

MOVE, FOLLOW, SWAP, BUNDLE, MIRROR, REORDER = 0, 1, 2, 3, 4, 5
N_MOVES = 6


@njit(cache=True)
def _random_allowed(rng: np.random.Generator, allowed: np.ndarray, u: int) -> int:
    while True:
        device = int(rng.integers(0, allowed.shape[1]))
        if allowed[u, device]:
            return device


@njit(cache=True)
def _propose(
    rng: np.random.Generator,
    kind: int,
    pick: int,
    group_device: np.ndarray,
    changed: np.ndarray,
    near_start: np.ndarray,
    near: np.ndarray,
    bundle_start: np.ndarray,
    bundle_groups: np.ndarray,
    group_bundle: np.ndarray,
    allowed: np.ndarray,
    new_device: np.ndarray,
) -> int:
    """Writes groups into `changed` and their new devices into `new_device`; returns how many.

    MOVE one group to a random device; FOLLOW it to the device of a neighbour; SWAP the devices of two groups;
    BUNDLE some groups of a bundle (alike ops of one depth, or a run of the topological order) to one device;
    MIRROR exchanges two devices within a bundle.
    REORDER is no move of groups: two ops of a run exchange their priorities.
    """
    if kind == MOVE:
        changed[0] = pick
        new_device[0] = _random_allowed(rng, allowed, pick)
        return 1
    if kind == FOLLOW:
        n = near_start[pick + 1] - near_start[pick]
        changed[0] = pick
        new_device[0] = group_device[near[near_start[pick] + rng.integers(0, n)]] if n > 0 else group_device[pick]
        return 1
    if kind == SWAP:
        bundle = group_bundle[pick, rng.integers(0, group_bundle.shape[1])]
        width = bundle_start[bundle + 1] - bundle_start[bundle]
        other = bundle_groups[bundle_start[bundle] + rng.integers(0, width)]
        changed[0], changed[1] = pick, other
        new_device[0], new_device[1] = group_device[other], group_device[pick]
        return 2
    bundle = group_bundle[pick, rng.integers(0, group_bundle.shape[1])]
    a = group_device[pick]
    b = _random_allowed(rng, allowed, pick)
    n = 0
    if kind == BUNDLE:
        share = rng.random()
        for k in range(bundle_start[bundle], bundle_start[bundle + 1]):
            u = bundle_groups[k]
            if u == pick or (group_device[u] == a and rng.random() < share):
                changed[n] = u
                new_device[n] = b
                n += 1
        return n
    for k in range(bundle_start[bundle], bundle_start[bundle + 1]):
        u = bundle_groups[k]
        if group_device[u] == a or group_device[u] == b:
            changed[n] = u
            new_device[n] = b if group_device[u] == a else a
            n += 1
    return n


@njit(cache=True, nogil=True)
def search_loop(
    options: Options,
    arrays: Arrays,
    memory: MemoryArrays,
    work: Workspace,
    rows: LiveRows,
    rng: np.random.Generator,
    calls: int,
    hot: float,
    cold: float,
    critical_share: float,
    at_event: int,
    orders: bool,
    in_start: np.ndarray,
    in_edges: np.ndarray,
    edge_src: np.ndarray,
    edge_size: np.ndarray,
    op_group: np.ndarray,
    group_start: np.ndarray,
    group_ops: np.ndarray,
    allowed: np.ndarray,
    group_memory: np.ndarray,
    near_start: np.ndarray,
    near: np.ndarray,
    bundle_start: np.ndarray,
    bundle_groups: np.ndarray,
    group_bundle: np.ndarray,
    group_device: np.ndarray,
    best_group_device: np.ndarray,
    best_priority: np.ndarray,
    stop_now: np.ndarray,
) -> tuple[float, float, int]:
    """Metropolis search from `group_device` with `calls` simulations.

    The temperature falls geometrically from `hot` to `cold` times the makespan of the start.

    With hot = 0 only moves that are no worse are taken. A placement that exceeds the memory is worse than any that
    does not, and the worse the more it does; once one fits, moves that are sure not to are not simulated. Writes the
    best placement seen into `best_group_device` and the last one into `group_device`; returns (bytes over capacity,
    makespan in ticks) of the best, and how many simulations it made: fewer than `calls` where no move is left, or once
    another thread makes `stop_now`, uint8 [1], 1. If `orders`, the order is searched, too: two ops exchange their
    priorities, in `arrays.priority`, and that of the best goes into `best_priority`.
    """
    n = op_group.size
    n_groups = group_memory.size
    op_device = np.empty((1, n), np.int32)
    for i in range(n):
        op_device[0, i] = group_device[op_group[i]]
    used = np.zeros(memory.capacity.size)
    for u in range(n_groups):
        used[group_device[u]] += group_memory[u]
    ends = np.empty((1, 2))
    op_times, new_times = np.empty((4, n)), np.empty((4, n))
    transfer_times = np.empty((4, arrays.dst.size))
    run_many(options, arrays, op_device, ends, op_times, transfer_times, work)
    now = ends[0, at_event]
    best = now
    scale = now
    over_now = excess_of_run(options, arrays, memory, op_device[0], op_times, transfer_times, rows)
    over_best = over_now
    op_bytes = (memory.held.sum() + memory.output.sum() + arrays.size.sum()) / n
    for u in range(n_groups):
        best_group_device[u] = group_device[u]
    chain = np.empty(n, np.int32)
    n_chain = -1
    changed, new_device, old_device = (
        np.empty(n_groups + 2, np.int32),
        np.empty(n_groups + 2, np.int32),
        np.empty(n_groups + 2, np.int32),
    )
    n_moves = N_MOVES if orders else N_MOVES - 1
    gain = np.ones(n_moves)
    priority = arrays.priority
    best_priority[:] = priority
    done, idle = 1, 0
    while done < calls and idle < 1000 * n_groups + 100000 and not stop_now[0]:
        if rng.random() < critical_share:
            if n_chain < 0:
                n_chain = write_chain(
                    chain,
                    op_times,
                    op_device[0],
                    in_start,
                    in_edges,
                    edge_src,
                    edge_size,
                    arrays.latency,
                    arrays.bytes_per_tick,
                )
            pick = op_group[chain[rng.integers(0, n_chain)]]
        else:
            pick = rng.integers(0, n_groups)
        # Kinds of move that were taken more often are tried more often, none less than a tenth of its share.
        total = gain.sum()
        aim = rng.random() * total
        kind = 0
        while kind < n_moves - 1 and aim >= gain[kind]:
            aim -= gain[kind]
            kind += 1
        m, first, second = 0, 0, 0
        if kind == REORDER:
            first = group_ops[rng.integers(group_start[pick], group_start[pick + 1])]
            run = group_bundle[pick, 1]
            other = bundle_groups[rng.integers(bundle_start[run], bundle_start[run + 1])]
            second = group_ops[rng.integers(group_start[other], group_start[other + 1])]
        else:
            m = _propose(
                rng,
                kind,
                pick,
                group_device,
                changed,
                near_start,
                near,
                bundle_start,
                bundle_groups,
                group_bundle,
                allowed,
                new_device,
            )
        differs = priority[first] != priority[second]
        fits = True
        for i in range(m):
            u = changed[i]
            old_device[i] = group_device[u]
            differs = differs or old_device[i] != new_device[i]
            fits = fits and allowed[u, new_device[i]]
        if not (differs and fits):
            idle += 1
            continue
        for i in range(m):
            used[old_device[i]] -= group_memory[changed[i]]
            used[new_device[i]] += group_memory[changed[i]]
        # These sums are updated from move to move and drift: what is doubtful is simulated.
        if memory.binds and over_now == 0.0 and excess(used, memory.capacity) > 1e-9 * used.sum():
            fits = False
        if not fits:
            for i in range(m):
                used[new_device[i]] -= group_memory[changed[i]]
                used[old_device[i]] += group_memory[changed[i]]
            idle += 1
            continue
        idle = 0
        priority[first], priority[second] = priority[second], priority[first]
        for i in range(m):
            u = changed[i]
            group_device[u] = new_device[i]
            for k in range(group_start[u], group_start[u + 1]):
                op_device[0, group_ops[k]] = new_device[i]
        run_many(options, arrays, op_device, ends, new_times, transfer_times, work)
        done += 1
        then = ends[0, at_event]
        over = excess_of_run(options, arrays, memory, op_device[0], new_times, transfer_times, rows)
        temperature = 0.0
        if hot > 0.0:
            temperature = scale * hot * (cold / hot) ** (done / calls)
        if over != over_now:
            # What fits is never left. What does not may get worse for a while; an op's bytes are the temperature.
            taken = over < over_now or (over_now > 0.0 and rng.random() < np.exp((over_now - over) / op_bytes))
        else:
            taken = then <= now or (temperature > 0.0 and rng.random() < np.exp((now - then) / temperature))
        gain[kind] = max(0.2, gain[kind] * 0.995 + (0.02 if taken and then != now else 0.0))
        if taken:
            now, over_now = then, over
            op_times, new_times = new_times, op_times
            n_chain = -1
            if over < over_best or (over == over_best and now < best):
                best, over_best = now, over
                for u in range(n_groups):
                    best_group_device[u] = group_device[u]
                best_priority[:] = priority
        else:
            priority[first], priority[second] = priority[second], priority[first]
            for i in range(m):
                u = changed[i]
                used[new_device[i]] -= group_memory[u]
                used[old_device[i]] += group_memory[u]
            for i in range(m):
                u = changed[i]
                group_device[u] = old_device[i]
                for k in range(group_start[u], group_start[u + 1]):
                    op_device[0, group_ops[k]] = old_device[i]
    return over_best, float(best), done
