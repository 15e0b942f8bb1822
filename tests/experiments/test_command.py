"""Mistakes on the command line: one clear line, an exit code, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import evaluate, report, solve, train, validate
from experiments.command import Main

SMALL = ["workload=layered", "workload.n_ops=12", "tracking.wandb=disabled"]


@pytest.mark.parametrize(
    ("main", "argv", "code", "said"),
    [
        (solve.main, ["workload=nope"], 2, ["workload/nope", "layered"]),
        (solve.main, ["baseline=nope"], 2, ["baseline/nope", "heft", "simulated_annealing"]),
        (solve.main, [*SMALL, "rule=nope"], 1, ["unknown simulator rule 'nope'", "physical", "giph"]),
        (solve.main, [*SMALL, "workload.n_opps=3"], 2, ["workload.n_opps"]),
        (solve.main, [*SMALL, "baseline=random_search", "baseline.random_search.simulator_calls=0"], 1, ["0"]),
        (solve.main, [*SMALL, "tracking.wandb=maybe"], 1, ["'maybe'", "disabled, offline, online"]),
        (solve.main, ["a=="], 2, ["a=="]),
        (train.main, [*SMALL, "torch_device=tpu"], 1, ["unknown torch_device 'tpu'", "auto, cpu"]),
        (train.main, [*SMALL, "budget.seconds=null"], 1, ["budget has neither"]),
        (train.main, ["resume=gone"], 1, ["gone", "checkpoint.pt"]),
        (train.main, ["resume=true"], 1, ["nothing to resume"]),
        (evaluate.main, [], 2, ["run"]),
        (evaluate.main, ["run=gone"], 1, ["gone is no training run"]),
        (validate.main, ["records=gone"], 1, ["gone"]),
        (report.main, [], 1, ["outputs"]),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    workbench: Path,
    capfd: pytest.CaptureFixture[str],
    main: Main,
    argv: list[str],
    code: int,
    said: list[str],
) -> None:
    """The line says what was got and, for names, which are known; nothing is recorded."""
    assert main(argv) == code
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "error: " in lines[0]
    assert all(word in lines[0] for word in said), lines[0]
    assert not list(workbench.rglob("records.jsonl"))


@pytest.mark.parametrize("text", ["", "3\nnonsense"])
def test_a_malformed_instance_file_is_one_line(workbench: Path, capfd: pytest.CaptureFixture[str], text: str) -> None:
    """A reader's complaint names the file."""
    (workbench / "graph.txt").write_text(text)
    assert solve.main(["workload=doppler", "workload.path=graph.txt", "tracking.wandb=disabled"]) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "graph.txt" in lines[0]


def test_a_process_ends_with_the_code_and_no_traceback(workbench: Path) -> None:
    """What a shell sees: exit code 1, the message on stderr, nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.validate", f"records={workbench / 'gone'}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("validate: error: ")
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) == 1


def test_the_full_error_is_shown_when_asked_for(workbench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HYDRA_FULL_ERROR=1 lets the exception through."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="gone"):
        validate.main(["records=gone"])


@pytest.mark.parametrize("verb", ["evaluate", "train"])
@pytest.mark.parametrize(
    "sections",
    [
        "env: {_target_: torch.load, f: theirs, weights_only: false}",
        "env: ${workload}\nworkload: {_target_: numpy.load, file: theirs, allow_pickle: true}",
        "agent: {_target_: agents.ppo.Ppo, config: {_target_: agents.ppo.torch.load, f: theirs, weights_only: false}}",
        "baseline: {heft: {_target_: placement_gym.pytorch.capture.build_module, module: 'theirs:run'}}",
    ],
)
def test_nothing_that_a_strangers_run_names_is_called(
    workbench: Path, capfd: pytest.CaptureFixture[str], verb: str, sections: str
) -> None:
    """A saved configuration calls what the files of conf/ call, or it is refused in one line."""
    theirs = workbench / "theirs"
    theirs.mkdir()
    (theirs / "config.yaml").write_text(f"rule: physical\n{sections}\n")
    (theirs / "checkpoint.pt").touch()
    assert evaluate.main([f"run={theirs}"]) == 1 if verb == "evaluate" else train.main([f"resume={theirs}"]) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "calls '" in line
    assert line.endswith("expected what the files of conf/ call")
