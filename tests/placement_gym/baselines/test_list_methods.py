"""List schedulers: the example of the paper, orders that count, and graphs of many ops."""

import time

import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from placement_gym.baselines.list_methods import optimistic_cost_s, upward_rank_s
from placement_gym.baselines.list_scheduling import place_by_list
from placement_gym.errors import InvalidOption
from placement_gym.ranks import b_level_s, mean_op_time_s
from placement_gym.result import Evaluator
from placement_gym.simulator import compile_problem

# Topcuoglu, Hariri and Wu (IEEE TPDS 2002), figure 2 and table 1.
COSTS = [
    [14, 16, 9],
    [13, 19, 18],
    [11, 13, 19],
    [13, 8, 17],
    [12, 13, 10],
    [13, 16, 9],
    [7, 15, 11],
    [5, 11, 14],
    [18, 12, 20],
    [21, 7, 16],
]
EDGES = [
    *((1, 2, 18), (1, 3, 12), (1, 4, 9), (1, 5, 11), (1, 6, 14), (2, 8, 19), (2, 9, 16), (3, 7, 23)),
    *((4, 8, 27), (4, 9, 23), (5, 9, 13), (6, 8, 15), (7, 10, 17), (8, 10, 11), (9, 10, 13)),
]
# Arabnejad and Barbosa (IEEE TPDS 2014), figure 1.
PEFT_COSTS = [
    [22, 21, 36],
    [22, 18, 18],
    [32, 27, 43],
    [7, 10, 4],
    [29, 27, 35],
    [26, 17, 24],
    [14, 25, 30],
    [29, 23, 36],
    [15, 21, 8],
    [13, 16, 33],
]
PEFT_EDGES = [
    *((1, 2, 17), (1, 3, 31), (1, 4, 29), (1, 5, 13), (1, 6, 7), (2, 8, 3), (2, 9, 30), (3, 7, 16)),
    *((4, 8, 11), (4, 9, 7), (5, 9, 57), (6, 8, 5), (7, 10, 9), (8, 10, 42), (9, 10, 7)),
]
PLANNED = pg.Rule(queue="priority", transfers="edge", contention="none")
METHODS = ["heft", "cpop", "peft", "etf", "dls", "m_etf", "critical_path"]


def _example(costs: list[list[int]] = COSTS, edges: list[tuple[int, int, int]] = EDGES) -> pg.Problem:
    graph = pg.OpGraph.build([f"T{i}" for i in range(1, 11)], [(a - 1, b - 1, float(c)) for a, b, c in edges])
    return pg.Problem.from_times(graph, costs, link_bytes_per_s=1.0)


def test_heft_and_cpop_of_the_paper() -> None:
    """Upward ranks as in table 2 of the paper, schedule lengths 80 and 86; 91 for DLS, which the paper names too."""
    problem = _example()
    expected = [108, 77, 80, 80, 69, 63.333, 42.667, 35.667, 44.333, 14.667]
    np.testing.assert_allclose(upward_rank_s(problem), expected, atol=5e-4)
    assert pg.baselines.heft(problem, rule=PLANNED).objective == 80
    assert pg.baselines.cpop(problem, rule=PLANNED).objective == 86
    assert pg.baselines.dls(problem, rule=PLANNED).objective == 91


def test_peft_of_the_paper() -> None:
    """The optimistic cost table and the ranks of the paper's example; schedule lengths 122, and 133 for HEFT."""
    problem = _example(PEFT_COSTS, PEFT_EDGES)
    table = optimistic_cost_s(problem)
    assert table[[0, 2, 4, 8]].tolist() == [[64, 68, 86], [27, 41, 43], [28, 37, 28], [13, 16, 20]]
    rank = [72.7, 41.0, 37.0, 43.7, 31.0, 41.7, 17.0, 20.7, 16.3, 0.0]
    np.testing.assert_allclose(table.mean(axis=1), rank, atol=0.05)
    assert pg.baselines.peft(problem, rule=PLANNED).objective == 122
    assert pg.baselines.heft(problem, rule=PLANNED).objective == 133


def test_the_optimistic_cost_table_by_hand() -> None:
    """PEFT's table: nothing after the last op; before it the cheaper of staying and of moving."""
    table = optimistic_cost_s(_example())
    assert table[9].tolist() == [0, 0, 0]
    # From T9 (13 to move): stay 21, 7, 16, or move to the second device for 13 + 7.
    assert table[8].tolist() == [20, 7, 16]


def test_etf_and_dls_by_hand() -> None:
    """Two ops that are ready at once: ETF takes the longer way to the end, DLS the device that suits the op."""
    graph = pg.OpGraph.build(["short", "long", "after"], [(1, 2, 0.0)])
    problem = pg.Problem.from_times(graph, [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    result = pg.baselines.etf(problem, rule=PLANNED)
    assert result.schedule.trace.op_start_s.tolist() == [0.0, 0.0, 2.0]
    unlike = pg.Problem.from_times(pg.OpGraph.build(["a", "b"], []), [[9.0, 1.0], [9.0, 1.0]])
    # ETF starts both at once; DLS waits for the fast device, where either is 4 s better than the median.
    assert pg.baselines.etf(unlike, rule=PLANNED).objective == 9
    assert pg.baselines.dls(unlike, rule=PLANNED).objective == 2


def test_the_order_is_kept_and_counts() -> None:
    """Under a priority queue the schedule goes by the order of the plan; other queues keep it and ignore it."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, n_ops=14, n_devices=3, edge_share=0.2, whole_numbers=bool(seed % 2))
        result = pg.baselines.heft(problem, rule=PLANNED)
        assert result.priority is not None
        np.testing.assert_array_equal(result.schedule.priority, result.priority)
        ignored = pg.baselines.heft(problem, rule=pg.Rule(transfers="edge", contention="none"))
        assert ignored.priority is not None
        assert not ignored.schedule.priority.any()


def _dag(seed: int) -> pg.Problem:
    """15 to 59 ops on 2 to 5 devices, unlike in speed alone or altogether; transfers take 0.2 to 3 times as long."""
    rng = np.random.default_rng(seed)
    n, d, ratio = int(rng.integers(15, 60)), int(rng.integers(2, 6)), float(rng.choice([0.2, 1.0, 3.0]))
    share = rng.uniform(2.0, 6.0) / n
    edges = [(a, b, rng.uniform(0.1, 2) * ratio) for a in range(n) for b in range(a + 1, n) if rng.random() < share]
    unlike = rng.uniform(0.5, 2, (n, d)) if seed % 2 else rng.uniform(0.5, 2, (n, 1)) / rng.uniform(0.5, 2, d)
    bandwidth = rng.uniform(0.5, 2, (d, d))
    graph = pg.OpGraph.build([f"op{i}" for i in range(n)], edges)
    return pg.Problem.from_times(graph, unlike, link_bytes_per_s=(bandwidth + bandwidth.T) / 2)


def test_heft_is_simulated_as_it_was_planned() -> None:
    """On 100 random DAGs heft takes no longer in the mean than planned, never 5 % longer, in at most 128 calls."""
    over, plain, calls = [], [], []
    for seed in range(100):
        problem = _dag(seed)
        listed = place_by_list(compile_problem(problem, PLANNED), rank=upward_rank_s(problem), insertion=True)
        result, alone = (pg.baselines.heft(problem, rule=PLANNED, simulator_calls=limit) for limit in (128, 1))
        result.schedule.check()
        np.testing.assert_array_equal(alone.placement.op_device, listed.op_device)
        assert alone.simulator_calls == 1
        over.append(result.objective / listed.makespan_s)
        plain.append(alone.objective / listed.makespan_s)
        calls.append(result.simulator_calls)
    assert np.mean(over) <= 1.0
    assert max(over) <= 1.05
    assert min(calls) == 6
    assert max(calls) <= 128
    # Without repair some take much longer, since the simulator never idles beside a ready op.
    assert max(plain) > 1.1


@pytest.mark.parametrize("method", ["etf", "m_etf"])
def test_etf_is_simulated_as_it_was_planned(method: str) -> None:
    """It never leaves a device idle beside an op that could start, so without contention its plan comes true."""
    for seed in range(40):
        problem = _dag(seed)
        edge_time_s = np.zeros(problem.graph.n_edges)
        rank = upward_rank_s(problem) if method == "m_etf" else b_level_s(problem, mean_op_time_s(problem), edge_time_s)
        listed = place_by_list(compile_problem(problem, PLANNED), rank=rank, earliest_first=True)
        result = pg.METHODS[method](problem, rule=PLANNED)
        assert result.objective == pytest.approx(listed.makespan_s, rel=1e-12)
        assert result.simulator_calls == 1


def test_repair_keeps_groups_and_memory() -> None:
    """Colocated ops move together, no device holds more than its memory, and the calls are those allowed."""
    moved = 0
    for seed in range(40):
        plain = _dag(seed)
        graph = plain.graph
        edges = zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), graph.edge_bytes.tolist(), strict=True)
        colocation = np.random.default_rng(seed).integers(-6, 2, graph.n_ops)
        problem = pg.Problem.from_times(
            pg.OpGraph.build(graph.op_names, list(edges), colocation=colocation),
            plain.op_time_s,
            link_bytes_per_s=plain.link_bytes_per_s,
            op_memory_bytes=np.ones(plain.n_ops),
            device_memory_bytes=plain.n_ops * 0.6,
        )
        result, alone = (pg.baselines.heft(problem, rule=PLANNED, simulator_calls=limit) for limit in (40, 1))
        result.placement.check(problem)
        assert result.simulator_calls <= 40
        assert result.objective <= alone.objective
        moved += result.simulator_calls > 6
    assert moved >= 3


def test_heft_needs_a_call() -> None:
    """No calls are refused in words."""
    with pytest.raises(InvalidOption, match="simulator_calls is 0; expected >= 1"):
        pg.baselines.heft(_example(), simulator_calls=0)


@pytest.mark.parametrize("method", [*METHODS, "round_robin", "single_device", "enumerative"])
def test_every_method_runs_under_a_priority_queue(method: str) -> None:
    """Methods without an order are evaluated by b-level ranks; the schedule proves itself; none beats brute force."""
    for seed in range(4):
        problem = random_problem(np.random.default_rng(seed), n_ops=6, n_devices=2)
        result = pg.METHODS[method](problem, rule=pg.Rule(queue="priority"))
        result.schedule.check()
        if result.priority is None:
            np.testing.assert_array_equal(result.schedule.priority, upward_rank_s(problem))
            assert result.objective >= pg.exact.brute_force(problem, rule=pg.Rule(queue="priority")).objective


def test_a_search_is_evaluated_as_it_searched() -> None:
    """Under a priority queue the makespan that annealing went by is the one of the result."""
    problem = random_problem(np.random.default_rng(5), n_ops=20, n_devices=3)
    rule = pg.Rule(queue="priority")
    result = pg.baselines.simulated_annealing(problem, rule=rule, simulator_calls=400, seed=0)
    start = pg.baselines.critical_path(problem, rule=rule, n_tries=1)
    assert result.objective <= pg.baselines.random_search(problem, rule=rule, simulator_calls=100).objective
    assert result.objective <= start.objective * 1.5


@pytest.fixture(scope="module")
def four_wide_layers() -> pg.Problem:
    """A graph of four layers of 5,000 ops on eight devices."""
    rng = np.random.default_rng(0)
    n, width = 20_000, 5_000
    heads = np.repeat(np.arange(width, n), 2)
    edges = [(int(b // width * width - rng.integers(1, width + 1)), int(b), 1.0) for b in heads]
    graph = pg.OpGraph.build([str(i) for i in range(n)], edges)
    return pg.Problem.from_times(graph, rng.uniform(1, 2, (n, 8)), link_bytes_per_s=10.0)


@pytest.mark.parametrize("method", ["heft", "etf", "dls", "m_etf"])
def test_20000_ops(four_wide_layers: pg.Problem, method: str) -> None:
    """They are placed within 5 s of processor time."""
    pg.METHODS[method](_example())  # compiled
    began = time.process_time()
    pg.METHODS[method](four_wide_layers)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("shape", [(7,), (2, 7), (1, 8)])
def test_priorities_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Before anything is simulated, since the kernel checks nothing."""
    problem = random_problem(np.random.default_rng(0), n_ops=8, n_devices=2)
    evaluator = Evaluator("test", problem, pg.Rule(queue="priority"))
    with pytest.raises(InvalidOption, match=r"priorities has shape"):
        evaluator.weigh(np.zeros((2, 8), np.int32), np.zeros(shape))
    assert evaluator.simulator_calls == 0


def test_brute_force_says_which_orders_it_tried() -> None:
    """An order of its own may beat every placement in b-level order (seed 76), so the optimum is one among these."""
    problem = random_problem(np.random.default_rng(76), n_ops=6, n_devices=2)
    assert pg.exact.brute_force(problem, rule=pg.Rule(queue="priority")).restricted_to == "b-level order"
    assert pg.exact.brute_force(problem).restricted_to is None
