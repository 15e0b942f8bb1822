"""Queues of the kernel: the heap of events, and the heaps of a priority queue. All are indices into flat arrays."""

import numpy as np
from numba import njit

FIFO, PRIORITY, LIFO = 0, 1, 2
ONE = np.uint64(1)  # places on the heap are unsigned: Numba asks of a signed index whether it counts from the end


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def heap_push(time: np.ndarray, key: np.ndarray, size: int, t: float, k: int) -> None:
    """Puts event (t, k) on a binary heap of `size` events ordered by time, then key."""
    i = np.uint64(size)
    while i > 0:
        parent = (i - ONE) >> ONE
        if time[parent] < t or (time[parent] == t and key[parent] < k):
            break
        time[i] = time[parent]
        key[i] = key[parent]
        i = parent
    time[i] = t
    key[i] = k


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def heap_drop(time: np.ndarray, key: np.ndarray, size: int) -> None:
    """Takes the first event off a heap of `size` events.

    The hole at the top sinks to the bottom along the earlier children (no branch to mispredict), then the last
    event, which belongs near the bottom, rises from there (Wegener's bottom-up heapsort, 1993).
    """
    last = np.uint64(size - 1)
    t = time[last]
    k = key[last]
    i = np.uint64(0)
    child = ONE
    while child + ONE < last:
        other = child + ONE
        child += np.uint64((time[other] < time[child]) | ((time[other] == time[child]) & (key[other] < key[child])))
        time[i] = time[child]
        key[i] = key[child]
        i = child
        child = i + i + ONE
    if child < last:
        time[i] = time[child]
        key[i] = key[child]
        i = child
    while i > 0:
        parent = (i - ONE) >> ONE
        if time[parent] < t or (time[parent] == t and key[parent] < k):
            break
        time[i] = time[parent]
        key[i] = key[parent]
        i = parent
    time[i] = t
    key[i] = k


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def comes_before(mode: int, a: int, b: int, joined: np.ndarray, rank: np.ndarray) -> bool:
    """Whether item a leaves a queue before item b."""
    if mode == PRIORITY and rank[a] != rank[b]:
        return bool(rank[a] > rank[b])
    return bool(joined[a] > joined[b] if mode == LIFO else joined[a] < joined[b])


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def merge(a: int, b: int, left: np.ndarray, right: np.ndarray, joined: np.ndarray, rank: np.ndarray) -> int:
    """Root of the skew heap (Sleator and Tarjan, 1986) that joins heaps a and b; -1 is the empty heap."""
    if a < 0:
        return b
    if b < 0:
        return a
    if comes_before(PRIORITY, b, a, joined, rank):
        a, b = b, a
    root = a
    while True:
        old_right = right[a]
        right[a] = left[a]
        if old_right < 0:
            left[a] = b
            return root
        if comes_before(PRIORITY, old_right, b, joined, rank):
            left[a] = old_right
            a = old_right
        else:
            left[a] = b
            a, b = b, old_right


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def join(
    mode: int,
    queue: int,
    item: int,
    n_joined: int,
    head: np.ndarray,
    tail: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    joined: np.ndarray,
    rank: np.ndarray,
) -> None:
    """Puts an item on a queue as the n_joined-th of all: a skew heap, a stack or a list, as the mode says."""
    joined[item] = n_joined
    if mode == PRIORITY:
        left[item] = right[item] = -1
        head[queue] = merge(np.int64(head[queue]), item, left, right, joined, rank)
    elif mode == LIFO or head[queue] < 0:
        left[item] = head[queue]
        head[queue] = item
        tail[queue] = item
    else:
        left[item] = -1
        left[tail[queue]] = item
        tail[queue] = item


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def leave(
    mode: int,
    queue: int,
    head: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    joined: np.ndarray,
    rank: np.ndarray,
) -> int:
    """Takes the first item off a queue that is not empty, and returns it."""
    item: int = head[queue]
    if mode == PRIORITY:
        head[queue] = merge(np.int64(left[item]), np.int64(right[item]), left, right, joined, rank)
    else:
        head[queue] = left[item]
    return item
