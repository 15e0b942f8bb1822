"""python -m experiments.execute: placements on real devices beside the simulator."""

import json
from pathlib import Path

import numpy as np
import pytest
from executable import chain

import placement_gym as pg
from experiments import execute
from experiments.placements import adversarial, all_kinds
from placement_gym.pytorch.devices import known_torch_devices
from placement_gym.rule import PRESETS

CPUS = known_torch_devices()[:2]
RUN = [
    *("workload=toy", "workload._target_=executable.chain", "+workload.n_ops=12", "+workload.size=8"),
    *("seconds_per_kernel=0.002", f"torch_devices=[{','.join(CPUS)}]", "path=profile.json", "baseline=heft"),
    *("n_random=4", "n_calibration=2", "repeats=2", "hydra.run.dir=out"),
]


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two cores")
def test_every_placement_is_run_and_simulated(workbench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rows, table and pictures; the same command again runs nothing."""
    assert execute.main(RUN) == 0
    out = capfd.readouterr().out
    assert "simulated against measured makespans" in out
    assert "calibrated" in out
    folder = workbench / "out"
    text = (folder / "executions.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert {row["kind"] for row in rows} == {"baseline", "adversarial", "random", "calibration"}
    assert len({tuple(row["op_device"]) for row in rows}) == len(rows)
    assert all(len(row["makespans_s"]) == 2 and min(row["makespans_s"]) > 0 for row in rows)
    assert all(bool(row["op_s"]) == (row["kind"] == "calibration") for row in rows)
    assert [json.loads(line)["costs"] for line in (folder / "agreement.jsonl").read_text().splitlines()] == [
        "profiled",
        "calibrated",
    ]
    assert (folder / "calibrated.png").read_bytes().startswith(b"\x89PNG")
    assert execute.main(RUN) == 0
    assert (folder / "executions.jsonl").read_text() == text


@pytest.mark.slow
@pytest.mark.skipif(len(CPUS) < 2, reason="needs two cores")
def test_a_further_pass_adds_to_what_was_run(workbench: Path) -> None:
    """Two of three passes are kept as they were."""
    assert execute.main(RUN) == 0
    before = [json.loads(line) for line in (workbench / "out" / "executions.jsonl").read_text().splitlines()]
    assert execute.main([*RUN, "repeats=3"]) == 0
    after = [json.loads(line) for line in (workbench / "out" / "executions.jsonl").read_text().splitlines()]
    assert [row["makespans_s"][:2] for row in after] == [row["makespans_s"] for row in before]
    assert all(len(row["makespans_s"]) == 3 for row in after)


def test_a_workload_that_cannot_be_run_is_refused(workbench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, with what is expected; a damaged file of rows is named with its line."""
    assert execute.main(["workload=layered", "hydra.run.dir=out"]) == 1
    assert "workload 'layered' gives a Problem, of which nothing can be run" in capfd.readouterr().err
    (workbench / "out").mkdir(exist_ok=True)
    (workbench / "out" / "executions.jsonl").write_text("{}\n")
    if len(CPUS) == 2:
        assert execute.main(RUN) == 1
        assert "executions.jsonl:1: not an execution, or truncated" in capfd.readouterr().err


def test_placements_are_of_many_kinds_and_feasible() -> None:
    """No placement twice; adversarial ones hop, wait and idle; memory is kept to."""
    graph = chain(8)
    problem = pg.Problem.from_times(graph, np.ones((8, 2)), device_names=["a", "b"])
    found = {p.name: p.op_device.tolist() for p in adversarial(problem, PRESETS["physical"], np.random.default_rng(0))}
    assert found["all on b"] == [1] * 8
    assert found["by turns"] == found["by depth"] == [0, 1] * 4
    assert found["one part after the other"] == [0] * 4 + [1] * 4
    placements = all_kinds(problem, PRESETS["physical"], {}, n_random=30, seed=0)
    assert len({p.op_device.tobytes() for p in placements}) == len(placements) > 20
    assert len({p.name for p in placements}) == len(placements)
    small = pg.Problem.from_times(
        graph,
        np.ones((8, 2)),
        device_memory_bytes=float(graph.op_output_bytes.sum()) - 1,
        op_memory_bytes=graph.op_output_bytes,
    )
    kept = all_kinds(small, PRESETS["physical"], {}, n_random=30, seed=0)
    assert kept
    assert all(p.op_device.any() and not p.op_device.all() for p in kept)
