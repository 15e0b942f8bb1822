"""Tracking: documented names only, JSONL that survives a kill, curves that can be rewound."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.folder import RunFolder
from experiments.table import TableRow
from experiments.tracking import CALLS, METRICS, Tracker, TrackingConfig, read_metrics, rewind_metrics
from placement_gym.errors import InvalidFile, InvalidOption


def _tracker(path: Path) -> Tracker:
    return Tracker(RunFolder.at(path), {}, TrackingConfig(wandb="disabled"), "test")


def test_an_undocumented_metric_is_refused(tmp_path: Path) -> None:
    """The message lists the known ones."""
    with _tracker(tmp_path) as tracker, pytest.raises(InvalidOption, match=r"train/best_makespan_s"):
        tracker.log({"train/nonsense": 1.0})


def test_every_metric_belongs_to_a_family() -> None:
    """train/, eval/, baseline/ or instance/."""
    assert {name.partition("/")[0] for name in METRICS} == {"train", "eval", "baseline", "instance"}
    assert all(METRICS.values())


def test_a_row_cut_off_by_a_kill_is_not_read(tmp_path: Path) -> None:
    """Whole rows before it are."""
    with _tracker(tmp_path) as tracker:
        tracker.log({CALLS: 64, "train/best_makespan_s": 0.5})
    path = tracker.folder.metrics
    path.write_text(path.read_text() + '{"train/simul')
    assert read_metrics(path) == [{CALLS: 64.0, "train/best_makespan_s": 0.5}]


def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    """A whole line that is no JSON is damage, not a kill."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(InvalidFile, match=r"metrics\.jsonl:2"):
        read_metrics(path)


def test_rewinding_drops_what_the_resumed_run_makes_again(tmp_path: Path) -> None:
    """Updates after the checkpoint."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({CALLS: calls}) + "\n" for calls in (64, 128, 192)))
    rewind_metrics(path, 128)
    assert read_metrics(path) == [{CALLS: 64}, {CALLS: 128}]


def test_results_of_instances_are_summary_values_and_a_table(tmp_path: Path) -> None:
    """Under their documented names; a method that found nothing is in the table only."""
    logged: dict[str, Any] = {}
    with _tracker(tmp_path) as tracker:
        tracker._run = SimpleNamespace(summary={}, log=logged.update, finish=lambda **_: None)
        found = TableRow(
            method="dp",
            objective="max_load",
            objective_s=0.5,
            lower_bound_s=0.5,
            simulator_calls=1,
            seconds=1.0,
            status="optimal",
            is_baseline=True,
        )
        nothing = replace(found, method="metis", objective_s=math.inf, status="infeasible")
        tracker.instances({("layers/bert", "dp"): found, ("layers/bert", "metis"): nothing})
        assert tracker._run.summary == {"instance/layers/bert/dp/max_load_s": 0.5}
    assert [row[-1] for row in logged["instance/table"].data] == ["optimal", "infeasible"]
    assert "instance/table" in METRICS
