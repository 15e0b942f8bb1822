"""The programme for loads: equal to brute force over all placements, contiguous or not, forward and backward apart."""

import itertools
from typing import Literal

import networkx as nx
import numpy as np
import pytest
from pipelines import random_pipeline_problem
from published import Published

import placement_gym as pg
from placement_gym.arrays import IntArray
from placement_gym.errors import InfeasiblePlacement, InvalidProblem
from placement_gym.exact import dp, mip
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.max_load.mip import _model, is_contiguous, solve_load
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.objectives import gpipe_load_s, max_load_s
from placement_gym.placement import infeasibility

pytest.importorskip("ortools")
pytest.importorskip("highspy", exc_type=ModuleNotFoundError)
Load = Literal["max_load", "gpipe_load"]
ONE = Solver(time_limit_s=30.0, workers=1)
HIGHS = Solver(name="highs", time_limit_s=30.0, workers=1)


def random_load_problem(rng: np.random.Generator) -> pg.Problem:
    """Up to 6 ops, up to 3 devices: links and memory that differ, several tensors per op, groups, CPUs, support."""
    n_ops, n_devices = int(rng.integers(2, 7)), int(rng.integers(2, 4))
    group = float(rng.choice([1e-9, 1.0, 1e6]))
    outputs = rng.exponential(rng.choice([0.1, 1.0]), (n_ops, 2))
    pairs = [(a, b) for a in range(n_ops) for b in range(a + 1, n_ops) if rng.random() < 0.45]
    which = rng.integers(0, 2, len(pairs))
    size = outputs[[a for a, _ in pairs], which]
    edges = [(a, b, float(s)) for (a, b), s in zip(pairs, size, strict=True)]
    tensors = [2 * a + int(w) for (a, _), w in zip(pairs, which, strict=True)]
    n_forward = n_ops if rng.random() < 0.5 else int(rng.integers(1, n_ops + 1))
    colocation = np.where(rng.random(n_ops) < 0.4, rng.integers(0, 2, n_ops), -1)
    alike = rng.random() < 0.4
    time = rng.exponential(1.0, (n_ops, 1 if alike else n_devices)) * np.ones((1, n_devices))
    time *= rng.random((n_ops, 1)) < 0.8
    if not alike and rng.random() < 0.4:
        time[rng.random(time.shape) < 0.2] *= 1e9
    barred = (colocation < 0)[:, None] & (rng.random((n_ops, n_devices)) < 0.15)
    barred[np.arange(n_ops), rng.integers(0, n_devices, n_ops)] = False
    time[barred] = np.inf
    memory = rng.integers(0, 4, n_ops) * float(rng.choice([1.0, 0.1, 1e9]))
    capacity = memory.sum() * (1.0 if rng.random() < 0.4 else rng.uniform(0.4, 1.0, 1 if alike else n_devices))
    pair = (n_devices, n_devices)
    uniform = rng.random() < 0.3
    return pg.Problem.from_times(
        pg.OpGraph.build(
            [f"op{i}" for i in range(n_ops)],
            edges,
            is_backward=np.arange(n_ops) >= n_forward,
            colocation=colocation,
            edge_tensor=tensors,
        ),
        time * group,
        link_latency_s=0.1 * group if uniform else rng.exponential(0.1, pair) * group,
        link_bytes_per_s=1 / group if uniform else rng.uniform(0.2, 3.0, pair) / group,
        op_memory_bytes=memory,
        device_memory_bytes=np.maximum(capacity, max(memory.max(), 1.0)),
        device_kinds=["cpu" if rng.random() < 0.25 else "accelerator" for _ in range(n_devices)],
    )


def paths_come_back(problem: pg.Problem, op_device: IntArray) -> bool:
    """Whether some path of forward edges joins two ops of one device through an op elsewhere: by looking at all."""
    forward: nx.DiGraph[int] = nx.DiGraph()
    forward.add_nodes_from(range(problem.n_ops))
    backward = problem.graph.op_is_backward
    ends = zip(problem.graph.edge_src.tolist(), problem.graph.edge_dst.tolist(), strict=True)
    forward.add_edges_from((a, b) for a, b in ends if not backward[a] and not backward[b])
    reach = {a: nx.descendants(forward, a) for a in forward}
    return any(op_device[a] == op_device[c] != op_device[b] for a in forward for b in reach[a] for c in reach[b])


def optima(problem: pg.Problem) -> dict[tuple[Load, bool], float]:
    """Least load of each kind, (objective, contiguous), over all placements; inf where none is feasible."""
    best = {(objective, kept): np.inf for objective in ("max_load", "gpipe_load") for kept in (False, True)}
    for row in itertools.product(range(problem.n_devices), repeat=problem.n_ops):
        placement = np.array(row, dtype=np.int32)
        if infeasibility(problem, placement) is not None:
            continue
        loads = (("max_load", max_load_s(problem, placement)), ("gpipe_load", gpipe_load_s(problem, placement)))
        for objective, seconds in loads:
            for kept in (False, True):
                if seconds < best[objective, kept] and not (kept and paths_come_back(problem, placement)):
                    best[objective, kept] = seconds
    return best  # type: ignore[return-value]


def check(problem: pg.Problem, kinds: list[tuple[Load, bool]], *, heuristics: bool, solver: Solver) -> None:
    """Against brute force; without heuristics the programme finds the placement itself."""
    expected = optima(problem)
    for objective, contiguous in kinds:
        optimum = expected[objective, contiguous]
        if not heuristics:
            gpipe = objective == "gpipe_load"
            deadline = Deadline(solver.time_limit_s)
            answer = solve_load(problem, solver, deadline, start=None, contiguous=contiguous, gpipe=gpipe)
            assert answer.proven
            assert (answer.op_device is None) == (optimum == np.inf)
            if answer.op_device is None:
                continue
            found, bound, placed = (
                (gpipe_load_s if gpipe else max_load_s)(problem, answer.op_device),
                answer.lower_bound,
                answer.op_device,
            )
        else:
            if optimum == np.inf:
                with pytest.raises(InfeasiblePlacement, match="no placement of 'problem' is feasible"):
                    mip(problem, objective=objective, contiguous=contiguous, solver=solver)
                continue
            result = mip(problem, objective=objective, contiguous=contiguous, solver=solver)
            assert (result.status, result.objective_name) == ("optimal", objective)
            found, bound, placed = result.objective, result.class_lower_bound, result.placement.op_device
            assert result.lower_bound <= expected[objective, False] * (1 + 1e-9)
        assert infeasibility(problem, placed) is None
        assert found == pytest.approx(optimum, rel=1e-6, abs=0)
        assert found >= optimum * (1 - 1e-12)
        assert optimum * (1 - 2e-6) <= bound <= optimum * (1 + 1e-9)
        assert is_contiguous(problem, placed) or not contiguous
    if not kinds or expected["max_load", True] == np.inf:
        return
    free, kept = expected["max_load", False], expected["max_load", True]
    try:
        chain = dp(problem).objective
    except (InfeasiblePlacement, InvalidProblem):
        chain = np.inf
    assert free <= kept <= chain * (1 + 1e-9)


ALL: list[tuple[Load, bool]] = [("max_load", False), ("max_load", True), ("gpipe_load", False), ("gpipe_load", True)]


def drawn(seed: int) -> pg.Problem:
    """A problem of one of the two kinds, small enough for brute force."""
    for again in range(100):
        rng = np.random.default_rng([seed, again])
        try:
            problem = random_load_problem(rng) if seed % 3 else random_pipeline_problem(rng)
        except InvalidProblem:
            continue  # a group that no device can run or hold
        if problem.n_devices**problem.n_ops <= 800:
            return problem
    raise AssertionError(seed)


@pytest.mark.parametrize("part", range(2))
def test_the_programme_equals_brute_force(part: int) -> None:
    """Without a start: least loads of each kind, free and contiguous; bounds not above them."""
    for seed in range(9 * part, 9 * part + 9):
        check(drawn(seed), ALL, heuristics=False, solver=ONE)


@pytest.mark.parametrize("part", range(2))
def test_mip_equals_brute_force(part: int) -> None:
    """With what heuristics find to begin from: the same optima, and free <= contiguous <= pipelines."""
    for seed in range(1000 + 6 * part, 1006 + 6 * part):
        check(drawn(seed), ALL, heuristics=True, solver=ONE)


@pytest.mark.parametrize("part", range(2))
def test_highs_equals_brute_force(part: int) -> None:
    """HiGHS finds the same optima."""
    for seed in range(2000 + 6 * part, 2006 + 6 * part):
        check(drawn(seed), ALL, heuristics=bool(seed % 2), solver=HIGHS)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_many_equal_brute_force(part: int) -> None:
    """As above, on many problems."""
    for seed in range(10_000 + 60 * part, 10_060 + 60 * part):
        check(drawn(seed), ALL, heuristics=bool(seed % 2), solver=HIGHS if seed % 5 == 0 else ONE)


def test_contiguous_is_what_no_path_comes_back_to() -> None:
    """`is_contiguous` against all pairs of paths, on random placements."""
    seen = {True: 0, False: 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        problem = random_pipeline_problem(rng)
        placement = rng.integers(0, problem.n_devices, problem.n_ops).astype(np.int32)
        expected = not paths_come_back(problem, placement)
        assert is_contiguous(problem, placement) == expected, seed
        seen[expected] += 1
    assert min(seen.values()) >= 20


def test_contiguous_by_hand() -> None:
    """In a -> b -> c, a and c share a device only if b is there too; of two alike ops a free split is better."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 0.0), (1, 2, 0.0)])
    problem = pg.Problem.from_times(graph, np.array([[1.0], [2.0], [1.0]]) @ np.ones((1, 2)), link_bytes_per_s=1.0)
    free, kept = (mip(problem, objective="max_load", contiguous=one, solver=ONE) for one in (False, True))
    assert (free.objective, kept.objective) == (2.0, 3.0)
    assert (free.status, kept.status) == ("optimal", "optimal")


def test_gpipe_load_by_hand() -> None:
    """Forward 3, 1 and backward 1, 3 s, held together in pairs: one load of 4 s, but GPipe waits 3 + 3 s."""
    graph = pg.OpGraph.build(
        ["f", "g", "gb", "fb"], [(0, 1, 0.0), (1, 2, 0.0), (2, 3, 0.0)], is_backward=[False, False, True, True]
    )
    problem = pg.Problem.from_times(
        graph, np.array([[3.0], [1.0], [3.0], [1.0]]) @ np.ones((1, 2)), link_bytes_per_s=1.0
    )
    assert mip(problem, objective="max_load", solver=ONE).objective == 4.0
    gpipe = mip(problem, objective="gpipe_load", solver=ONE)
    assert (gpipe.objective, gpipe.status) == (6.0, "optimal")
    assert mip(problem, objective="gpipe_load", contiguous=True, solver=ONE).objective == 6.0


def test_memory_that_is_no_whole_number() -> None:
    """0.1 + 0.2 bytes are more than 0.3 bytes in floating point: that placement is not the answer."""
    problem = pg.Problem.from_times(
        pg.OpGraph.build(["a", "b", "c"], []),
        [[1.0, 3.0], [1.0, 3.0], [5.0, 5.0]],
        op_memory_bytes=[0.1, 0.2, 0.3],
        device_memory_bytes=[0.3, 1.0],
    )
    for solver in (ONE, HIGHS):
        assert mip(problem, objective="max_load", solver=solver).objective == 6.0


@pytest.mark.parametrize("solver", [ONE, HIGHS], ids=["cp_sat", "highs"])
def test_memory_is_a_row(solver: Solver) -> None:
    """Thirteen ops of 2 bytes do not fit on three devices of 9 bytes: proven, not tried one by one."""
    problem = pg.Problem.from_times(
        pg.OpGraph.build([f"op{i}" for i in range(13)], []),
        np.ones((13, 3)),
        op_memory_bytes=np.full(13, 2.0),
        device_memory_bytes=9.0,
    )
    answer = solve_load(problem, solver, Deadline(5.0), start=None)
    assert (answer.op_device, answer.proven) == (None, True)


@pytest.mark.parametrize("n", range(2, 7))
def test_like_devices_are_all_used(n: int) -> None:
    """As many alike ops as alike devices: each gets one, in the only order of devices that is looked at."""
    problem = pg.Problem.from_times(pg.OpGraph.build([f"op{i}" for i in range(n)], []), np.ones((n, n)))
    for contiguous in (False, True):
        answer = solve_load(problem, ONE, Deadline(), start=None, contiguous=contiguous)
        assert answer.op_device is not None
        assert answer.op_device.tolist() == list(range(n))


def test_a_start_is_handed_over_in_the_order_of_like_devices() -> None:
    """The hint satisfies all rows on where groups are, whatever the numbers of the start's devices."""
    problem = pg.Problem.from_times(pg.OpGraph.build([f"op{i}" for i in range(6)], []), np.ones((6, 4)))
    for start in ([3, 3, 1, 2, 0, 0], [2, 2, 2, 2, 2, 2], [1, 3, 1, 3, 0, 2]):
        known = np.array(start, dtype=np.int32)
        model, _ = _model(problem, known, Deadline(), contiguous=False, gpipe=False, transfers=True)
        hint, checked = model.program.hint, 0
        for row in model.program.rows:
            if all(v in hint for v in row.variables):
                total = sum(c * hint[v] for c, v in zip(row.coefficients, row.variables, strict=True))
                assert total >= row.least
                checked += len(row.variables) > 0
        assert checked > 12


def test_published_contiguous(published: Published) -> None:
    """BERT-24: the contiguous optimum is that over chains of ideals, and it is proven."""
    problem = published.problem("throughput-inputs/LayerGraphs/bert24_inference")
    result = mip(problem, objective="max_load", contiguous=True, solver=Solver(time_limit_s=60.0, workers=2))
    assert result.status == "optimal"
    assert result.objective == pytest.approx(dp(problem).objective, rel=1e-6)
    assert result.lower_bound <= result.objective


def test_published_free(published: Published) -> None:
    """BERT-24 in training: 39.7895388 ms is the least load of all placements, below that of any pipeline."""
    problem = published.problem("throughput-inputs/LayerGraphs/bert24_training")
    result = mip(problem, objective="max_load", solver=Solver(time_limit_s=60.0, workers=2))
    assert result.status == "optimal"
    assert result.objective * 1e3 == pytest.approx(39.7895388, rel=1e-6)
    assert result.objective < dp(problem).objective
