"""transfer on toys: what is learned from and tested on, files, records that validate, going on, refusal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import family as family_module
from experiments import transfer, validate
from experiments.family import Family
from experiments.grid import TrialGrid
from experiments.record import read
from experiments.table import TableRow
from placement_gym.errors import InvalidOption

TINY = [
    "family.weights={layered: 1, expression: 1, moe: 0, gpt: 0, bert: 0, t5: 0, random_dag: 0}",
    "family.min_ops=8",
    "family.max_ops=24",
    "training.problems=2",
    "training.n_devices=[2, 3]",
    "training.config.imitation_updates=1",
    "held_out.problems=1",
    "held_out.n_devices=[2, 4]",
    "zero_shot.samples=8",
    "zero_shot.search={simulator_calls: 12, free: 4, batch: 4}",
    "env.num_envs=4",
    "agent.config.width=8",
    "agent.config.n_layers=1",
    "baseline.critical_path.n_tries=2",
    "baseline.simulated_annealing.simulator_calls=100",
    "baseline.simulated_annealing_8000.simulator_calls=200",
    "budget.seconds=null",
    "tracking.wandb=disabled",
]


def _transfer(calls: int, *overrides: str) -> int:
    return transfer.main([*TINY, f"budget.simulator_calls={calls}", *overrides])


def _records(run: Path) -> list[tuple[str, str]]:
    """(folder, method) of every record."""
    return [(str(at.file.parent.relative_to(run)), at.record.method) for at in read(run)]


def test_a_policy_is_trained_and_used_on_graphs_that_it_has_not_seen(
    workbench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One more device than in training, too; the same command again runs nothing again; all records hold."""
    groups = "fine_tune={groups: ['held-out, 2 devices'], seeds: [3, 4], simulator_calls: 12}"
    fine_tune = [groups, "scratch.simulator_calls=20"]
    assert _transfer(40, *fine_tune) == 0
    out, run = capsys.readouterr().out, workbench / "outputs" / "transfer"
    ways = (
        "zero-shot (greedy)",
        "zero-shot (best of 8)",
        "zero-shot (search, 12 calls)",
        "untrained (search, 12 calls)",
    )
    for word in (*ways, "held-out, 4 devices", "fine-tuned", "from scratch"):
        assert word in out
        assert word in (run / "table.md").read_text()
    rows = [at.record for at in read(run)]
    tuned = [row for row in rows if row.method == "fine-tuned"]
    assert [(row.seed, row.simulator_calls) for row in tuned] == [(3, 12), (4, 12)]
    assert {row.simulator_calls for row in rows if row.method == "from scratch"} == {20}
    assert {row.simulator_calls for row in rows if row.method.startswith("zero-shot")} == {1, 8, 12}
    assert validate.main([]) == 0
    before = _records(run)
    assert _transfer(40, *fine_tune) == 0
    assert _records(run) == before


def test_a_larger_budget_goes_on_with_the_training(workbench: Path) -> None:
    """Only what rests on the weights is done again; the curve has each update once."""
    assert _transfer(20) == 0
    run = workbench / "outputs" / "transfer"
    before = _records(run)
    assert _transfer(40) == 0
    fresh = _records(run)
    for one in before:
        fresh.remove(one)
    assert {method for _, method in fresh} == {
        "zero-shot (greedy)",
        "zero-shot (best of 8)",
        "zero-shot (search, 12 calls)",
    }
    assert len(fresh) == 3 * 3  # all ways on the toy that warms up and on one graph with 2 and with 4 devices


def test_the_summary_is_over_graphs_and_policies() -> None:
    """Two policies, two graphs: mean and deviation of the means 0.7 and 0.9, the worst ratio, the most seconds."""
    grids = {
        seed: {"group": TrialGrid(("a", "b"), ("critical_path", "own"), {**_rows("a", *a), **_rows("b", *b)})}
        for seed, a, b in ((0, (2.0, 1.2), (4.0, 3.2)), (1, (1.0, 0.8), (4.0, 4.0)))
    }
    assert transfer.summary(grids)[1] == [
        ("group", "critical_path", "1.000 ± 0.000", "1.000", "1.00"),
        ("group", "own", "0.800 ± 0.141", "1.000", "4.00"),
    ]
    assert transfer.summary({0: grids[0]})[1][1] == ("group", "own", "0.700", "0.800", "3.20")


def _rows(name: str, critical_path_s: float, own_s: float) -> dict[tuple[str, str], TableRow]:
    """Two results on a graph; one that takes as long to find as it is."""
    about: dict[str, Any] = {"lower_bound_s": 0.0, "simulator_calls": 1, "status": "feasible", "is_baseline": False}
    values = {"critical_path": (critical_path_s, 1.0), "own": (own_s, own_s)}
    return {
        (name, method): TableRow(method=method, objective="makespan", objective_s=value, seconds=seconds, **about)
        for method, (value, seconds) in values.items()
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=[]", "seeds is empty"),
        ("env.priority=selection", "evaluated without an order; expected none"),
        ("held_out.first_seed=1", "the seeds below are trained on"),
        ("+family.weights.layred=1", "unknown kind of graph 'layred'"),
        ("~baseline.critical_path", "lacks critical_path"),
    ],
)
def test_mistakes_are_one_line(
    override: str, message: str, workbench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with exit code 1."""
    assert _transfer(10, override) == 1
    assert message in capsys.readouterr().err
    assert workbench.exists()


def test_other_hyper_parameters_or_problems_do_not_go_on(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder's policy stays what it is."""
    assert _transfer(10) == 0
    checkpoint = (workbench / "outputs" / "transfer" / "seed-0" / "checkpoint.pt").read_bytes()
    for override, message in (
        ("training.config.guided_share=0.75", "afresh"),
        ("training.problems=3", "another problem"),
    ):
        assert _transfer(20, override) == 1
        assert message in capsys.readouterr().err
    assert (workbench / "outputs" / "transfer" / "seed-0" / "checkpoint.pt").read_bytes() == checkpoint


def test_a_family_draws_unlike_problems_of_the_size_that_is_asked_for() -> None:
    """Same seed, same problem; other seeds, other graphs; transfers are charged 4 times their producer's work."""
    family = Family(weights={"expression": 2.0, "layered": 1.0}, min_ops=20, max_ops=160)
    problems = [family.draw(seed, 3) for seed in range(8)]
    assert [family.draw(seed, 3).fingerprint for seed in range(8)] == [problem.fingerprint for problem in problems]
    assert len({problem.fingerprint for problem in problems}) == 8
    assert all(20 <= problem.n_ops <= 160 and problem.n_devices == 3 for problem in problems)
    programs = [problem for problem in problems if "-" in problem.name]
    assert programs
    assert Family(weights={"gpt": 1.0}, max_ops=160).draw(0, 3).name == "gpt-0"
    for problem in programs:
        graph = problem.graph
        assert np.allclose(graph.edge_bytes, 4 * graph.op_flops[graph.edge_src])
        assert np.allclose(problem.op_time_s, graph.op_flops[:, None] / 1e10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"gpt": -1.0}}, "expected numbers >= 0"),
        ({"weights": {}}, "one of them > 0"),
        ({"min_ops": 9, "max_ops": 8}, "expected 1 to max_ops"),
    ],
)
def test_a_family_that_cannot_be_drawn_from_is_refused(options: dict[str, Any], message: str) -> None:
    """When it is made."""
    with pytest.raises(InvalidOption, match=message):
        Family(**options)


def test_a_family_without_graphs_of_that_size_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression of one op, cut into blocks, has more than one."""
    monkeypatch.setattr(family_module, "TRIES", 5)
    with pytest.raises(InvalidOption, match="none of 5 graphs has 1 to 1 ops"):
        Family(weights={"expression": 1.0}, min_ops=1, max_ops=1).draw(0, 2)
