"""Random problems, rules and placements for property tests."""

import itertools

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import placement_gym as pg
from placement_gym.contention import CONTENTIONS
from placement_gym.rule import CHOICES

Placed = tuple[pg.Problem, NDArray[np.int32], NDArray[np.float64]]

ALL_RULES = [
    pg.Rule(
        queue=q,  # type: ignore[arg-type]
        transfers=t,  # type: ignore[arg-type]
        contention=c,
        instant=instant,  # type: ignore[arg-type]
        latency=la,  # type: ignore[arg-type]
        device_hold_s=hold,
        makespan=end,  # type: ignore[arg-type]
        ties=ties,  # type: ignore[arg-type]
    )
    for (q, t, c), (instant, la, hold, end, ties) in itertools.product(
        itertools.product(CHOICES["queue"], CHOICES["transfers"], CONTENTIONS),
        [
            ("whole", "delays", 0.0, "last_op", "edge_order"),
            ("event", "delays", 0.0, "last_op", "edge_order"),
            ("event", "holds", 2.0, "last_event", "op_name"),
        ],
    )
]


def random_problem(
    rng: np.random.Generator,
    *,
    n_ops: int,
    n_devices: int,
    edge_share: float = 0.3,
    whole_numbers: bool = True,
    unsupported: bool = False,
) -> pg.Problem:
    """A random DAG on random heterogeneous devices; whole numbers make many events fall on one instant."""
    pairs = [(a, b) for a in range(n_ops) for b in range(a + 1, n_ops) if rng.random() < edge_share]
    # Some ops have several outputs of different sizes, some edges are doubled, and edges are in no order.
    outputs = rng.integers(0, 6, (n_ops, 2)) if whole_numbers else rng.exponential(3.0, (n_ops, 2))
    edges = [(a, b, float(outputs[a, rng.integers(0, 2)])) for a, b in pairs]
    edges += [edges[i] for i in rng.integers(0, len(edges), len(edges) // 8)] if edges else []
    rng.shuffle(edges)
    graph = pg.OpGraph.build(
        [f"op{i}" for i in rng.permutation(n_ops)], edges, parameter_bytes=rng.integers(0, 4, n_ops)
    )
    shape = (n_ops, n_devices)
    time = rng.integers(0, 5, shape).astype(float) if whole_numbers else rng.exponential(2.0, shape)
    if unsupported:
        blocked = rng.random(shape) < 0.3
        blocked[np.arange(n_ops), rng.integers(0, n_devices, n_ops)] = False
        time[blocked] = np.inf
    pair = (n_devices, n_devices)
    return pg.Problem.from_times(
        graph,
        time,
        link_latency_s=rng.integers(0, 3, pair) if whole_numbers else rng.exponential(1.0, pair),
        link_bytes_per_s=rng.integers(1, 3, pair) if whole_numbers else rng.exponential(1.0, pair) + 0.1,
        device_slots=rng.integers(1, 3, n_devices),
        device_node=rng.integers(0, 2, n_devices),
    )


def order_for(rule: pg.Rule, priority: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The priority where the rule's queue reads one; other queues refuse it."""
    return priority if rule.queue == "priority" else None


def random_placement(rng: np.random.Generator, problem: pg.Problem) -> NDArray[np.int32]:
    """Devices drawn evenly among those that can run each op."""
    return np.array([rng.choice(np.flatnonzero(np.isfinite(times))) for times in problem.op_time_s], dtype=np.int32)


@st.composite
def placed_problems(draw: st.DrawFn, max_ops: int = 14) -> tuple[pg.Problem, NDArray[np.int32], NDArray[np.float64]]:
    """(problem, placement, priority)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    problem = random_problem(
        rng,
        n_ops=draw(st.integers(1, max_ops)),
        n_devices=draw(st.integers(1, 4)),
        edge_share=draw(st.sampled_from([0.0, 0.15, 0.4])),
        whole_numbers=draw(st.booleans()),
        unsupported=draw(st.booleans()),
    )
    return problem, random_placement(rng, problem), rng.integers(0, 4, problem.n_ops).astype(float)
