"""Enumeration of arrangements: its groups, its arrangements, its costs, and what it finds."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_problem

import placement_gym as pg
from placement_gym.baselines.arrangements import arrangements
from placement_gym.baselines.meta_ops import meta_ops
from placement_gym.errors import InvalidOption
from placement_gym.programs import shard

# What an earlier implementation of the same idea found on the published graphs.
EARLIER = {
    "chain_mm_112nodes": 1600.1,
    "ffnn_192nodes": 56.70,
    "transformer_block_215nodes": 240.3,
    "full_transformer_layer_261nodes": 212.5,
}


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_groups_hold_every_op_once_and_follow_their_inputs(seed: int) -> None:
    """Whatever the graph: placing group after group, op after op, no op comes before one that it reads."""
    problem = random_problem(np.random.default_rng(seed), n_ops=14, n_devices=2)
    placed = np.concatenate(meta_ops(problem))
    assert sorted(placed.tolist()) == list(range(problem.n_ops))
    position = np.argsort(placed)
    assert (position[problem.graph.edge_src] < position[problem.graph.edge_dst]).all()


def test_shards_of_an_op_are_one_group() -> None:
    """In a sharded program the blocks of an op, its joins and its repartitions are a group each, at any depth."""
    graph = shard(pg.workloads.ffnn(batch=64, width=32, hidden=64), 4)
    problem = pg.Problem.from_times(graph, np.ones((graph.n_ops, 4)))
    groups = [[graph.op_names[op] for op in ops] for ops in meta_ops(problem)]
    for names in groups:
        assert len({name.rsplit("/", 1)[0] for name in names}) == 1
        assert len({name.rsplit("/", 1)[1].rstrip("0123456789") for name in names}) == 1
    assert max(len(names) for names in groups) >= 4
    assert len(groups) < graph.n_ops / 2


def test_groups_that_wait_for_each_other_are_divided() -> None:
    """a/0 -> b/0 -> a/1 -> b/1: neither group could be placed as a whole before the other."""
    graph = pg.OpGraph.build(["a/0", "b/0", "a/1", "b/1"], [(0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)])
    problem = pg.Problem.from_times(graph, np.ones((4, 2)))
    assert [ops.tolist() for ops in meta_ops(problem)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(("n_ops", "n_devices"), [(1, 1), (3, 2), (16, 4), (5, 3), (32, 8)])
def test_arrangements_are_different_and_hold_the_usual_ones(n_ops: int, n_devices: int) -> None:
    """No arrangement appears twice; all on one device, round robin and contiguous blocks are among them."""
    ways = [tuple(way) for way in arrangements(n_ops, n_devices).tolist()]
    assert len(set(ways)) == len(ways)
    assert {(d,) * n_ops for d in range(n_devices)} <= set(ways)
    assert tuple(i % n_devices for i in range(n_ops)) in ways
    assert tuple(i * n_devices // n_ops for i in range(n_ops)) in ways


def test_arrangements_of_a_grid_and_their_number() -> None:
    """A 4 x 4 grid lies on four devices in tiles; the number of ways grows slowly with ops and devices."""
    tiles = (0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3)
    assert tiles in {tuple(way) for way in arrangements(16, 4).tolist()}
    for few, many in pairwise(arrangements(n, 8) for n in (64, 512)):
        assert len(many) < 5 * len(few)


@pytest.mark.parametrize("name", sorted(EARLIER))
def test_published_graphs(name: str, shared_data: Path) -> None:
    """As good as, or better than, an earlier implementation of the same idea; the same every time."""
    problem = pg.workloads.read_doppler(shared_data / "doppler" / f"{name}.txt")
    first, second = (pg.baselines.enumerative(problem, rule="giph") for _ in range(2))
    assert first.objective <= EARLIER[name]
    assert first.simulator_calls == 3
    assert (first.placement.op_device == second.placement.op_device).all()


def two_layers(n: int = 4) -> pg.Problem:
    """Op i of the second layer reads op n - 1 - i of the first; moving an input takes as long as an op."""
    names = [f"a/{i}" for i in range(n)] + [f"b/{i}" for i in range(n)]
    graph = pg.OpGraph.build(names, [(i, 2 * n - 1 - i, 1.0) for i in range(n)])
    return pg.Problem.from_times(graph, np.ones((2 * n, n)), link_bytes_per_s=1.0)


@pytest.mark.parametrize("cost", ["network", "finish", "total_finish", "best"])
def test_inputs_stay_where_they_are(cost: str) -> None:
    """Each cost finds the layout of two crossed layers that is even and moves nothing."""
    result = pg.baselines.enumerative(two_layers(), cost=cost)  # type: ignore[arg-type]
    assert result.objective == 2.0
    assert sorted(result.placement.op_device[:4].tolist()) == [0, 1, 2, 3]


def test_what_is_sent_once_is_paid_once() -> None:
    """Four readers of one tensor, 1 s each, 10 s to move it: network time keeps them even, finish keeps them home."""
    graph = pg.OpGraph.build(["a/0", *(f"b/{i}" for i in range(4))], [(0, i, 10.0) for i in range(1, 5)])
    problem = pg.Problem.from_times(graph, np.ones((5, 2)), link_bytes_per_s=1.0)
    even = pg.baselines.enumerative(problem, cost="network")
    assert np.bincount(even.placement.op_device[1:]).tolist() == [2, 2]
    assert even.objective == 13.0
    assert pg.baselines.enumerative(problem, cost="finish").objective == 5.0


def test_the_best_cost_is_kept() -> None:
    """The default is never worse than any of its costs."""
    for seed in range(8):
        problem = random_problem(np.random.default_rng(seed), n_ops=20, n_devices=3, unsupported=True)
        each = [pg.baselines.enumerative(problem, cost=cost) for cost in ("network", "finish", "total_finish")]  # type: ignore[arg-type]
        assert pg.baselines.enumerative(problem).objective == min(result.objective for result in each)


def test_wrong_options_and_full_memory_are_named() -> None:
    """An unknown cost lists the known ones; a group that fits nowhere is named."""
    with pytest.raises(InvalidOption, match="unknown cost 'flops'; known: best, finish, network, total_finish"):
        pg.baselines.enumerative(two_layers(), cost="flops")  # type: ignore[arg-type]
