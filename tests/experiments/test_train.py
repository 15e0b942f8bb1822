"""train and evaluate on a tiny workload: files, table, resumption, refusal."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from PIL import Image

from experiments import evaluate, train, validate
from experiments.learning import Budget, Interrupt
from experiments.record import read
from experiments.tracking import CALLS, METRICS, read_metrics
from placement_gym.errors import InvalidOption

TINY = [
    "workload=layered",
    "workload.n_ops=10",
    "workload.n_devices=2",
    "agent=reinforce",
    "env.num_envs=16",
    "torch_threads=1",
    "agent.config.width=8",
    "agent.config.n_layers=1",
    "agent.config.imitation_updates=2",
    "baseline=[heft,simulated_annealing]",
    "baseline.simulated_annealing.simulator_calls=100",
    "budget.seconds=null",
]


def _train(*overrides: str) -> int:
    return train.main([*TINY, "tracking.wandb=disabled", "budget.simulator_calls=64", *overrides])


def _run(workbench: Path) -> Path:
    (checkpoint,) = (workbench / "outputs").rglob("checkpoint.pt")
    return checkpoint.parent


def test_training_ends_with_a_table_and_all_files(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records that validate, curve, charts, trace, checkpoint, problem, configuration and an offline W&B run."""
    assert train.main([*TINY, "budget.simulator_calls=128"]) == 0
    out, run = capsys.readouterr().out, _run(workbench)
    for word in ("reinforce", "heft", "simulated_annealing (equal calls)", "(lower bound)", "ratio", "simulator calls"):
        assert word in out
    for name in ("records.jsonl", "metrics.jsonl", "checkpoint.pt", "problem.npz", "table.md", "config.yaml"):
        assert (run / name).stat().st_size > 0
        assert name in out
    for name in ("gantt.png", "learning_curve.png"):
        with Image.open(run / name) as image:
            assert image.width > 100
    assert json.loads((run / "trace.json").read_text())
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    assert not list(run.glob("*.tmp"))
    methods = [row.record.method for row in read(run)]
    assert sorted(methods) == sorted(
        ["heft", "simulated_annealing", "simulated_annealing (equal calls)", "reinforce (greedy)", "reinforce"]
    )
    assert validate.main([]) == 0
    rows = read_metrics(run / "metrics.jsonl")
    assert rows[-1].keys() <= METRICS.keys()
    assert max(row.get(CALLS, 0) for row in rows) >= 128


def test_a_resumed_run_goes_on_in_its_folder(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The budget counts what was spent before; baselines are not run again; the curve has no gap and no double."""
    assert _train() == 0
    run = _run(workbench)
    before = [row[CALLS] for row in read_metrics(run / "metrics.jsonl") if CALLS in row]
    assert train.main([f"resume={run}", "budget.simulator_calls=128", "equal_calls=false"]) == 0
    assert _run(workbench) == run
    after = [row[CALLS] for row in read_metrics(run / "metrics.jsonl") if CALLS in row]
    assert after[: len(before)] == before
    assert after[-1] == 128 > before[-1]
    assert after == sorted(set(after))
    methods = [row.record.method for row in read(run)]
    assert methods.count("heft") == 1
    assert methods.count("reinforce") == 2
    assert validate.main([]) == 0


def test_the_newest_run_is_resumed_by_true(workbench: Path) -> None:
    """resume=true needs no path."""
    assert _train() == 0
    assert train.main(["resume=true", "budget.simulator_calls=96"]) == 0
    assert max(row.get(CALLS, 0) for row in read_metrics(_run(workbench) / "metrics.jsonl")) == 96


def test_a_resumed_run_keeps_its_workload(workbench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Asking for another one is a mistake, not a new run."""
    assert _train() == 0
    capfd.readouterr()
    assert train.main([f"resume={_run(workbench)}", "workload=fork_join"]) == 1
    assert "keeps its own workload" in capfd.readouterr().err


def test_ctrl_c_saves_and_ends_with_the_table(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first interrupt ends training after the current update; the rest of the run is as ever."""
    done = threading.Event()

    def interrupt() -> None:
        # The first row of metrics says that training listens for interrupts.
        while not done.wait(0.05):
            if list(workbench.rglob("metrics.jsonl")):
                os.kill(os.getpid(), signal.SIGINT)
                return

    user = threading.Thread(target=interrupt)
    user.start()
    try:
        assert _train("budget.simulator_calls=null", "budget.seconds=60") == 0
    finally:
        done.set()
        user.join()
    out = capsys.readouterr().out
    assert "(lower bound)" in out
    assert f"resume={_run(workbench).relative_to(workbench)}" in out


def test_a_second_ctrl_c_ends_at_once() -> None:
    """For who does not want to wait for the update."""
    with Interrupt().listening() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_evaluate_places_with_the_checkpoint(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The greedy placement is that of the end of training."""
    assert _train() == 0
    greedy = {row.record.method: row.record for row in read(_run(workbench))}["reinforce (greedy)"]
    assert evaluate.main([f"run={_run(workbench)}", "tracking.wandb=disabled"]) == 0
    (row,) = read(workbench / "outputs/evaluate")
    assert row.record.op_device == greedy.op_device
    assert row.record.makespan_s == greedy.makespan_s
    assert validate.main([]) == 0


def test_a_baseline_may_teach(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The end is no worse than its placement, whose calls count; an agent that takes no teacher is refused."""
    teacher = "teacher={_target_: placement_gym.baselines.heft, _partial_: true}"
    rest = ["tracking.wandb=disabled", "baseline=[heft]", "budget.simulator_calls=24", teacher]
    tiny = [option for option in TINY if not option.startswith(("agent=", "env.", "baseline"))]
    dual = ["env=select_place", "agent=dual_policy", "env.num_envs=4", "agent.config.batches=2"]
    assert train.main([*tiny, *dual, *rest]) == 0
    found = {at.record.method: at.record for at in read(workbench / "outputs")}
    assert found["dual_policy"].makespan_s <= found["heft"].makespan_s
    assert found["dual_policy"].simulator_calls <= 24
    capsys.readouterr()
    assert train.main([*tiny, "agent=reinforce", "env=assign", *rest]) == 1
    assert "takes no teacher; expected a dual policy" in capsys.readouterr().err


def test_evaluate_keeps_the_order_of_selection(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The greedy placement's ranks are recorded, alike in train and evaluate; draws would lack them."""
    chosen = [
        "env=select_place",
        "env.priority=selection",
        "agent=dual_policy",
        "env.num_envs=4",
        "agent.config.batches=2",
    ]
    tiny = [option for option in TINY if not option.startswith(("agent=", "env."))]
    assert train.main([*tiny, *chosen, "tracking.wandb=disabled", "budget.simulator_calls=32"]) == 0
    run = _run(workbench)
    assert evaluate.main([f"run={run}", "tracking.wandb=disabled"]) == 0
    greedy = [at.record for at in read(workbench / "outputs") if at.record.method == "dual_policy (greedy)"]
    assert len(greedy) == 2
    assert greedy[0].priority == greedy[1].priority is not None
    assert greedy[0].makespan_s == greedy[1].makespan_s
    assert validate.main([]) == 0
    capsys.readouterr()
    assert evaluate.main([f"run={run}", "samples=4", "tracking.wandb=disabled"]) == 1
    assert "evaluated without the order of selection" in capsys.readouterr().err


def test_a_checkpoint_of_another_problem_is_refused(workbench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 1."""
    assert _train() == 0
    capfd.readouterr()
    argv = [f"run={_run(workbench)}", "workload=layered", "workload.n_ops=11", "tracking.wandb=disabled"]
    assert evaluate.main(argv) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "checkpoint" in line


@pytest.mark.parametrize("limits", [(None, None), (0.0, None), (None, -1)])
def test_a_budget_needs_a_positive_limit(limits: tuple[float | None, int | None]) -> None:
    """Training without an end is a mistake."""
    with pytest.raises(InvalidOption, match="budget"):
        Budget(*limits)


def test_the_share_of_a_budget_is_that_of_the_nearer_limit() -> None:
    """Whichever comes first."""
    assert Budget(10.0, 100).share(simulator_calls=50, seconds=1.0) == 0.5
    assert Budget(10.0, None).share(simulator_calls=10**9, seconds=20.0) == 1.0


@pytest.mark.parametrize("agent", ["ppo", "random"])
def test_every_agent_trains_through_the_workbench(agent: str, workbench: Path) -> None:
    """Each agent's metrics are documented, its records validate, its checkpoint places."""
    small = ["agent.config.width=8", "agent.config.n_layers=1", "agent.config.n_envs=2"] if agent == "ppo" else []
    others = [override for override in TINY if not override.startswith("agent")]
    argv = [*others, f"agent={agent}", *small, "tracking.wandb=disabled", "budget.simulator_calls=32"]
    assert train.main(argv) == 0
    assert evaluate.main([f"run={_run(workbench)}", "samples=7", "tracking.wandb=disabled"]) == 0
    greedy, drawn = (row.record for row in read(workbench / "outputs/evaluate"))
    assert (greedy.method, drawn.method) == (f"{agent} (greedy)", f"{agent} (best of 7)")
    assert (greedy.simulator_calls, drawn.simulator_calls) == (1, 7)
    assert validate.main([]) == 0
