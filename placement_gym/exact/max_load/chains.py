"""The cheapest chain of ideals: which consecutive differences go to which class of devices (max-load).

The recursion of Tarnawski et al. (NeurIPS 2020, section 5.1). A state is how many devices of each class are in use;
its value at an ideal is the least max-load of these devices when together they hold just the ideal. What makes it
fast: a bound on the value is known from the start; the work that fits the devices in use, and the rest of the work
that must fit the others, leave each state a range of ideals; and of the pairs of nested ideals only those are looked
at whose parts could both beat the value found so far, beginning where the two parts balance.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.arrays import IntArray
from placement_gym.exact.cuts import change_s, list_cut, no_cut
from placement_gym.exact.ideals import Ideals, Tensors


class Devices(NamedTuple):
    """The devices by class.

    Attributes:
        counts: int64 [n_classes], devices.
        capacity: float64 [n_classes], memory of each, bytes.
        pays: bool [n_classes], whether transfers count.
        units_per_s: float64 [n_classes], most units of work that one does in a second.
    """

    counts: np.ndarray
    capacity: np.ndarray
    pays: np.ndarray
    units_per_s: np.ndarray


class States(NamedTuple):
    """States, each with the ideals that it can hold below the cutoff: `first` <= ideal < `last`.

    Entries of state s at ideal i stand at `offset[s] + i - first[s]`.

    Attributes:
        used: int64 [n_states, n_classes], devices in use.
        stride: int64 [n_classes], what one device more adds to the state's number.
        first: int64 [n_states].
        last: int64 [n_states].
        offset: int64 [n_states + 1].
        speed: float64 [n_states], units per second of the devices in use.
        rest: float64 [n_states], units per second of the others.
        toll: float64 [n_states], units that the devices in use lose for a second of transfers over their border. Where
            all of them pay, together they pay at least for the tensors between the two sides (cuts are subadditive).
        rest_toll: float64 [n_states], likewise for the others.
    """

    used: np.ndarray
    stride: np.ndarray
    first: np.ndarray
    last: np.ndarray
    offset: np.ndarray
    speed: np.ndarray
    rest: np.ndarray
    toll: np.ndarray
    rest_toll: np.ndarray


class Entries(NamedTuple):
    """What is known of each state at each of its ideals, by place, and what each state holds below the cutoff.

    Attributes:
        value: float64 [n_places], seconds; the cutoff where nothing better is known.
        came_ideal: int32 [n_places], the ideal before the last part, -1 if none.
        came_class: int8 [n_places], who does the last part.
        held: int32 [n_places], from `offset[s]` on the ideals that state s holds, ascending.
        held_units: int64 [n_places], their work.
        n_held: int64 [n_states].
    """

    value: np.ndarray
    came_ideal: np.ndarray
    came_class: np.ndarray
    held: np.ndarray
    held_units: np.ndarray
    n_held: np.ndarray


def rounding_units(ideals: Ideals) -> int:
    """More units than are lost by rounding: those of each block are rounded down, by less than one."""
    return int(ideals.bits.shape[1]) * 64 + 1


def states_of(ideals: Ideals, devices: Devices, cutoff: float) -> States:
    """The states for values below `cutoff` (seconds, finite)."""
    counts, per_s = devices.counts, devices.units_per_s
    stride = np.concatenate([[1], np.cumprod(counts + 1)]).astype(np.int64)
    used = np.arange(stride[-1])[:, None] // stride[None, :-1] % (counts + 1)[None, :]
    spare = counts[None, :] - used
    speed, rest = (used * per_s).sum(axis=1), (spare * per_s).sum(axis=1)
    price = np.where(devices.pays, per_s, 0.0)
    toll = np.where(used > 0, price, np.inf).min(axis=1)
    rest_toll = np.where(spare > 0, price, np.inf).min(axis=1)
    toll[~(used > 0).any(axis=1)], rest_toll[~(spare > 0).any(axis=1)] = 0.0, 0.0
    units, slack = ideals.units, rounding_units(ideals)
    first = np.searchsorted(units, units[-1] - np.floor(rest * cutoff) - slack)
    last = np.maximum(first, np.searchsorted(units, np.floor(speed * cutoff) + slack, side="right"))
    offset = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int64)
    return States(used, stride[:-1], first, last, offset, speed, rest, toll, rest_toll)


def entries_of(states: States, cutoff: float) -> Entries:
    """Nothing is known but that no device holds nothing at no cost."""
    n_places = int(states.offset[-1])
    entries = Entries(
        np.full(n_places, cutoff),
        np.full(n_places, -1, np.int32),
        np.full(n_places, -1, np.int8),
        np.empty(n_places, np.int32),
        np.empty(n_places, np.int64),
        np.zeros(len(states.speed), np.int64),
    )
    if states.first[0] == 0:
        entries.value[0], entries.held[0], entries.held_units[0], entries.n_held[0] = 0.0, 0, 0, 1
    return entries


def chain_of(ideals: Ideals, states: States, entries: Entries) -> tuple[float, IntArray, IntArray] | None:
    """(max-load, ideals of the chain, class of each part) at the end; None if none is below the cutoff."""
    s, i = len(states.speed) - 1, len(ideals.units) - 1
    place = states.offset[s] + i - states.first[s]
    if not states.first[s] <= i < states.last[s] or entries.came_ideal[place] < 0:
        return None
    value, path, kinds = float(entries.value[place]), [i], []
    while i > 0:
        place = states.offset[s] + i - states.first[s]
        kinds.append(int(entries.came_class[place]))
        i = int(entries.came_ideal[place])
        s -= int(states.stride[kinds[-1]])
        path.append(i)
    return value, np.array(path[::-1], dtype=np.int32), np.array(kinds[::-1], dtype=np.int32)


@njit(cache=True, nogil=True)
def enter_ideals(
    ideals: Ideals,
    tensors: Tensors,
    devices: Devices,
    states: States,
    entries: Entries,
    cutoff: float,
    begin: int,
    end: int,
    stop_now: np.ndarray,
) -> int:
    """Enters the ideals from `begin` to below `end`, all before them being entered; number of pairs compared.

    Args:
        ideals: Sorted by (units, size), the empty one first, the whole graph last.
        tensors: Tensors between blocks.
        devices: The devices.
        states: The states for this cutoff.
        entries: Filled in.
        cutoff: Seconds, finite; only solutions below it are looked for.
        begin: 1 at least.
        end: At most the number of ideals.
        stop_now: uint8 [1], no further ideal is entered once another thread makes it 1.
    """
    n_ideals, n_words = ideals.bits.shape
    n_states, n_classes = states.used.shape
    whole = n_ideals - 1
    units, cut_s = ideals.units, ideals.cut_s
    first, last, offset = states.first, states.last, states.offset
    value = entries.value
    time = np.ascontiguousarray(ideals.time_s.T)
    rounding = n_words * 64 + 1
    cut = no_cut(n_words * 64, tensors)
    # Loads of what is between a smaller ideal and the one at hand, once known.
    known = np.full((n_classes, n_ideals), -1, np.int32)
    load = np.empty((n_classes, n_ideals))
    n_pairs = 0
    for i in range(begin, end):
        if stop_now[0]:
            break
        mine = ideals.bits[i]
        cut_listed = False
        for s in range(1, n_states):
            if (
                not first[s] <= i < last[s]
                or units[i] + states.toll[s] * cut_s[i] > states.speed[s] * cutoff + rounding
                or units[whole] - units[i] + states.rest_toll[s] * cut_s[i] > states.rest[s] * cutoff + rounding
            ):
                continue
            here = offset[s] + i - first[s]
            for c in range(n_classes):
                # A device more than needed may stay empty.
                t = s - states.stride[c]
                if states.used[s, c] == 0 or not first[t] <= i < last[t]:
                    continue
                if value[offset[t] + i - first[t]] < value[here]:
                    value[here] = value[offset[t] + i - first[t]]
                    entries.came_ideal[here] = i
                    entries.came_class[here] = c
            for c in range(n_classes):
                if states.used[s, c] == 0:
                    continue
                t = s - states.stride[c]
                per_s, others = devices.units_per_s[c], states.speed[t]
                best = value[here]
                there = entries.held_units[offset[t] : offset[t] + entries.n_held[t]]
                start = np.searchsorted(there, np.int64(units[i] * (others / max(others + per_s, 1e-300))))
                time_here, cut_here = time[c, i], cut_s[i] if devices.pays[c] else 0.0
                for turn in range(2):
                    # Downwards the part at hand grows, upwards what the devices before it hold.
                    step = 2 * turn - 1
                    j = start - 1 + turn
                    stop = _stop(there, turn, units[i], j, per_s, others, best, rounding)
                    while j != stop:
                        at = entries.held[offset[t] + j]
                        j += step
                        before = value[offset[t] + at - first[t]]
                        # Cuts of hyperedges are subadditive.
                        least = time_here - time[c, at] + (abs(cut_here - cut_s[at]) if devices.pays[c] else 0.0)
                        if not (before < best and least < best):
                            continue
                        if known[c, at] != i:
                            known[c, at] = i
                            load[c, at] = np.inf
                            nested = True
                            for w in range(n_words):
                                if ideals.bits[at, w] & ~mine[w]:
                                    nested = False
                                    break
                            if (
                                nested
                                and ideals.barred[i, c] == ideals.barred[at, c]
                                and ideals.memory_bytes[i] - ideals.memory_bytes[at] <= devices.capacity[c]
                            ):
                                n_pairs += 1
                                seconds = time_here - time[c, at]
                                if devices.pays[c]:
                                    if not cut_listed:
                                        list_cut(mine, tensors, cut)
                                        cut_listed = True
                                    seconds += cut_s[at] + change_s(ideals.bits[at], tensors, cut)
                                load[c, at] = seconds
                        v = max(before, load[c, at])
                        if v < best:
                            best = v
                            stop = _stop(there, turn, units[i], j, per_s, others, best, rounding)
                            value[here] = v
                            entries.came_ideal[here] = at
                            entries.came_class[here] = c
            if value[here] < cutoff:
                place = offset[s] + entries.n_held[s]
                entries.held[place] = i
                entries.held_units[place] = units[i]
                entries.n_held[s] += 1
    return n_pairs


@njit(cache=True)
def _stop(
    held_units: np.ndarray,
    turn: int,
    units: int,
    j: int,
    part_speed: float,
    rest_speed: float,
    best: float,
    rounding: int,
) -> int:
    """Where a scan from place j ends: no ideal from there on leaves both parts below `best`."""
    if turn == 0:
        least = np.searchsorted(held_units, units - np.int64(part_speed * best) - rounding)
        return min(j, int(least) - 1)
    return max(j, int(np.searchsorted(held_units, np.int64(rest_speed * best) + rounding, side="right")))
