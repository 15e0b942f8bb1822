"""brute_force: every objective against mip, what it refuses, and what an interruption leaves."""

from typing import Any, Literal

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InfeasiblePlacement, InvalidOption
from placement_gym.exact import Solver, brute_force, dp, mip
from placement_gym.result import Evaluator

LOADS: tuple[Literal["max_load", "gpipe_load"], ...] = ("max_load", "gpipe_load")


def independent(n_ops: int, n_devices: int = 2) -> pg.Problem:
    """Ops without edges, one second each."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(n_ops)], [])
    return pg.Problem.from_times(graph, np.ones((n_ops, n_devices)), link_bytes_per_s=1.0, name="many")


@pytest.mark.parametrize(
    ("n_ops", "n_devices", "said"),
    [(20, 2, "1.05e.06 placements"), (600, 4, "1e361 placements"), (3000, 8, "1e2709 placements")],
)
def test_too_many_placements_are_refused_whatever_their_number(n_ops: int, n_devices: int, said: str) -> None:
    """2 ** 20 is above a million; 4 ** 600 is above what a float holds."""
    with pytest.raises(InvalidOption, match=f"has {said}; brute force is limited to 1000000"):
        brute_force(independent(n_ops, n_devices))


def test_an_interruption_leaves_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one of two chunks there is a placement, before the first there is none."""
    real, calls = Evaluator.weigh, [0]

    def interrupted(after: int) -> None:
        def weigh(self: Evaluator, op_devices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            calls[0] += 1
            if calls[0] > after:
                raise KeyboardInterrupt
            return real(self, op_devices)

        calls[0] = 0
        monkeypatch.setattr(Evaluator, "weigh", weigh)

    interrupted(1)
    result = brute_force(independent(13))
    assert (result.status, result.objective, result.interrupted) == ("limit_reached", 7.0, True)
    assert result.lower_bound == pytest.approx(6.5)
    assert result.simulator_calls == 4096
    interrupted(0)
    with pytest.raises(KeyboardInterrupt):
        brute_force(independent(13))


def load_problem(seed: int) -> pg.Problem:
    """Four ops with a group and a backward op, on accelerators and perhaps a CPU, some with little memory."""
    rng = np.random.default_rng(seed)
    n_devices = int(rng.integers(2, 4))
    graph = pg.OpGraph.build(
        [f"op{i}" for i in range(4)],
        [(a, b, float(rng.exponential(0.3))) for a in range(4) for b in range(a + 1, 4) if rng.random() < 0.5],
        colocation=[0, -1, -1, 0] if seed % 3 == 0 else -1,
        is_backward=[False, False, False, True] if seed % 2 else False,
    )
    return pg.Problem.from_times(
        graph,
        rng.exponential(1.0, (4, n_devices)),
        link_bytes_per_s=1.0,
        op_memory_bytes=rng.integers(0, 3, 4),
        device_memory_bytes=4.0,
        device_kinds=["accelerator"] * (n_devices - 1) + [str(rng.choice(["accelerator", "cpu"]))],
    )


@pytest.mark.parametrize("seed", range(12))
def test_every_objective_means_what_it_means_for_mip(seed: int) -> None:
    """Brute force's optimum is that of `mip`, of the same kind of placements; no bound is above the best of all."""
    pytest.importorskip("ortools")
    problem = load_problem(seed)
    best_of_all = {objective: brute_force(problem, objective=objective).objective for objective in LOADS}
    best_of_all["latency"] = brute_force(problem, objective="latency", subgraphs=2).objective
    cases: list[dict[str, Any]] = [{"objective": objective} for objective in ("makespan", *LOADS, "latency")]
    for options in [*cases, {"objective": "latency", "subgraphs": 2}]:
        tried, solved = brute_force(problem, **options), mip(problem, solver=Solver(workers=1), **options)
        assert (tried.status, tried.objective_name, tried.restricted_to) == (
            solved.status,
            solved.objective_name,
            solved.restricted_to,
        )
        assert tried.status == "optimal"
        assert tried.class_lower_bound == tried.objective == pytest.approx(solved.objective, rel=2e-6)
        best_of_all["makespan"] = brute_force(problem).objective
        for result in (tried, solved):
            assert result.lower_bound <= best_of_all[result.objective_name] * (1 + 1e-9)
            assert result.lower_bound <= result.class_lower_bound <= tried.objective * (1 + 1e-9)
    for result in (mip(problem, objective="max_load", contiguous=True, solver=Solver(workers=1)), dp(problem)):
        assert result.status == "optimal"
        assert result.class_lower_bound == pytest.approx(result.objective, rel=2e-6)
        assert result.lower_bound <= best_of_all["max_load"] * (1 + 1e-9)


def test_options_are_checked() -> None:
    """An unknown objective, subgraphs of another objective, too many of them, too few for any placement."""
    with pytest.raises(InvalidOption, match=r"unknown objective 'speed'.*max_load"):
        brute_force(independent(3), objective="speed")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="subgraphs is 2; expected >= 1, and 1 unless the objective is latency"):
        brute_force(independent(3), subgraphs=2)
    with pytest.raises(InvalidOption, match=r"has 4.1e.03 placements"):
        brute_force(independent(3), objective="latency", subgraphs=8, limit=100)
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 1.0), (1, 2, 1.0)])
    times = [[1.0, np.inf], [np.inf, 1.0], [1.0, np.inf]]
    back_and_forth = pg.Problem.from_times(graph, times, link_bytes_per_s=1.0)
    with pytest.raises(InfeasiblePlacement, match="none of the 1 placements of 'problem' is feasible"):
        brute_force(back_and_forth, objective="latency")
    assert brute_force(back_and_forth, objective="latency", subgraphs=2).op_subgraph is not None
