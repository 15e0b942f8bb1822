"""Groups: random placements."""

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.arrays import IntArray
from placement_gym.groups import Groups, Room


def crowded(seed: int, *, live: bool) -> pg.Problem:
    """Twelve ops, some of one group or barred from a device, on four devices that hold little more than all of them."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 6, 12).astype(float)
    graph = pg.OpGraph.build(
        [str(i) for i in range(12)],
        [(i, i + 1, float(rng.integers(1, 3))) for i in range(11)],
        parameter_bytes=size,
        output_bytes=rng.integers(0, 3, 12).astype(float),
        colocation=np.where(rng.random(12) < 0.15, 0, -1),
    )
    times = np.where(rng.random((12, 4)) < 0.15, np.inf, 1.0)
    times[:, seed % 4] = 1.0
    together = max(size[graph.op_colocation == 0].sum(), 5.0) + (5.0 if live else 0.0)
    capacity = max(together, np.ceil(size.sum() / 4) + (2.0 if live else 0.0))
    claims = None if live else size
    return pg.Problem.from_times(graph, times, device_memory_bytes=capacity, op_memory_bytes=claims)


def by_definition(groups: Groups, problem: pg.Problem, rng: np.random.Generator) -> IntArray:
    """One try of `Groups.random`, by `Room`."""
    room, chosen = Room(groups, problem), np.zeros(groups.n_groups, dtype=np.int32)
    largest = groups.memory_bytes + groups.working_bytes
    for u in np.argsort(-largest * rng.uniform(0.8, 1.0, groups.n_groups), kind="stable"):
        chosen[u] = rng.choice(room.open_to(u))
        room.put(u, chosen[u])
    return chosen


@pytest.mark.parametrize("live", [True, False])
def test_random_placements_go_where_there_is_room(live: bool) -> None:
    """With equal seeds they are those of the definition, whether all fits or not, and as many numbers are drawn."""
    fits = []
    for seed in range(60):
        problem, one, other = crowded(seed, live=live), *(np.random.default_rng(seed) for _ in range(2))
        groups = Groups.of(problem)
        chosen = groups.random(problem, one, n_tries=1)
        np.testing.assert_array_equal(chosen, by_definition(groups, problem, other))
        assert one.random() == other.random()
        fits.append(Room(groups, problem, chosen).excess_bytes == 0)
    assert 10 < sum(fits) < 50


def test_of_many_tries_the_first_that_fits_is_taken() -> None:
    """Or the one of the least excess, where none does."""
    for seed in range(30):
        problem = crowded(seed, live=False)
        groups, rng = Groups.of(problem), np.random.default_rng(seed)
        tries = [by_definition(groups, problem, rng) for _ in range(20)]
        excess = [Room(groups, problem, chosen).excess_bytes for chosen in tries]
        expected = tries[int(np.argmin(excess))]
        np.testing.assert_array_equal(groups.random(problem, np.random.default_rng(seed), n_tries=20), expected)
