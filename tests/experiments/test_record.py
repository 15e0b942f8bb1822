"""Records: written whole, read back equal, errors that name file and line."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.baselines import effort_of
from experiments.record import Effort, Record, append, read
from experiments.table import row_of_record
from placement_gym.errors import InvalidFile, InvalidRule
from placement_gym.exact import dp
from placement_gym.ranks import b_level_s
from placement_gym.rule import Rule, resolve_rule
from placement_gym.simulator import simulate
from placement_gym.workloads import layered

PROBLEM = layered(n_ops=12, n_devices=3)
OP_DEVICE = np.arange(12, dtype=np.int32) % 3


def _record(method: str = "heft", rule: str | Rule = "physical") -> Record:
    priority = b_level_s(PROBLEM, PROBLEM.op_time_s.mean(axis=1), np.zeros(PROBLEM.graph.n_edges))
    by_priority = resolve_rule(rule).queue == "priority"
    schedule = simulate(PROBLEM, OP_DEVICE, rule=rule, priority=priority if by_priority else None)
    effort = Effort(lower_bound_s=0.001, simulator_calls=7, seconds=0.25, seed=3)
    return Record.of(
        schedule, verb="solve", method=method, effort=effort, problem_file="problem.npz", config={"rule": "physical"}
    )


def test_a_record_reads_back_equal(tmp_path: Path) -> None:
    """Floats, rule, ranks, configuration and versions survive the file."""
    record = _record(rule=Rule(queue="priority", contention="link"))
    append(tmp_path / "records.jsonl", record)
    (row,) = read(tmp_path / "records.jsonl")
    assert row.record == record
    assert row.record.resolve_rule() == Rule(queue="priority", contention="link")
    assert row.record.priority is not None
    assert row.where == f"{tmp_path / 'records.jsonl'}:1"
    assert set(record.versions) >= {"python", "numpy", "torch", "placement-gym"}
    assert record.commit


def test_a_record_says_of_what_kind_of_placements_its_status_speaks(tmp_path: Path) -> None:
    """The bound of pipelines stands beside that of all placements; an older row, which has neither, is read."""
    result, path = dp(PROBLEM), tmp_path / "records.jsonl"
    about: dict[str, Any] = {"verb": "solve", "problem_file": "problem.npz", "config": {}}
    made = Record.of(result.schedule, method="dp", effort=effort_of(result), **about)
    append(path, made)
    row = json.loads(path.read_text())
    assert (row["restricted_to"], row["status"]) == ("pipelines", "optimal")
    assert row["lower_bound_s"] < row["class_lower_bound_s"] == row["objective_s"]
    assert (row_of_record(made).restricted_to, row_of_record(made).lower_bound_s) == ("pipelines", made.objective_s)
    assert row_of_record(made, by_makespan=True).restricted_to is None
    for name in ("restricted_to", "class_lower_bound_s"):
        row.pop(name)
    path.write_text(json.dumps(row) + "\n")
    (older,) = read(path)
    assert older.record == replace(made, restricted_to=None, class_lower_bound_s=None)


def test_the_rule_of_a_record() -> None:
    """An older record has single events; a contention rule that nobody registered is refused by name."""
    record = _record()
    older = {name: value for name, value in record.rule.items() if name != "instant"}
    assert replace(record, rule=older).resolve_rule() == Rule(instant="event")
    with pytest.raises(InvalidRule, match=r"unknown contention 'os\.system'; known: egress"):
        replace(record, rule={**record.rule, "contention": "os.system"}).resolve_rule()


def test_records_of_a_folder_are_found_below_it(tmp_path: Path) -> None:
    """Sweeps write one folder per run."""
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        append(tmp_path / name / "records.jsonl", _record(name))
    assert [row.record.method for row in read(tmp_path)] == ["0", "1"]


def test_a_row_is_appended_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash while writing leaves the rows of before, and no half one."""
    path = tmp_path / "records.jsonl"
    append(path, _record("first"))
    monkeypatch.setattr("placement_gym.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InvalidFile, match="disk full"):
        append(path, _record("second"))
    assert [row.record.method for row in read(path)] == ["first"]


def test_writers_at_once_lose_no_row(tmp_path: Path) -> None:
    """Appending is one at a time."""
    path = tmp_path / "records.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: append(path, _record(f"m{i}")), range(20)))
    assert {row.record.method for row in read(path)} == {f"m{i}" for i in range(20)}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda _: "[]\n", "not a row of format"),
        (lambda text: text.replace('"seed"', '"seeed"'), "lacks field seed"),
        (
            lambda text: text.replace('"op_device": [0', '"op_device": ["zero"'),
            r"op_device is \['zero', .* device numbers",
        ),
        (lambda text: re.sub('"makespan_s": [^,]*', '"makespan_s": null', text), "'makespan_s': None, .* seconds"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, damage: Callable[[str], str], said: str) -> None:
    """The second line is damaged; the message says so."""
    path = tmp_path / "records.jsonl"
    append(path, _record())
    text = path.read_text()
    path.write_text(text + damage(text))
    with pytest.raises(InvalidFile, match=said) as caught:
        read(path)
    assert f"{path}:2:" in str(caught.value)


def test_a_record_of_another_problem_is_refused(tmp_path: Path) -> None:
    """The problem beside the records must have the recorded fingerprint."""
    append(tmp_path / "records.jsonl", _record())
    layered(n_ops=13, n_devices=3).save(tmp_path / "problem.npz")
    (row,) = read(tmp_path / "records.jsonl")
    with pytest.raises(InvalidFile, match="fingerprint"):
        row.load_problem()


def test_a_row_is_plain_json(tmp_path: Path) -> None:
    """Any tool can read it."""
    append(tmp_path / "records.jsonl", _record())
    row = json.loads((tmp_path / "records.jsonl").read_text())
    assert row["format"] == "placement_gym.record.v2"
    assert row["op_device"] == OP_DEVICE.tolist()
