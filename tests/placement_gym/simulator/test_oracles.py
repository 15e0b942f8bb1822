"""The presets reproduce what published simulators print."""

import json
from pathlib import Path

import numpy as np
import pytest

import placement_gym as pg

GRAPHS = ["chain_mm_112nodes", "ffnn_192nodes", "transformer_block_215nodes", "full_transformer_layer_261nodes"]


@pytest.mark.parametrize(("rule", "rtol"), [("giph", 1e-5), ("placeto", 1e-9)])
def test_published_makespans(shared_data: Path, rule: str, rtol: float) -> None:
    """`giph` (single precision there) and `placeto` give the makespans that those programs print."""
    oracle = json.loads((shared_data / "simulators" / "makespans.json").read_text())
    for case in oracle["cases"]:
        problem = pg.workloads.read_graph(
            shared_data / "simulators" / oracle["graph"],
            n_devices=case["n_devices"],
            bytes_per_s=oracle["bytes_per_us"] * 1e6,
            latency_s=oracle["latency_us"] * 1e-6,
        )
        schedule = pg.simulate(problem, case["op_device"], rule=rule)
        assert schedule.makespan_s * 1e6 == pytest.approx(case["makespan_us"][rule], rel=rtol)


@pytest.mark.parametrize("graph", GRAPHS)
def test_doppler_makespans(shared_data: Path, graph: str) -> None:
    """`giph` gives DOPPLER's makespans, tie order included."""
    oracle = json.loads((shared_data / "simulators" / "doppler_makespans.json").read_text())
    expected = oracle["graphs"][graph]
    problem = pg.workloads.read_doppler(shared_data / "doppler" / f"{graph}.txt", n_devices=oracle["n_devices"])
    one = pg.simulate(problem, np.zeros(problem.n_ops, dtype=int), rule="giph").makespan_s
    assert one == pytest.approx(expected["one_device"], rel=1e-12)
    for case in expected["cases"]:
        makespan_s = pg.simulate(problem, case["op_device"], rule="giph").makespan_s
        assert makespan_s == pytest.approx(case["makespan"], rel=1e-12)
