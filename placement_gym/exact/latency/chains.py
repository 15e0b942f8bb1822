"""Kernels for the latency of chains of ideals: pipelines that one sample passes part by part."""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.exact.cuts import change_s, list_cut, no_cut
from placement_gym.exact.ideals import Ideals, Tensors


class Graph(NamedTuple):
    """Blocks, numbered in a topological order, and the edges between them.

    Attributes:
        accelerator_s: float64 [n_blocks], on an accelerator, `inf` where none can run it.
        cpu_s: float64 [n_blocks], likewise.
        memory_bytes: float64 [n_blocks].
        before_start: int32 [n_blocks + 1], edges into block v are `before_start[v]` to below `before_start[v + 1]`.
        before: int32 [n_edges], their tails.
        before_s: float64 [n_edges], seconds of their tensors.
        after_start: int32 [n_blocks + 1], likewise for edges out of v.
        after: int32 [n_edges].
        after_s: float64 [n_edges].
    """

    accelerator_s: np.ndarray
    cpu_s: np.ndarray
    memory_bytes: np.ndarray
    before_start: np.ndarray
    before: np.ndarray
    before_s: np.ndarray
    after_start: np.ndarray
    after: np.ndarray
    after_s: np.ndarray


class Stages(NamedTuple):
    """Least seconds by ideal and number of subgraphs in use, and how they come about.

    A stage is a part on an accelerator, or a serial block on a CPU. Between two stages lie blocks that are in none.

    Attributes:
        value: float64 [n_ideals, n_subgraphs + 1], seconds until the ideal is done.
        staged: float64, likewise, where a stage comes last.
        came: int32, likewise: before that stage was ideal `came` (accelerator) or `-2 - came` (CPU); -1 if unknown.
        between: int32, likewise: the ideal at the end of the stage before the blocks that `value` adds to `staged`, -1
            if it adds none.
    """

    value: np.ndarray
    staged: np.ndarray
    came: np.ndarray
    between: np.ndarray


@njit(cache=True)
def _nested(bits: np.ndarray, smaller: int, larger: int) -> bool:
    outside = np.uint64(0)
    for w in range(bits.shape[1]):
        outside |= bits[smaller, w] & ~bits[larger, w]
        if outside:
            break
    return bool(outside == np.uint64(0))


@njit(cache=True)
def _difference(bits: np.ndarray, larger: int, smaller: int, members: np.ndarray) -> int:
    """Writes the blocks of `larger` that are not in `smaller`, ascending; how many."""
    n = 0
    for w in range(bits.shape[1]):
        rest = bits[larger, w] & ~bits[smaller, w]
        v = w * 64
        while rest:
            if rest & np.uint64(1):
                members[n] = v
                n += 1
            rest >>= np.uint64(1)
            v += 1
    return n


@njit(cache=True)
def _between_s(
    graph: Graph,
    members: np.ndarray,
    inside: np.ndarray,
    capacity: float,
    on_accelerators: bool,
    cpu_done: np.ndarray,
    accelerator_done: np.ndarray,
) -> float:
    """Seconds that the blocks `members` take at least between two stages, on CPUs or accelerators as is best.

    The seconds are those of the longest path. On a CPU a block takes its time there. On an accelerator it takes its
    time there, and the accelerator fetches what comes from elsewhere and sends what goes elsewhere, at least along
    this path. Two blocks that do not fit into one accelerator are on two. Without `on_accelerators` all blocks are on
    CPUs, and the seconds are exact.
    """
    longest = 0.0
    for v in members:
        by_cpu, by_accelerator = 0.0, 0.0
        for e in range(graph.before_start[v], graph.before_start[v + 1]):
            u, seconds = graph.before[e], graph.before_s[e]
            if inside[u]:
                apart = graph.memory_bytes[u] + graph.memory_bytes[v] > capacity
                there = accelerator_done[u] + (2 * seconds if apart else 0.0)
                by_cpu = max(by_cpu, min(cpu_done[u], accelerator_done[u] + seconds))
                by_accelerator = max(by_accelerator, min(cpu_done[u] + seconds, there))
            else:
                by_accelerator = max(by_accelerator, seconds)
        cpu_done[v] = by_cpu + graph.cpu_s[v]
        accelerator_done[v] = by_accelerator + graph.accelerator_s[v] if on_accelerators else np.inf
        sent = 0.0
        for e in range(graph.after_start[v], graph.after_start[v + 1]):
            if not inside[graph.after[e]]:
                sent = max(sent, graph.after_s[e])
        longest = max(longest, min(cpu_done[v], accelerator_done[v] + sent))
    return longest


@njit(cache=True, nogil=True)
def enter_stages(
    ideals: Ideals,
    tensors: Tensors,
    graph: Graph,
    n_serial: np.ndarray,
    group_start: np.ndarray,
    group: np.ndarray,
    capacity: float,
    window: int,
    relaxed: bool,
    cutoff: float,
    stages: Stages,
    begin: int,
    end: int,
) -> None:
    """Fills in the ideals from `begin` to below `end`, all before them being filled in.

    A serial block is comparable with every other block, so stages with serial blocks follow each other in time. If
    `relaxed`, only these stages count, and the blocks between two of them take `_between_s` and use no subgraph: the
    value of the whole graph is a lower bound. Otherwise every subgraph counts and the blocks between two stages are
    on CPUs: the value is that of a placement in which every stage waits for all stages before it.

    Args:
        ideals: Units are of memory; sorted by (units, size); times of class 0 are those of accelerators.
        tensors: Tensors between blocks.
        graph: The blocks.
        n_serial: int32 [n_ideals], serial blocks in each ideal.
        group_start: int64 [n_serial blocks + 2].
        group: int32 [n_ideals], `group[group_start[c]:group_start[c + 1]]` are the ideals with c serial blocks.
        capacity: Memory of an accelerator.
        window: No part on an accelerator has more units.
        relaxed: See above.
        cutoff: Seconds; values from there on are of no interest.
        stages: Filled in.
        begin: 1 at least.
        end: At most the number of ideals.
    """
    n_words = ideals.bits.shape[1]
    n_subgraphs = stages.value.shape[1] - 1
    bits, memory, cut_s = ideals.bits, ideals.memory_bytes, ideals.cut_s
    value, staged = stages.value, stages.staged
    cut = no_cut(n_words * 64, tensors)
    members, inside = np.empty(graph.cpu_s.size, np.int64), np.zeros(graph.cpu_s.size, np.bool_)
    cpu_done, accelerator_done = np.zeros(graph.cpu_s.size), np.zeros(graph.cpu_s.size)
    for i in range(begin, end):
        cut_listed = False
        for j in range(i - 1, -1, -1):
            if ideals.units[i] - ideals.units[j] > window:
                break
            if memory[i] - memory[j] > capacity or (relaxed and n_serial[i] == n_serial[j]):
                continue
            least = ideals.time_s[i, 0] - ideals.time_s[j, 0] + abs(cut_s[i] - cut_s[j])
            useful = False
            for s in range(n_subgraphs):
                if value[j, s] + least < min(cutoff, staged[i, s + 1]):
                    useful = True
                    break
            if not useful or ideals.barred[i, 0] != ideals.barred[j, 0] or not _nested(bits, j, i):
                continue
            if not cut_listed:
                list_cut(bits[i], tensors, cut)
                cut_listed = True
            seconds = ideals.time_s[i, 0] - ideals.time_s[j, 0] + cut_s[j] + change_s(bits[j], tensors, cut)
            for s in range(n_subgraphs):
                if value[j, s] + seconds < min(cutoff, staged[i, s + 1]):
                    staged[i, s + 1] = value[j, s] + seconds
                    stages.came[i, s + 1] = j
        c = n_serial[i]
        for k in range(group_start[c - 1] if c > 0 else 0, group_start[c] if c > 0 else 0):
            j = group[k]
            if j >= i or not _nested(bits, j, i) or _difference(bits, i, j, members) != 1:
                continue
            for s in range(n_subgraphs + 1):
                if value[j, s] + graph.cpu_s[members[0]] < min(cutoff, staged[i, s]):
                    staged[i, s] = value[j, s] + graph.cpu_s[members[0]]
                    stages.came[i, s] = -2 - j
        for s in range(n_subgraphs + 1):
            value[i, s] = staged[i, s]
        for k in range(group_start[c], group_start[c + 1]):
            j = group[k]
            if j >= i:
                break
            useful = False
            for s in range(n_subgraphs + 1):
                if staged[j, s] < min(cutoff, value[i, s]):
                    useful = True
                    break
            if not useful or not _nested(bits, j, i):
                continue
            n = _difference(bits, i, j, members)
            for q in range(n):
                inside[members[q]] = True
            seconds = _between_s(graph, members[:n], inside, capacity, relaxed, cpu_done, accelerator_done)
            for q in range(n):
                inside[members[q]] = False
            for s in range(n_subgraphs + 1):
                if staged[j, s] + seconds < min(cutoff, value[i, s]):
                    value[i, s] = staged[j, s] + seconds
                    stages.between[i, s] = j
