"""The constraint programme for the makespan: equal to brute force, and its bound never above it."""

import numpy as np
import pytest
from strategies import ALL_RULES, random_placement, random_problem

import placement_gym as pg
from placement_gym.errors import InvalidOption
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.device_classes import DeviceClasses
from placement_gym.exact.makespan.grid import Grid
from placement_gym.exact.makespan.model import OpModel
from placement_gym.exact.makespan.ports import add_port_rules
from placement_gym.exact.makespan.program import Incumbent, solve_makespan
from placement_gym.exact.makespan.transfers import TransferModel
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.result import Answer, Evaluator
from placement_gym.rule import PRESETS

pytest.importorskip("ortools")
# A priority queue needs priorities, which brute force has none of.
RULES = [rule for rule in ALL_RULES if rule.queue != "priority"]


def small_problem(seed: int) -> pg.Problem:
    """Up to 6 ops on 2 or 3 devices: whole numbers and not, unsupported ops, several slots."""
    rng = np.random.default_rng(seed)
    return random_problem(
        rng,
        n_ops=int(rng.integers(3, 7)),
        n_devices=int(rng.integers(2, 4)),
        edge_share=0.5,
        whole_numbers=seed % 2 == 0,
        unsupported=seed % 3 == 0,
    )


@pytest.fixture(autouse=True)
def unpolished(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programme finds the optima itself: annealing alone would hide placements that it wrongly rules out."""
    monkeypatch.setattr(Incumbent, "polish", lambda *_: None)


def check(problem: pg.Problem, rule: pg.Rule, time_limit_s: float = 5.0) -> Answer:
    """Solves, and compares with brute force."""
    optimum = pg.exact.brute_force(problem, rule=rule).objective
    evaluator = Evaluator("makespan", problem, rule)
    solved = solve_makespan(evaluator, Solver(workers=1), Deadline(time_limit_s), start=None)
    assert solved.lower_bound <= optimum * (1 + 1e-9)
    if solved.op_device is not None:
        pg.Placement(solved.op_device).check(problem)
        makespan = evaluator.weigh(solved.op_device[None, :])[0][0]
        assert makespan >= optimum
        if solved.proven:
            assert makespan == pytest.approx(optimum, rel=1e-6, abs=1e-12)
    return solved


@pytest.mark.parametrize("rule", sorted(PRESETS))
@pytest.mark.parametrize("seed", range(5))
def test_presets_equal_brute_force(rule: str, seed: int) -> None:
    """Under every preset, small problems are proven, with brute force's optimum; no bound is above it."""
    assert check(small_problem(seed), PRESETS[rule]).proven


@pytest.mark.parametrize("i", range(len(RULES)))
def test_all_rules_equal_brute_force(i: int) -> None:
    """Under every rule that needs no priorities, what is proven is brute force's optimum; no bound is above it."""
    check(small_problem(1000 + i), RULES[i])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2100))
def test_many_problems_equal_brute_force(seed: int) -> None:
    """As above, on many problems and rules."""
    rng = np.random.default_rng(seed)
    for rule in [*PRESETS.values(), *(RULES[i] for i in rng.integers(0, len(RULES), 3))]:
        check(small_problem(seed), rule)


@pytest.mark.parametrize("i", range(len(PRESETS) + len(RULES)))
def test_every_placement_is_allowed_its_simulated_schedule(i: int) -> None:
    """Random placements, fixed, have solutions of at most their simulated makespan: no constraint rules one out.

    Without ties, each is within 1e-6 of it as well: nothing else than ties is left free.
    """
    from ortools.sat.python import cp_model

    rule = [*PRESETS.values(), *RULES][i]
    for seed in range(100 * i, 100 * i + 2):
        problem = small_problem(seed)
        if any(len(group) > 1 for group in DeviceClasses.of(problem).members):
            continue  # alike devices are used in one order only
        placement = random_placement(np.random.default_rng(seed), problem)
        makespan_s = pg.simulate(problem, placement, rule=rule).makespan_s
        if makespan_s == 0:
            continue
        grid = Grid.of(problem, rule, makespan_s)
        ops = OpModel(problem, rule, grid, int(makespan_s / grid.unit_s), Deadline(), cp_model)
        assert ops.feasible
        add_port_rules(TransferModel(ops), set(range(problem.graph.n_edges)))
        for u, d in enumerate(ops.groups.group_device(placement).tolist()):
            ops.model.add(ops.place[u][d] == 1)
        ops.model.minimize(ops.makespan)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        assert solver.solve(ops.model) == cp_model.OPTIMAL, seed
        if seed % 2 and rule.queue == "fifo" and rule.transfers != "multicast":
            assert solver.objective_value * grid.unit_s >= makespan_s * (1 - 1e-6), seed


@pytest.mark.parametrize("seed", range(6))
def test_memory_and_colocation(seed: int) -> None:
    """With tight memory and a colocation group the optimum is brute force's, and the placement feasible."""
    rng, base = np.random.default_rng(seed), small_problem(seed + 50)
    ends = (base.graph.edge_src.tolist(), base.graph.edge_dst.tolist(), base.graph.edge_bytes.tolist())
    groups = np.full(base.n_ops, -1)
    groups[[0, base.n_ops - 1]] = 0
    graph = pg.OpGraph.build(base.graph.op_names, list(zip(*ends, strict=True)), colocation=groups)
    times = rng.exponential(2.0, base.op_time_s.shape)
    claims = rng.integers(1, 4, base.n_ops).astype(float)
    # What a device holds, the claims of a placement just fill or do not: equality is allowed.
    problem = pg.Problem.from_times(
        graph,
        times,
        link_bytes_per_s=1.0,
        device_memory_bytes=np.ceil(claims.sum() / base.n_devices) + claims[[0, -1]].sum() - 1,
        op_memory_bytes=claims,
    )
    assert check(problem, PRESETS["physical"]).proven
    assert check(problem, PRESETS["giph"]).proven


def test_no_feasible_placement_is_proven() -> None:
    """Three ops of two bytes do not fit on two devices of three bytes: no placement, and proven so."""
    graph = pg.OpGraph.build(["a", "b", "c"], [])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=[2.0, 2.0, 2.0])
    solved = solve_makespan(Evaluator("m", problem, "physical"), Solver(workers=1), Deadline(5.0), start=None)
    assert (solved.op_device, solved.lower_bound, solved.proven) == (None, 0.0, True)


@pytest.mark.parametrize("name", sorted(pg.workloads.TOYS))
def test_toys_are_solved(name: str) -> None:
    """The optimum written beside each toy is found and proven."""
    toy = pg.workloads.TOYS[name]()
    evaluator = Evaluator("m", toy.problem, toy.rule)
    solved = solve_makespan(evaluator, Solver(workers=2), Deadline(10.0), start=None)
    assert solved.proven
    assert solved.op_device is not None
    assert evaluator.weigh(solved.op_device[None, :])[0][0] == pytest.approx(toy.optimum_s, rel=1e-6)


def test_start_is_kept_or_bettered_and_the_gap_ends_the_search() -> None:
    """With no time for a search the start comes back; with a gap of a half it is good enough at once."""
    problem = pg.workloads.layered(n_ops=20, seed=1, width=4)
    start = pg.baselines.heft(problem).placement.op_device
    evaluator = Evaluator("m", problem, "physical")
    begun = evaluator.weigh(start[None, :])[0][0]
    hurried = solve_makespan(evaluator, Solver(workers=1), Deadline(1e-9), start=start)
    assert hurried.op_device is not None
    assert (hurried.op_device == start).all()
    assert not hurried.proven
    rough = solve_makespan(evaluator, Solver(gap=0.5, workers=2), Deadline(20.0), start=start)
    assert rough.op_device is not None
    assert rough.lower_bound >= 0.5 * evaluator.weigh(rough.op_device[None, :])[0][0]
    assert evaluator.weigh(rough.op_device[None, :])[0][0] <= begun


@pytest.mark.parametrize("rule", ["physical", "giph", "link"])
def test_twenty_ops_on_four_devices_are_proven(rule: str) -> None:
    """A layered graph of 20 ops is proven optimal; annealing is not better."""
    problem = pg.workloads.layered(n_ops=20, seed=2, width=4)
    annealed = pg.baselines.simulated_annealing(problem, rule=rule, simulator_calls=5000)
    evaluator = Evaluator("m", problem, rule)
    solved = solve_makespan(evaluator, Solver(workers=2), Deadline(60.0), start=annealed.placement.op_device)
    assert solved.proven
    assert solved.lower_bound <= annealed.objective


def test_exchanging_alike_devices_changes_no_makespan() -> None:
    """Placements that differ by an exchange of alike devices simulate alike under every rule."""
    problem, rng = pg.workloads.layered(n_ops=20, seed=0, n_devices=3), np.random.default_rng(0)
    assert DeviceClasses.of(problem).members == ((0, 1, 2),)
    placements = rng.integers(0, 3, (20, 20)).astype(np.int32)
    swapped = np.array([2, 0, 1], dtype=np.int32)[placements]
    for rule in RULES:
        evaluator = Evaluator("m", problem, rule)
        assert (evaluator.weigh(placements)[0] == evaluator.weigh(swapped)[0]).all()


def test_other_solvers_are_refused() -> None:
    """HiGHS has no intervals."""
    with pytest.raises(InvalidOption, match="'highs' lacks; expected cp_sat"):
        solve_makespan(Evaluator("m", small_problem(0), "physical"), Solver(name="highs"), Deadline(), start=None)
