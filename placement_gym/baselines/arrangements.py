"""Arrangements: the ways in which ops that are alike are laid on devices."""

import itertools
from collections.abc import Iterator
from functools import lru_cache
from math import factorial

import numpy as np

from placement_gym.arrays import IntArray

# All orders of the devices are tried up to this many, rotations beyond.
MOST_ORDERS = 24


def _powers(limit: int) -> list[int]:
    """1, 2, 4, ... below the limit; 1 at least."""
    return [2**k for k in range(max(1, (limit - 1).bit_length()))]


def _patterns(n_ops: int, n_parts: int) -> Iterator[tuple[int, ...]]:
    """Ways to divide ops 0, 1, ... among parts 0, 1, ...: blocks, block-cyclic, diagonals and tiles of a grid."""
    ops = range(n_ops)
    yield tuple(i * n_parts // n_ops for i in ops)
    for run in _powers(n_ops):
        yield tuple(i // run % n_parts for i in ops)
        yield tuple((i + i // run) % n_parts for i in ops)
    for rows in range(2, n_parts):
        if n_parts % rows == 0:
            columns = n_parts // rows
            for run, inner in itertools.permutations(_powers(n_ops), 2):
                yield tuple(i // run % rows * columns + i // inner % columns for i in ops)


def _orders(n_devices: int) -> Iterator[tuple[int, ...]]:
    """Orders of the devices: all of them if there are few, else rotations."""
    if factorial(n_devices) <= MOST_ORDERS:
        yield from itertools.permutations(range(n_devices))
        return
    for first in range(n_devices):
        yield tuple((first + i) % n_devices for i in range(n_devices))


@lru_cache(maxsize=256)
def arrangements(n_ops: int, n_devices: int) -> IntArray:
    """int32 [n_arrangements, n_ops]: the devices of the ops of a group, each arrangement once.

    The ops are divided among 1, 2, 4, ... or all devices by one of `_patterns`, O(log^2 n_ops) of them; the parts
    lie on consecutive devices of one of `_orders`.
    """
    found: dict[tuple[int, ...], None] = {}
    for n_parts in sorted({n_devices, *_powers(n_devices + 1)}):
        patterns = dict.fromkeys(_patterns(n_ops, n_parts))
        for order, pattern in itertools.product(_orders(n_devices), patterns):
            found[tuple(order[part] for part in pattern)] = None
    made = np.array(list(found), dtype=np.int32)
    made.setflags(write=False)
    return made
