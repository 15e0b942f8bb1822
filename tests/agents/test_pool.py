"""The pool of good placements that differ."""

import numpy as np

import placement_gym as pg
from agents.pool import SIZE, Kept, Pool

CHAIN = pg.Problem.from_times(
    pg.OpGraph.build([str(i) for i in range(11)], [(i, i + 1, 1.0) for i in range(10)]), np.ones((11, 3))
)


def kept(makespan_s: float, *switches: int, first: int = 0) -> Kept:
    """A placement of the chain that changes device at these edges."""
    op_device = np.full(11, first, np.int32)
    for edge in switches:
        op_device[edge + 1 :] = 1 - op_device[edge + 1 :]
    return Kept(makespan_s, op_device, np.arange(11))


def told(pool: Pool) -> list[float]:
    """Makespans of the kept."""
    return [one.makespan_s for one in pool.kept]


def test_the_better_of_two_that_are_alike_is_kept() -> None:
    """Placements that cut the same edges are alike, whatever their devices are called."""
    pool = Pool(CHAIN)
    pool.add(kept(1.01, 2))
    pool.add(kept(1.02, 2, first=1))
    assert told(pool) == [1.01]
    pool.add(kept(1.0, 2, first=1))
    assert told(pool) == [1.0]
    pool.add(kept(1.0, 2, 5))
    pool.add(kept(1.015, 7))
    assert told(pool) == [1.0, 1.0, 1.015]


def test_what_is_far_from_the_best_goes() -> None:
    """2 % worse than the best: neither taken nor kept when a better one comes."""
    pool = Pool(CHAIN)
    for makespan_s, edge in ((1.0, 1), (1.03, 2), (1.019, 3)):
        pool.add(kept(makespan_s, edge))
    assert told(pool) == [1.0, 1.019]
    pool.add(kept(0.99, 4))
    assert told(pool) == [0.99, 1.0]


def test_the_worst_of_too_many_goes() -> None:
    """The pool is full with `SIZE` placements; a checkpoint holds them."""
    pool, pairs = Pool(CHAIN), [(i, j) for i in range(10) for j in range(i)]
    for k, pair in enumerate(pairs):
        pool.add(kept(1.02 - 1e-4 * k, *pair))
    assert told(pool) == [1.02 - 1e-4 * k for k in reversed(range(len(pairs)))][:SIZE]
    again = Pool(CHAIN)
    again.restore(pool.state())
    assert told(again) == told(pool)
