"""solve, validate and report, one after the other on one small workload."""

import json
import re
from pathlib import Path

import pytest

from experiments import report, solve, validate
from experiments.record import read

SMALL = ["workload=layered", "workload.n_ops=12", "workload.n_devices=2", "tracking.wandb=disabled"]


def _solve(*overrides: str) -> int:
    return solve.main([*SMALL, *overrides])


def test_solve_writes_a_record_per_baseline_that_validates(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every baseline's placement gives the recorded makespan again."""
    assert _solve("baseline=[heft,single_device,simulated_annealing]") == 0
    assert "simulated_annealing" in capsys.readouterr().out
    rows = read(workbench / "outputs")
    assert [row.record.method for row in rows] == ["heft", "single_device", "simulated_annealing"]
    assert rows[2].record.seed == 0
    assert rows[0].record.config["rule"] == "physical"
    assert validate.main([]) == 0
    assert "3 of 3 records in 1 files hold" in capsys.readouterr().out


def test_an_option_of_a_baseline_is_overridden_by_name(workbench: Path) -> None:
    """baseline.<name>.<option> is the function's own argument."""
    assert _solve("baseline=random_search", "baseline.random_search.simulator_calls=30", "seed=5") == 0
    (row,) = read(workbench / "outputs")
    assert row.record.seed == 5
    assert 30 <= row.record.simulator_calls <= 31


def test_a_rule_may_be_spelt_out(workbench: Path) -> None:
    """Besides a preset's name, the rule is a mapping of options."""
    assert _solve("baseline=heft", "rule={transfers: edge, contention: link}") == 0
    (row,) = read(workbench / "outputs")
    assert row.record.rule["contention"] == "link"
    assert validate.main([]) == 0


def _tamper(workbench: Path, **changes: object) -> Path:
    assert _solve("baseline=heft") == 0
    (file,) = (workbench / "outputs").rglob("records.jsonl")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}) + "\n")
    return file


def test_validate_finds_a_tampered_makespan(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A makespan that the placement does not give ends with exit code 1 and names the row."""
    file = _tamper(workbench, makespan_s=1e-9)
    capsys.readouterr()
    assert validate.main([]) == 1
    captured = capsys.readouterr()
    assert f"{file.relative_to(workbench)}:1: heft on " in captured.err
    assert "makespan_s is recorded as 1e-09" in captured.err
    assert "0 of 1 records" in captured.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"op_device": [9] * 12}, "expected 0..1"),
        ({"lower_bound_s": 1e9}, "lower_bound_s"),
        ({"problem_file": "gone.npz"}, "no such file"),
        ({"fingerprint": "0" * 64}, "fingerprint"),
        ({"rule": {"queue": "random"}}, "unknown queue"),
    ],
)
def test_validate_finds_any_other_tampering(
    workbench: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: str
) -> None:
    """Placement, bound, problem and rule are all held to the record."""
    _tamper(workbench, **changes)
    assert validate.main([]) == 1
    assert said in capsys.readouterr().err


def test_a_sweep_is_reported_with_mean_and_spread(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-m` runs every combination; the report takes the mean over seeds."""
    assert _solve("-m", "seed=0,1", "baseline=random_search", "baseline.random_search.simulator_calls=10") == 0
    makespans = [row.record.makespan_s for row in read(workbench / "outputs")]
    assert len(makespans) == 2
    assert report.main([]) == 0
    out = (workbench / "outputs/report/report.md").read_text()
    assert f"{sum(makespans) / 2 * 1e3:,.4f}" in out
    assert re.search(r"random_search .*± ", out)
    assert "random_search" in capsys.readouterr().out


def test_a_run_of_a_sweep_that_fails_leaves_the_others(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1, one line says why, and the good run is recorded."""
    assert _solve("-m", "rule=nope,physical", "baseline=heft") == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors == ["solve: error: unknown simulator rule 'nope'; known: giph, link, physical, placeto"]
    assert len(read(workbench / "outputs")) == 1
