"""Ideals of a directed acyclic graph (sets closed under predecessors) as bitsets, each listed once.

Every ideal has a candidate list: blocks whose predecessors all belong to it. Its children add one candidate and may
never add an earlier one of the same list, so no ideal is met twice and none needs to be looked up.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray, IntArray


class Tensors(NamedTuple):
    """Tensors between blocks as hyperedges: a set of blocks pays for those with a block inside and one outside.

    Attributes:
        seconds: float64 [n_tensors], what the set pays.
        block_start: int32 [n_tensors + 1], `blocks[block_start[t]:block_start[t + 1]]` make or read tensor t.
        blocks: int32.
        touch_start: int32 [n_blocks + 1], `touch[touch_start[v]:touch_start[v + 1]]` are the tensors of block v.
        touch: int32.
    """

    seconds: np.ndarray
    block_start: np.ndarray
    blocks: np.ndarray
    touch_start: np.ndarray
    touch: np.ndarray


class Ideals(NamedTuple):
    """Ideals in an order in which every ideal comes after its subsets.

    Attributes:
        bits: uint64 [n_ideals, n_words].
        units: int64 [n_ideals], work in whole units.
        time_s: float64 [n_ideals, n_classes], summed over blocks.
        barred: int32 [n_ideals, n_classes], how many blocks the class cannot run.
        memory_bytes: float64 [n_ideals].
        cut_s: float64 [n_ideals], seconds of transfers of a device that holds exactly the ideal.
    """

    bits: np.ndarray
    units: np.ndarray
    time_s: np.ndarray
    barred: np.ndarray
    memory_bytes: np.ndarray
    cut_s: np.ndarray


def rows_of(row: NDArray[np.integer], value: NDArray[np.integer], n_rows: int) -> tuple[IntArray, IntArray]:
    """(start int32 [n_rows + 1], the values of each row one after the other, int32)."""
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))]).astype(np.int32)
    return start, value[np.argsort(row, kind="stable")].astype(np.int32)


def tensors_of(seconds: FloatArray, tensor_blocks: Sequence[Sequence[int]], n_blocks: int) -> Tensors:
    """The tensors as arrays, from the blocks that make or read each."""
    owner = np.repeat(np.arange(len(seconds)), [len(known) for known in tensor_blocks])
    known = np.fromiter((v for group in tensor_blocks for v in group), dtype=np.int32, count=len(owner))
    return Tensors(seconds, *rows_of(owner, known, len(seconds)), *rows_of(known, owner, n_blocks))


@njit(cache=True, nogil=True)
def list_ideals(
    successor_start: np.ndarray,
    successors: np.ndarray,
    predecessor_count: np.ndarray,
    units: np.ndarray,
    time: np.ndarray,
    memory: np.ndarray,
    tensors: Tensors,
    limit: int,
    stop: np.ndarray,
) -> tuple[int, Ideals]:
    """(number of ideals, the ideals as found); the number is `limit` + 1 and the list cut off if there are more.

    Args:
        successor_start: int32 [n + 1].
        successors: int32, as CSR.
        predecessor_count: int32 [n].
        units: int64 [n], work of each block.
        time: float64 [n, n_classes].
        memory: float64 [n].
        tensors: The tensors.
        limit: Most ideals to list.
        stop: uint8 [1], the listing ends as if at the limit once another thread makes it 1.
    """
    n = predecessor_count.size
    n_words = (n + 63) // 64
    room = 1024
    bits = np.zeros((room, n_words), np.uint64)
    all_units = np.zeros(room, np.int64)
    all_time = np.zeros((room, time.shape[1]))
    all_barred = np.zeros((room, time.shape[1]), np.int32)
    all_memory = np.zeros(room)
    all_cut = np.zeros(room)
    count = 1

    # One row per depth: the candidates in pool[next[d]:end[d]] are still to be tried.
    pool = np.empty(4 * n + 4, np.int32)
    upcoming, end = np.zeros(n + 2, np.int64), np.zeros(n + 2, np.int64)
    chosen, ideal = np.zeros(n + 2, np.int64), np.zeros(n + 2, np.int64)
    missing = predecessor_count.copy()
    inside = np.zeros(tensors.seconds.size, np.int32)
    for v in range(n):
        if missing[v] == 0:
            pool[end[0]] = v
            end[0] += 1
    depth = 0
    while True:
        if upcoming[depth] == end[depth]:
            if depth == 0:
                break
            v = chosen[depth]
            depth -= 1
            for k in range(successor_start[v], successor_start[v + 1]):
                missing[successors[k]] += 1
            for k in range(tensors.touch_start[v], tensors.touch_start[v + 1]):
                inside[tensors.touch[k]] -= 1
            continue
        v = pool[upcoming[depth]]
        upcoming[depth] += 1
        if count == limit or stop[0]:
            count = limit + 1
            break
        if count == room:
            room *= 2
            bits = np.concatenate((bits, np.zeros((room // 2, n_words), np.uint64)))
            all_units = np.concatenate((all_units, np.zeros(room // 2, np.int64)))
            all_time = np.concatenate((all_time, np.zeros((room // 2, time.shape[1]))))
            all_barred = np.concatenate((all_barred, np.zeros((room // 2, time.shape[1]), np.int32)))
            all_memory = np.concatenate((all_memory, np.zeros(room // 2)))
            all_cut = np.concatenate((all_cut, np.zeros(room // 2)))
        parent = ideal[depth]
        for w in range(n_words):
            bits[count, w] = bits[parent, w]
        bits[count, v >> 6] |= np.uint64(1) << np.uint64(v & 63)
        all_units[count] = all_units[parent] + units[v]
        for c in range(time.shape[1]):
            barred = not np.isfinite(time[v, c])
            all_barred[count, c] = all_barred[parent, c] + int(barred)
            all_time[count, c] = all_time[parent, c] + (0.0 if barred else time[v, c])
        all_memory[count] = all_memory[parent] + memory[v]
        cut = all_cut[parent]
        for k in range(tensors.touch_start[v], tensors.touch_start[v + 1]):
            t = tensors.touch[k]
            inside[t] += 1
            if inside[t] == 1:
                cut += tensors.seconds[t]
            if inside[t] == tensors.block_start[t + 1] - tensors.block_start[t]:
                cut -= tensors.seconds[t]
        all_cut[count] = cut
        child = end[depth]
        upcoming[depth + 1] = child
        while child + n > pool.size:
            pool = np.concatenate((pool, np.empty_like(pool)))
        for k in range(upcoming[depth], end[depth]):
            pool[child] = pool[k]
            child += 1
        for k in range(successor_start[v], successor_start[v + 1]):
            missing[successors[k]] -= 1
            if missing[successors[k]] == 0:
                pool[child] = successors[k]
                child += 1
        depth += 1
        end[depth] = child
        chosen[depth] = v
        ideal[depth] = count
        count += 1
    # Ended from outside, fewer are there than the count says.
    n_listed = min(count, limit, room)
    return count, Ideals(
        bits[:n_listed],
        all_units[:n_listed],
        all_time[:n_listed],
        all_barred[:n_listed],
        all_memory[:n_listed],
        all_cut[:n_listed],
    )
