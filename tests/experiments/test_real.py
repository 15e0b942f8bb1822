"""python -m experiments.real: three stages, then all methods' placements measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import real
from experiments.agreement import Execution
from experiments.ranking import Measured, Ranked, lines, measured_methods, sentences
from placement_gym.pytorch.devices import known_torch_devices

CPUS = known_torch_devices()[:2]
RUN = [
    *(
        "workload=toy",
        "workload._target_=executable.chain",
        "+workload.n_ops=8",
        "+workload.size=8",
        "path=profile.json",
    ),
    *("seconds_per_kernel=0.002", f"torch_devices=[{','.join(CPUS)}]", "baseline=[heft,simulated_annealing]"),
    *("stage_two.simulator_calls=24", "stage_three.calls=8", "stage_three.repeats=1", "stage_three.confirmations=8"),
    *("calibration.placements=1", "calibration.repeats=1", "passes=2", "seeds=[0,1]", "env.num_envs=4"),
    *("agent.config.width=8", "agent.config.n_layers=1", "tracking.wandb=disabled", "hydra.run.dir=out"),
]


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two cores")
def test_three_stages_and_a_comparison(workbench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every method is run in every pass; the same command again runs nothing, more passes only the missing ones."""
    assert real.main(RUN) == 0
    out = capfd.readouterr().out
    for told in ("toy: measured makespans, 2 seeds, 2 passes", "dual_policy, stage III (greedy)", "(by seed"):
        assert told in out
    folder = workbench / "out" / "toy"
    rows = [json.loads(line) for line in (folder / "executions.jsonl").read_text().splitlines()]
    assert len({tuple(row["op_device"]) for row in rows}) == len(rows) > 1
    assert all(len(row["makespans_s"]) == 2 and min(row["makespans_s"]) > 0 for row in rows)
    found = [Ranked(**json.loads(line)) for line in (folder / "seed_1" / "found.jsonl").read_text().splitlines()]
    calls = {one.method: (one.simulator_calls, one.measured_calls) for one in found}
    assert calls["dual_policy, stage II"] == (24, 0)
    assert calls["dual_policy, stage III"] == (24, 8)
    assert calls["simulated_annealing"] == (24, 0)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert real.main(RUN) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert real.main([*RUN, "passes=3"]) == 0
    again = [json.loads(line) for line in (folder / "executions.jsonl").read_text().splitlines()]
    assert [row["makespans_s"][:2] for row in again] == [row["makespans_s"] for row in rows]
    capfd.readouterr()
    assert real.main([*RUN, "stage_three.calls=9"]) == 1
    assert "out holds a run with other stage_three; a run that goes on keeps its own" in capfd.readouterr().err


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two cores")
def test_a_run_goes_on_from_the_second_stage(workbench: Path) -> None:
    """Where stage III was interrupted, the checkpoint of stage II is what it starts from again; a teacher is heard."""
    run = [*RUN, "seeds=[0]", "teacher={_target_: placement_gym.baselines.heft, _partial_: true}"]
    assert real.main(run) == 0
    found = workbench / "out" / "toy" / "seed_0" / "found.jsonl"
    before = [json.loads(line) for line in found.read_text().splitlines()]
    simulated_s = {one["method"]: one["simulated_s"] for one in before}
    assert simulated_s["dual_policy, stage II"] <= simulated_s["heft"]
    found.unlink()
    assert real.main(run) == 0
    after = [json.loads(line) for line in found.read_text().splitlines()]
    # Stage III measures, so that it need not end alike.
    for one, other in zip(before, after, strict=True):
        assert (one["method"], one["simulator_calls"]) == (other["method"], other["simulator_calls"])
        assert "stage III" in one["method"] or one["op_device"] == other["op_device"]
    [seconds] = {one["seconds"] for one in before if one["method"] == "dual_policy, stage II"}
    assert {one["seconds"] for one in after if one["method"] == "dual_policy, stage II"} == {seconds}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["agent=reinforce", "env=assign"], "expected agent=dual_policy"),
        (["env.priority=selection"], "env.priority=none"),
        (["workload=layered"], "of which nothing can be run"),
    ],
)
@pytest.mark.skipif(len(CPUS) < 2, reason="needs two cores")
def test_what_does_not_learn_in_stages_is_refused(
    overrides: list[str], told: str, workbench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, with what is expected."""
    kept = [x for x in RUN if not x.startswith(("agent.", "+workload", "workload"))]
    workload = RUN[:4] if overrides != ["workload=layered"] else []
    assert real.main([*kept, *workload, *overrides]) == 1
    assert told in capfd.readouterr().err


def row(method: str, seed: int, device: int, simulated_s: float = 0.1) -> Ranked:
    """A placement of one op."""
    return Ranked(
        method=method,
        seed=seed,
        is_baseline=method != "agent",
        op_device=[device],
        simulated_s=simulated_s,
        simulator_calls=4,
        measured_calls=2,
        seconds=1.0,
    )


def execution(device: int, makespans_s: list[float]) -> Execution:
    """Its runs."""
    return Execution(
        program="p",
        graph="g",
        placement="x",
        kind="agent",
        op_device=[device],
        makespans_s=makespans_s,
        overheads_s=[],
        op_s=[],
        edge_s=[],
    )


def test_methods_are_ranked_by_measured_makespans() -> None:
    """By hand: medians over passes, then means over seeds; placements that two methods found are run once."""
    found = [row("heft", 0, 0), row("heft", 1, 0), row("agent", 0, 0), row("agent", 1, 1, 0.2)]
    methods = measured_methods(found, [execution(0, [0.1, 0.3, 0.2]), execution(1, [0.1, 0.1, 0.4])])
    assert [one.method for one in methods] == ["agent", "heft"]
    assert lines(methods)[0] == ("agent", "150", "100-200", "125-250", "1.000", "150", "4", "2")
    assert lines(methods)[1][:5] == ("heft", "200", "200-200", "150-250", "1.333")


def test_sentences_tell_noise_from_difference() -> None:
    """A difference in all passes is one, whatever drifts; one way and the other is noise; none is none."""
    speed = np.array([1.0, 1.5, 1.2, 2.0, 1.1])
    methods = [
        Measured([row("agent", 0, 0)], speed[None]),
        Measured([row("slower", 0, 1)], 1.02 * speed[None]),
        Measured([row("faster", 0, 2)], 0.9 * speed[None]),
        Measured([row("alike", 0, 3)], speed[None] * [[1.01, 1.01, 0.99, 1.01, 1.01]]),
        Measured([row("same", 0, 0)], speed[None]),
    ]
    said = sentences(methods, "agent")
    assert said[0] == "agent takes 2.0 % less than slower, in 5 of 5 passes (by seed -2.0 %)."
    assert said[1] == "agent takes 11.1 % more than faster, in 5 of 5 passes (by seed +11.1 %)."
    assert said[2].startswith("agent takes -1.0 % against alike, within the noise: less in 4 of 5 passes (by seed")
    assert said[3] == "agent found the same placements as same."
