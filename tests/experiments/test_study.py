"""study on toys: every trial once, tables, curves, sentences; gone on with after an interrupt."""

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from experiments import study, trial, validate
from experiments.command import FAILED, INTERRUPTED
from experiments.record import RecordedAt, read
from experiments.tracking import CALLS, Tracker, read_metrics
from placement_gym.errors import InvalidOption

OUT = Path("outputs/study")
TOY = "workload: {_target_: placement_gym.workloads.layered, n_ops: %d, n_devices: 2}"
SMALL = [
    f"+workloads.small={{{TOY % 10}, simulator_calls: 48}}",
    f"+workloads.large={{{TOY % 14}, simulator_calls: 64}}",
    "rule=giph",
    "seeds=[0,1]",
    "tracking.wandb=disabled",
]
BASELINE = ["+baseline@methods=[heft]"]
LEARNER = [
    "+env@methods.learner.env=assign",
    "+agent@methods.learner.agent=reinforce",
    "methods.learner.env.num_envs=16",
    "methods.learner.agent.config.width=8",
    "methods.learner.agent.config.n_layers=1",
]
DUAL = [
    "+env@methods.dual.env=select_place",
    "+agent@methods.dual.agent=dual_policy",
    "methods.dual.env.num_envs=4",
    "methods.dual.agent.config.width=8",
    "methods.dual.agent.config.n_layers=1",
    "~workloads.large",
    "seeds=[0]",
]


@pytest.fixture
def begun(workbench: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each trial has been run, by name; nothing is drawn or warmed up."""
    counts: Counter[str] = Counter()
    original = trial.Trial.run

    def counted(self: trial.Trial, *arguments: Any) -> trial.Outcome:
        counts[self.name] += 1
        return original(self, *arguments)

    monkeypatch.setattr(trial.Trial, "run", counted)
    monkeypatch.setattr(study, "save_png", lambda *_: None)
    monkeypatch.setattr(trial.Trial, "warm_up", lambda _: None)
    return counts


def _study(*overrides: str) -> int:
    return study.main([*SMALL, *overrides])


def _interrupt_at_row(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Has the user press Ctrl-C while row `number` of all learning curves is written."""
    original, rows = Tracker.log, Counter[str]()

    def log(self: Tracker, values: Mapping[str, float]) -> None:
        original(self, values)
        rows["all"] += 1
        if rows["all"] == number:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Tracker, "log", log)


def _by_name(rows: list[RecordedAt]) -> dict[tuple[str, str], list[int]]:
    """Placements by (folder, method)."""
    return {(str(row.file.parent.relative_to(OUT)), row.record.method): row.record.op_device for row in rows}


def test_a_study_ends_with_tables_sentences_and_curves(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The baseline runs once per workload, the learner once per seed, with records of the best and the greedy."""
    assert _study(*BASELINE, *LEARNER) == 0
    out = capsys.readouterr().out
    rows = read(OUT)
    assert Counter(row.record.method for row in rows) == {"heft": 2, "learner": 4, "learner (greedy)": 4}
    assert {row.file.parent.relative_to(OUT).as_posix() for row in rows} == {
        f"{workload}/{rest}" for workload in ("small", "large") for rest in ("heft", "learner/seed0", "learner/seed1")
    }
    calls = {(row.file.parent.parts[2], row.record.simulator_calls) for row in rows if row.record.method == "learner"}
    assert calls == {("small", 48), ("large", 64)}
    assert validate.main([]) == 0
    text = (OUT / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Best found (ms): mean ± standard deviation over seeds (least)",
        "## Greedy placement after training (ms)",
        "## Simulator calls (mean)",
        "## Milliseconds per episode, learning included (mean)",
        "## Seconds in all (mean)",
        "## In words",
    ]
    assert re.search(r"\| learner \| \S+ ± \S+ \(\S+\)\S* \| \S+ ± \S+ \(\S+\)\S* \|", text)
    assert "| learner | 48 | 64 |" in text
    for said in ("small: learner (", "large: learner ("):
        assert said in text
        assert said in out
    assert "(lower bound)" in out
    with Image.open(OUT / "sample_efficiency.png") as image:
        assert image.width > 100


def test_a_second_run_runs_nothing(begun: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It shows the same table from the records."""
    assert _study(*BASELINE, *LEARNER) == 0
    before = (OUT / "table.md").read_text()
    assert len(begun) == begun.total() == 6
    capsys.readouterr()
    assert _study(*BASELINE, *LEARNER) == 0
    assert begun.total() == 6
    assert "6 of 6 were recorded before" in capsys.readouterr().out
    assert (OUT / "table.md").read_text() == before


def test_only_what_has_changed_runs_again(begun: Counter[str]) -> None:
    """Another budget concerns the learner, another seed is one more; old records stay valid."""
    argv = [*BASELINE, *LEARNER, "~workloads.large"]
    assert _study(*argv, "seeds=[0]") == 0
    begun.clear()
    for _ in range(2):
        assert _study(*argv, "workloads.small.simulator_calls=32") == 0
    assert begun == {"small  learner seed 0": 1, "small  learner seed 1": 1}
    curve = [row[CALLS] for row in read_metrics(OUT / "small/learner/seed0/metrics.jsonl") if CALLS in row]
    assert curve == [16, 32]
    assert validate.main([]) == 0


def test_a_changed_workload_leaves_the_records_of_the_old_one_valid(begun: Counter[str]) -> None:
    """Its trials lie beside them."""
    assert _study(*BASELINE) == 0
    for _ in range(2):
        assert _study(*BASELINE, "workloads.small.workload.n_ops=11") == 0
    assert begun == {"small  heft": 2, "large  heft": 1}
    assert len(list((OUT / "small").glob("heft-*"))) == 1
    assert validate.main([]) == 0


def test_ctrl_c_keeps_what_is_done_and_the_training_goes_on(
    begun: Counter[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 130; the placements are in the end those of a study that was not interrupted."""
    argv = [*BASELINE, *LEARNER, "~workloads.large"]
    with monkeypatch.context() as patch:
        # Three updates and a row of results of the first training, then one update of the next.
        _interrupt_at_row(patch, 5)
        assert _study(*argv) == INTERRUPTED
    captured = capsys.readouterr()
    assert "2 of 3 are done; the same command goes on" in captured.out
    assert captured.err == "study: interrupted\n"
    assert validate.main([]) == 0
    before = _by_name(read(OUT))
    begun.clear()
    loaded = []
    original = trial.build.load_agent
    monkeypatch.setattr(trial.build, "load_agent", lambda *a: (loaded.append(a[1]), original(*a))[1])
    assert _study(*argv) == 0
    assert begun == {"small  learner seed 1": 1}
    folder = OUT / "small/learner/seed1"
    assert [path.relative_to(Path.cwd()) for path in loaded] == [folder / "checkpoint.pt"]
    assert [row[CALLS] for row in read_metrics(folder / "metrics.jsonl") if CALLS in row] == [16, 32, 48]
    resumed = _by_name(read(OUT))
    assert before.items() <= resumed.items()
    OUT.rename("interrupted")
    assert _study(*argv) == 0
    assert _by_name(read(OUT)) == resumed


def test_an_interrupt_behind_the_last_update_trains_again(begun: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whose budget is spent does not say what was best."""
    with monkeypatch.context() as patch:
        _interrupt_at_row(patch, 3)
        assert _study(*LEARNER, "~workloads.large", "seeds=[0]") == INTERRUPTED
    assert not list(OUT.rglob("records.jsonl"))
    assert _study(*LEARNER, "~workloads.large", "seeds=[0]") == 0
    assert {row.record.simulator_calls for row in read(OUT)} == {48}
    curve = [row[CALLS] for row in read_metrics(OUT / "small/learner/seed0/metrics.jsonl") if CALLS in row]
    assert curve == [16, 32, 48]


def test_what_a_teacher_searched_counts(begun: Counter[str]) -> None:
    """Its simulator calls are part of the learner's budget."""
    annealing = "{_target_: placement_gym.baselines.simulated_annealing, _partial_: true, simulator_calls: 30}"
    assert _study(*DUAL, f"+methods.dual.teacher={annealing}") == 0
    curve = [row[CALLS] for row in read_metrics(OUT / "small/dual/seed0/metrics.jsonl") if CALLS in row]
    assert curve[0] == 31  # and the one that evaluates its placement again
    assert curve[-1] <= 48
    assert {row.record.simulator_calls for row in read(OUT)} == {curve[-1]}


def test_an_order_that_was_learned_is_kept(begun: Counter[str]) -> None:
    """The recorded makespan is the one that training saw, and needs the ranks beside it; nothing runs again."""
    assert _study(*DUAL, "methods.dual.env.priority=selection") == 0
    rows = {at.record.method: at.record for at in read(OUT)}
    curve = read_metrics(OUT / "small/dual/seed0/metrics.jsonl")
    best_s = min(row["train/best_makespan_s"] for row in curve if "train/best_makespan_s" in row)
    assert rows["dual"].makespan_s == pytest.approx(best_s)
    assert rows["dual"].rule["queue"] == "priority"
    assert sorted(rows["dual"].priority or []) == [float(k + 1) for k in range(len(rows["dual"].op_device))]
    assert validate.main([]) == 0
    before = begun.copy()
    assert _study(*DUAL, "methods.dual.env.priority=selection") == 0
    assert begun == before


def test_a_teacher_needs_a_pupil(begun: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Only a dual policy takes one."""
    heft = "{_target_: placement_gym.baselines.heft, _partial_: true}"
    assert _study(*LEARNER, f"+methods.learner.teacher={heft}") == FAILED
    assert "takes no teacher; expected a dual policy" in capsys.readouterr().err


def test_imitation_alone_is_sampled_with_the_whole_budget(begun: Counter[str]) -> None:
    """Training simulates nothing; the best of the samples counts."""
    only = ["methods.dual.agent.config.imitation_updates=4", "+methods.dual.budget.updates=4"]
    assert _study(*DUAL, *only, "+methods.dual.samples=${simulator_calls}") == 0
    rows = read_metrics(OUT / "small/dual/seed0/metrics.jsonl")
    assert [row[CALLS] for row in rows if CALLS in row] == [0, 0, 0, 0, 48]
    by_method = {row.record.method: row.record for row in read(OUT)}
    assert by_method["dual"].simulator_calls == 48
    assert by_method["dual"].makespan_s <= by_method["dual (greedy)"].makespan_s
    assert validate.main([]) == 0


def test_a_method_may_be_like_another(begun: Counter[str]) -> None:
    """Their options differ where the second's section says so, for learners and baselines."""
    like = ["+methods.again={like: learner, budget: {simulator_calls: 16}}", "+methods.thirty={like: search}"]
    search = "{_target_: placement_gym.baselines.random_search, _partial_: true, simulator_calls: 20, seed: ${seed}}"
    more = "+methods.thirty.simulator_calls=30"
    assert _study(*LEARNER, f"+methods.search={search}", *like, more, "~workloads.large", "seeds=[0]") == 0
    calls = {row.record.method: row.record.simulator_calls for row in read(OUT)}
    assert calls == {
        "learner": 48,
        "learner (greedy)": 48,
        "again": 16,
        "again (greedy)": 16,
        "search": 20,
        "thirty": 30,
    }


def test_a_method_may_be_left_out_of_a_workload(begun: Counter[str]) -> None:
    """Its cell says so."""
    assert _study(*BASELINE, "+baseline@methods=[round_robin,heft]", "+only={heft: [large]}") == 0
    assert begun == {"small  round_robin": 1, "large  round_robin": 1, "large  heft": 1}
    assert "| heft | - | " in (OUT / "table.md").read_text()


def test_a_file_that_is_missing_is_named_with_its_option(
    begun: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything runs."""
    published = "{_target_: placement_gym.workloads.read_doppler, path: nowhere/chain.txt}"
    assert _study(*BASELINE, f"+workloads.chain={{simulator_calls: 10, workload: {published}}}") == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere/chain.txt: no such file" in line
    assert "(set workloads.chain.workload.path=<file>)" in line
    assert not begun


def _config(**changes: object) -> DictConfig:
    """A study's configuration as far as its names go."""
    learner = {"env": {}, "agent": {}}
    whole = {
        "workloads": {"small": {"workload": {}, "simulator_calls": 10}},
        "methods": {"heft": {"_target_": "heft"}, "learner": learner},
        "seeds": [0],
        "compared": None,
        "unit": "s",
    }
    return OmegaConf.create({**whole, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "no methods are configured"),
        ({"workloads": None}, "no workloads are configured"),
        ({"seeds": []}, "no seeds are configured"),
        ({"compared": "hefty"}, "compared: unknown method 'hefty'; known: heft"),
        ({"unit": "h"}, "unknown unit 'h'; known: ms, s"),
        ({"workloads": {"small": {"calls": 3}}}, "workloads.small: unknown option 'calls'"),
        ({"methods": {"learner": {"agent": {}, "sample": 3}}}, "methods.learner: unknown option 'sample'"),
        ({"methods": {"a": {"seed": 1}}}, "expected a baseline's _target_, an agent, or like"),
        ({"methods": {"heft": {"_target_": "heft"}, "a": {"like": "b"}}}, "methods.a.like: unknown method 'b'"),
        ({"methods": {"a": {"_target_": "a"}, "b": {"like": "a"}, "c": {"like": "b"}}}, "unknown method 'b'; known: a"),
    ],
)
def test_names_that_are_not_known_are_refused(changes: dict[str, object], message: str) -> None:
    """What was got, what is known."""
    study.check_names(_config())
    with pytest.raises(InvalidOption, match=re.escape(message)):
        study.check_names(_config(**changes))


def test_a_budget_of_less_than_an_update_is_refused(begun: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It would train nothing."""
    assert _study(*LEARNER, "workloads.small.simulator_calls=8") == FAILED
    assert "ends before the first update of 16 episodes" in capsys.readouterr().err


def test_a_method_that_cannot_run_stops_no_other(
    begun: Counter[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cell says so in a word, a line of the output says why."""
    monkeypatch.setitem(sys.modules, "pymetis", None)
    assert _study("+baseline@methods=[metis,heft]") == 0
    assert "small  metis seed 0: missing pymetis (" in capsys.readouterr().out
    text = (OUT / "table.md").read_text()
    assert "| metis | missing pymetis | missing pymetis |" in text
    assert Counter(row.record.method for row in read(OUT)) == {"heft": 2}


@pytest.mark.slow
def test_curves_are_in_weights_and_biases(begun: Counter[str]) -> None:
    """A run per learner's trial, and one for the study with all results."""
    assert _study(*LEARNER, "~workloads.large", "seeds=[0]", "tracking.wandb=offline") == 0
    assert list((OUT / "small/learner/seed0").glob("wandb/offline-run-*/*.wandb"))
    assert list(OUT.glob("wandb/offline-run-*/*.wandb"))
