"""Moves and acceptance of the local searches: one Numba loop around the simulator's kernel."""

import numpy as np
from numba import njit

from placement_gym.memory import LiveRows, MemoryArrays, excess, most_excess
from placement_gym.simulator.arrays import Arrays, Options, Workspace
from placement_gym.simulator.chain import write_chain
from placement_gym.simulator.kernel import run_many
from placement_gym.simulator.weigh import excess_of_run

MOVE, FOLLOW, SWAP, GROUP, MIRROR, REORDER = 0, 1, 2, 3, 4, 5
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
    unit_device: np.ndarray,
    changed: np.ndarray,
    near_start: np.ndarray,
    near: np.ndarray,
    group_start: np.ndarray,
    group_units: np.ndarray,
    unit_group: np.ndarray,
    allowed: np.ndarray,
    new_device: np.ndarray,
) -> int:
    """Writes units into `changed` and their new devices into `new_device`; returns how many.

    MOVE one unit to a random device; FOLLOW it to the device of a neighbour; SWAP the devices of two units;
    GROUP some units of a group (alike ops of one depth, or a run of the topological order) to one device;
    MIRROR exchanges two devices within a group.
    REORDER is no move of units: two ops of a run exchange their priorities.
    """
    if kind == MOVE:
        changed[0] = pick
        new_device[0] = _random_allowed(rng, allowed, pick)
        return 1
    if kind == FOLLOW:
        n = near_start[pick + 1] - near_start[pick]
        changed[0] = pick
        new_device[0] = unit_device[near[near_start[pick] + rng.integers(0, n)]] if n > 0 else unit_device[pick]
        return 1
    if kind == SWAP:
        group = unit_group[pick, rng.integers(0, unit_group.shape[1])]
        width = group_start[group + 1] - group_start[group]
        other = group_units[group_start[group] + rng.integers(0, width)]
        changed[0], changed[1] = pick, other
        new_device[0], new_device[1] = unit_device[other], unit_device[pick]
        return 2
    group = unit_group[pick, rng.integers(0, unit_group.shape[1])]
    a = unit_device[pick]
    b = _random_allowed(rng, allowed, pick)
    n = 0
    if kind == GROUP:
        share = rng.random()
        for k in range(group_start[group], group_start[group + 1]):
            u = group_units[k]
            if u == pick or (unit_device[u] == a and rng.random() < share):
                changed[n] = u
                new_device[n] = b
                n += 1
        return n
    for k in range(group_start[group], group_start[group + 1]):
        u = group_units[k]
        if unit_device[u] == a or unit_device[u] == b:
            changed[n] = u
            new_device[n] = b if unit_device[u] == a else a
            n += 1
    return n


@njit(cache=True)
def _over(
    options: Options,
    arrays: Arrays,
    memory: MemoryArrays,
    op_device: np.ndarray,
    op_times: np.ndarray,
    transfer_times: np.ndarray,
    rows: LiveRows,
) -> float:
    """Bytes over capacity, all devices together, of the run just made."""
    if not memory.binds:
        return 0.0
    most = float(most_excess(memory, arrays.out_start, arrays.dst, arrays.size, op_device, rows.peak))
    if not memory.live or most == 0.0:
        return most
    return float(excess_of_run(options, arrays, memory, op_device, op_times, transfer_times, rows))


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
    op_unit: np.ndarray,
    unit_start: np.ndarray,
    unit_ops: np.ndarray,
    allowed: np.ndarray,
    unit_memory: np.ndarray,
    near_start: np.ndarray,
    near: np.ndarray,
    group_start: np.ndarray,
    group_units: np.ndarray,
    unit_group: np.ndarray,
    unit_device: np.ndarray,
    best_unit_device: np.ndarray,
    best_priority: np.ndarray,
) -> tuple[float, float]:
    """Metropolis search from `unit_device` with `calls` simulations.

    The temperature falls geometrically from `hot` to `cold` times the makespan of the start.

    With hot = 0 only moves that are no worse are taken. A placement that exceeds the memory is worse than any that
    does not, and the worse the more it does; once one fits, moves that are sure not to are not simulated. Writes the
    best placement seen into `best_unit_device` and the last one into `unit_device`; returns (bytes over capacity,
    makespan in ticks) of the best. If `orders`, the order is searched, too: two ops exchange their priorities, in
    `arrays.priority`, and that of the best goes into `best_priority`.
    """
    n = op_unit.size
    n_units = unit_memory.size
    op_device = np.empty((1, n), np.int32)
    for i in range(n):
        op_device[0, i] = unit_device[op_unit[i]]
    used = np.zeros(memory.capacity.size)
    for u in range(n_units):
        used[unit_device[u]] += unit_memory[u]
    ends = np.empty((1, 2))
    op_times, new_times = np.empty((4, n)), np.empty((4, n))
    transfer_times = np.empty((4, arrays.dst.size))
    run_many(options, arrays, op_device, ends, op_times, transfer_times, work)
    now = ends[0, at_event]
    best = now
    scale = now
    over_now = _over(options, arrays, memory, op_device[0], op_times, transfer_times, rows)
    over_best = over_now
    op_bytes = (memory.held.sum() + (memory.output.sum() if memory.live else 0.0)) / n
    for u in range(n_units):
        best_unit_device[u] = unit_device[u]
    chain = np.empty(n, np.int32)
    n_chain = -1
    changed, new_device, old_device = (
        np.empty(n_units + 2, np.int32),
        np.empty(n_units + 2, np.int32),
        np.empty(n_units + 2, np.int32),
    )
    n_moves = N_MOVES if orders else N_MOVES - 1
    gain = np.ones(n_moves)
    priority = arrays.priority
    best_priority[:] = priority
    done, idle = 1, 0
    while done < calls and idle < 1000 * n_units + 100000:
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
            pick = op_unit[chain[rng.integers(0, n_chain)]]
        else:
            pick = rng.integers(0, n_units)
        # Kinds of move that were taken more often are tried more often, none less than a tenth of its share.
        total = gain.sum()
        aim = rng.random() * total
        kind = 0
        while kind < n_moves - 1 and aim >= gain[kind]:
            aim -= gain[kind]
            kind += 1
        m, first, second = 0, 0, 0
        if kind == REORDER:
            first = unit_ops[rng.integers(unit_start[pick], unit_start[pick + 1])]
            run = unit_group[pick, 1]
            other = group_units[rng.integers(group_start[run], group_start[run + 1])]
            second = unit_ops[rng.integers(unit_start[other], unit_start[other + 1])]
        else:
            m = _propose(
                rng,
                kind,
                pick,
                unit_device,
                changed,
                near_start,
                near,
                group_start,
                group_units,
                unit_group,
                allowed,
                new_device,
            )
        differs = priority[first] != priority[second]
        fits = True
        for i in range(m):
            u = changed[i]
            old_device[i] = unit_device[u]
            differs = differs or old_device[i] != new_device[i]
            fits = fits and allowed[u, new_device[i]]
        if not (differs and fits):
            idle += 1
            continue
        for i in range(m):
            used[old_device[i]] -= unit_memory[changed[i]]
            used[new_device[i]] += unit_memory[changed[i]]
        # These sums are updated from move to move and drift: what is doubtful is simulated.
        if memory.binds and over_now == 0.0 and excess(used, memory.capacity) > 1e-9 * used.sum():
            fits = False
        if not fits:
            for i in range(m):
                used[new_device[i]] -= unit_memory[changed[i]]
                used[old_device[i]] += unit_memory[changed[i]]
            idle += 1
            continue
        idle = 0
        priority[first], priority[second] = priority[second], priority[first]
        for i in range(m):
            u = changed[i]
            unit_device[u] = new_device[i]
            for k in range(unit_start[u], unit_start[u + 1]):
                op_device[0, unit_ops[k]] = new_device[i]
        run_many(options, arrays, op_device, ends, new_times, transfer_times, work)
        done += 1
        then = ends[0, at_event]
        over = _over(options, arrays, memory, op_device[0], new_times, transfer_times, rows)
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
                for u in range(n_units):
                    best_unit_device[u] = unit_device[u]
                best_priority[:] = priority
        else:
            priority[first], priority[second] = priority[second], priority[first]
            for i in range(m):
                u = changed[i]
                used[new_device[i]] -= unit_memory[u]
                used[old_device[i]] += unit_memory[u]
            for i in range(m):
                u = changed[i]
                unit_device[u] = old_device[i]
                for k in range(unit_start[u], unit_start[u + 1]):
                    op_device[0, unit_ops[k]] = old_device[i]
    return over_best, float(best)
