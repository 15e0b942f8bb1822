"""Readers of published instances: what they read, and what they say of files that are not right."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InvalidFile


def test_reads_every_published_instance(shared_data: Path) -> None:
    """Every file of the four formats becomes a problem with the published number of ops and devices."""
    for path in sorted((shared_data / "dnn_partitioning").glob("*-inputs/*/*.json")):
        data = json.loads(path.read_text())
        problem = pg.workloads.read_dnn_partitioning(path)
        assert problem.n_ops == len(data["nodes"])
        assert problem.n_devices == data["maxFPGAs"] + data["maxCPUs"]
        assert problem.op_time_s[:, 0].sum() == pytest.approx(sum(n["fpgaLatency"] for n in data["nodes"]) * 1e-3)
    for path in sorted((shared_data / "pipedream").glob("*.json")):
        data = json.loads(path.read_text())
        problem = pg.workloads.read_graph(path, n_devices=2, bytes_per_s=1e9, latency_s=0.0, training=True)
        assert problem.n_ops == 2 * len(data["nodes"])
        assert problem.graph.op_is_backward.sum() == len(data["nodes"])
    forward_ms = {"vgg-19-pbs-32": 51.4, "bert-24-pbs-6": 193.8, "bert-48-pbs-2": 129.2, "gnmt-16-pbs-64": 90.3}
    for name, expected in forward_ms.items():
        problem = pg.workloads.read_dapple(shared_data / "dapple" / f"{name}.txt", n_devices=16)
        assert problem.op_time_s[:, 0].sum() * 1e3 == pytest.approx(expected, abs=0.1)
        assert problem.link_bytes_per_s[0, 7] == 25e9
        assert problem.link_bytes_per_s[0, 8] == 1e9


@pytest.mark.parametrize(
    ("name", "n_ops", "n_edges"),
    [
        ("chain_mm_112nodes", 76, 80),
        ("ffnn_192nodes", 180, 208),
        ("transformer_block_215nodes", 182, 234),
        ("full_transformer_layer_261nodes", 229, 284),
    ],
)
def test_doppler_times_tie_as_whole_numbers_do(shared_data: Path, name: str, n_ops: int, n_edges: int) -> None:
    """300 random placements give the makespans of exact whole-number times, so no tie is lost to rounding."""
    path = shared_data / "doppler" / f"{name}.txt"
    problem = pg.workloads.read_doppler(path)
    assert (problem.n_ops, problem.graph.n_edges) == (n_ops, n_edges)
    rows = [[float(x) for x in line.split(",")[:2]] for line in path.read_text().splitlines()[4:] if line.strip()]
    compute, transfer = np.array(rows).T
    pairs = zip(problem.graph.edge_src.tolist(), problem.graph.edge_dst.tolist(), strict=True)
    graph = pg.OpGraph.build(problem.graph.op_names, [(a, b, transfer[a]) for a, b in pairs])
    whole = pg.Problem.from_times(graph, np.repeat(compute[:, None], 4, axis=1), link_bytes_per_s=1.0)
    op_devices = np.random.default_rng(0).integers(0, 4, (300, n_ops))
    np.testing.assert_allclose(
        pg.simulate_batch(problem, op_devices, rule="giph"),
        pg.simulate_batch(whole, op_devices, rule="giph") / 1e10,
        rtol=1e-12,
    )


DOPPLER = "5\n0\n0,1,2\n1,2,3\n1e10,2e10,matmul\n1e10,2e10,add\n1e10,2e10,add\n3e10,2e10,matmul\n"
DNN = json.dumps(
    {
        "maxSizePerFPGA": 10.0,
        "maxFPGAs": 2,
        "maxCPUs": 1,
        "nodes": [
            {
                "id": i,
                "name": f"n{i}",
                "fpgaLatency": 1.0,
                "cpuLatency": 5.0,
                "supportedOnFpga": int(i < 2),
                "size": 1.0,
            }
            for i in range(3)
        ],
        "edges": [{"sourceId": 0, "destId": 1, "cost": 2.0}, {"sourceId": 0, "destId": 2, "cost": 2.0}],
    }
)
DAPPLE = (
    "node1 -- in -- forward_compute_time=1, backward_compute_time=2, activation_size=3, parameter_size=4\n"
    "node2 -- out -- forward_compute_time=1, backward_compute_time=2, activation_size=3, parameter_size=4\n"
    "\tnode1 -- node2\n"
)
NEUTRAL = json.dumps(
    {
        "time_unit": "ms",
        "nodes": [{"id": i, "time": 1.0, "output_bytes": 8} for i in range(2)],
        "edges": [{"src": 0, "dst": 1, "bytes": 8}],
    }
)


def neutral(path: Path) -> pg.Problem:
    """read_graph on two devices."""
    return pg.workloads.read_graph(path, n_devices=2, bytes_per_s=1e9, latency_s=0.0)


@pytest.mark.parametrize(
    ("reader", "text", "damage", "said"),
    [
        (pg.workloads.read_doppler, DOPPLER, ("", ""), None),
        (pg.workloads.read_doppler, DOPPLER, ("1,2,3\n", "1,2\n"), "3 edge tails and line 4 2 edge heads"),
        (
            pg.workloads.read_doppler,
            DOPPLER,
            ("3e10,2e10,matmul\n", ""),
            "3 op lines for 5 nodes of which 1 are inputs",
        ),
        (pg.workloads.read_doppler, DOPPLER, ("3e10,2e10,matmul", "3e10"), "line 8 has 1 fields"),
        (pg.workloads.read_doppler, DOPPLER, ("0,1,2\n", "0,x,2\n"), "line 3: invalid literal"),
        (pg.workloads.read_doppler, DOPPLER, ("1,2,3\n", "1,2,9\n"), "edge 2 joins ops 2 and 9"),
        (pg.workloads.read_doppler, DOPPLER, ("1,2,3\n", "1,2,0\n"), "cyclic"),
        (pg.workloads.read_dnn_partitioning, DNN, ("", ""), None),
        (pg.workloads.read_dnn_partitioning, DNN, ('"cost": 2.0}]', '"cost": 3.0}]'), "edges out of op 'n0' cost"),
        (pg.workloads.read_dnn_partitioning, DNN, ('"maxFPGAs"', '"maxTPUs"'), "field 'maxFPGAs' is missing"),
        (pg.workloads.read_dnn_partitioning, DNN, ("}]}", ""), "expected a dnn-partitioning instance"),
        (pg.workloads.read_dapple, DAPPLE, ("", ""), None),
        (pg.workloads.read_dapple, DAPPLE, ("-- node2", "-- node9"), "line 3 is neither a layer nor an edge"),
        (pg.workloads.read_dapple, DAPPLE, (", parameter_size=4\n\t", "\n\t"), "line 2 is neither"),
        (neutral, NEUTRAL, ("", ""), None),
        (neutral, NEUTRAL, ('"ms"', '"fortnight"'), "time_unit is 'fortnight'"),
        (neutral, NEUTRAL, ('"time": 1.0', '"time": -1.0'), "op_time_s of op '0' on device 'device0' is -0.001"),
        (neutral, NEUTRAL, ('"dst": 1', '"dst": 7'), "field 7 is missing"),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, reader: Callable[[Path], pg.Problem], text: str, damage: tuple[str, str], said: str | None
) -> None:
    """A damaged file gives one error with its path and what is wrong; the undamaged one is read."""
    path = tmp_path / "instance"
    path.write_text(text.replace(*damage) if damage[0] else text)
    if said is None:
        assert reader(path).n_ops >= 2
    else:
        with pytest.raises(InvalidFile, match=said) as caught:
            reader(path)
        assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path that is not there is said to be not there."""
    with pytest.raises(InvalidFile, match="no such file; expected a DOPPLER graph file"):
        pg.workloads.read_doppler(tmp_path / "absent.txt")


def test_dnn_partitioning_model(tmp_path: Path) -> None:
    """Accelerators come first, CPUs have no memory limit, an unsupported op has no time on an accelerator."""
    path = tmp_path / "instance.json"
    path.write_text(DNN)
    problem = pg.workloads.read_dnn_partitioning(path)
    assert problem.device_kinds == ("accelerator", "accelerator", "cpu")
    assert problem.device_memory_bytes.tolist() == [10.0, 10.0, np.inf]
    np.testing.assert_allclose(problem.op_time_s, [[1e-3, 1e-3, 5e-3]] * 2 + [[np.inf, np.inf, 5e-3]])
