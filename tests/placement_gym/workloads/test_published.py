"""Readers of published instances: what they read, and what they say of files that are not right."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutations import N_MUTATIONS, mutated

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
    forward_ms = {"vgg-19-pbs-32": 48.0, "bert-24-pbs-6": 193.8, "bert-48-pbs-2": 129.2, "gnmt-16-pbs-64": 90.3}
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
        (pg.workloads.read_dnn_partitioning, DNN, ('"cost": 2.0}]', '"cost": 1e999}]'), "edges out of op 'n0' cost"),
        (pg.workloads.read_dnn_partitioning, DNN, ('"id": 1,', '"id": 1e999,'), "the id of a node is 'inf'; a whole"),
        (pg.workloads.read_dnn_partitioning, DNN, ('"id": 1,', '"id": 1.5,'), "the id of a node is '1.5'; a whole"),
        (pg.workloads.read_dnn_partitioning, DNN, ('"id": 1,', '"id": 0,'), "two nodes have the id 0"),
        (pg.workloads.read_dnn_partitioning, DNN, ('"destId": 1', '"destId": NaN'), "destId is 'nan'; a whole"),
        (
            pg.workloads.read_dnn_partitioning,
            DNN,
            ('"size": 1', '"colorClass": 1e999, "size": 1'),
            "colorClass is 'inf'",
        ),
        (pg.workloads.read_dnn_partitioning, DNN, ('"maxCPUs": 1', '"maxCPUs": 1e999'), "maxCPUs is 'inf'"),
        (pg.workloads.read_dnn_partitioning, DNN, ('"maxCPUs": 1', '"maxCPUs": 1e12'), "together at most 1024"),
        (pg.workloads.read_dnn_partitioning, DNN, ('"maxCPUs": 1', '"maxCPUs": -1'), "maxCPUs -1"),
        (pg.workloads.read_dapple, DAPPLE, ("", ""), None),
        (pg.workloads.read_dapple, DAPPLE, ("node2 -- out", "node1 -- out"), "line 2: two layers have the id 'node1'"),
        (pg.workloads.read_dapple, DAPPLE, ("parameter_size=4", "parameter_size=inf"), "op_parameter_bytes of op"),
        (pg.workloads.read_doppler, DOPPLER, ("3e10,2e10,matmul", "3e10,inf,matmul"), None),
        (pg.workloads.read_doppler, DOPPLER, ("1e10,2e10,matmul", "1e10,inf,matmul"), "edge_bytes of edge 0 is inf"),
        (pg.workloads.read_dapple, DAPPLE, ("-- node2", "-- node9"), "line 3 is neither a layer nor an edge"),
        (pg.workloads.read_dapple, DAPPLE, (", parameter_size=4\n\t", "\n\t"), "line 2 is neither"),
        (neutral, NEUTRAL, ("", ""), None),
        (neutral, NEUTRAL, ('"ms"', '"fortnight"'), "time_unit is 'fortnight'"),
        (neutral, NEUTRAL, ('"time": 1.0', '"time": -1.0'), "op_time_s of op '0' on device 'device0' is -0.001"),
        (neutral, NEUTRAL, ('"id": 1', '"id": 0'), "two nodes have the id 0"),
        (neutral, NEUTRAL, ('"bytes": 8}', '"bytes": 1e999}'), "edge_bytes of edge 0 is inf"),
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


@pytest.mark.parametrize(
    ("reader", "pattern"),
    [
        (pg.workloads.read_dnn_partitioning, "dnn_partitioning/*-inputs/*/*.json"),
        (pg.workloads.read_doppler, "doppler/*.txt"),
        (pg.workloads.read_dapple, "dapple/*-*.txt"),
        (neutral, "pipedream/*.json"),
    ],
)
def test_any_damage_to_a_published_file_is_an_invalid_file(
    shared_data: Path, tmp_path: Path, reader: Callable[[Path], pg.Problem], pattern: str
) -> None:
    """Bytes and numbers changed at random: a problem or InvalidFile, and never another error."""
    smallest = min(sorted(shared_data.glob(pattern)), key=lambda path: path.stat().st_size)
    whole = smallest.read_bytes()
    numbers = list(re.finditer(rb"(?<![\w.])-?\d+(\.\d+)?([eE][-+]?\d+)?(?![\w.])", whole))
    odd = [
        b"Infinity",
        b"-Infinity",
        b"NaN",
        b"inf",
        b"1e999",
        b"-1",
        b"1.5",
        b"1e20",
        b"99999999999999999999",
        b"null",
    ]
    rng = np.random.default_rng(1)
    path = tmp_path / "instance"
    refused = 0
    for k in range(N_MUTATIONS):
        if k % 2:
            start, end = numbers[int(rng.integers(len(numbers)))].span()
            path.write_bytes(whole[:start] + odd[int(rng.integers(len(odd)))] + whole[end:])
        else:
            path.write_bytes(mutated(whole, rng))
        try:
            reader(path)
        except InvalidFile:
            refused += 1
    assert refused > N_MUTATIONS / 10


@pytest.mark.parametrize(("name", "inputs"), [("vgg-19-pbs-32", [0]), ("xlnet-24-pbs-1", [0]), ("bert-24-pbs-6", [0])])
def test_dapples_inputs_take_no_time(shared_data: Path, name: str, inputs: list[int]) -> None:
    """The time of an input layer is that of loading data, which no device spends; all other layers keep theirs."""
    problem = pg.workloads.read_dapple(shared_data / "dapple" / f"{name}.txt", training=True)
    text = (shared_data / "dapple" / f"{name}.txt").read_text()
    forward = [float(x) * 1e-3 for x in re.findall(r"forward_compute_time=([^,]+)", text)]
    for op, seconds in enumerate(forward):
        assert problem.op_time_s[op, 0] == (0.0 if op in inputs else pytest.approx(seconds))
    assert problem.op_time_s[len(forward) + inputs[0], 0] == 0.0


def test_a_layer_that_reads_another_is_no_input(tmp_path: Path) -> None:
    """A layer named like an input that has one of its own takes the file's time."""
    path = tmp_path / "profile.txt"
    path.write_text(
        DAPPLE.replace("node2 -- out", "node2 -- input_reshape").replace("node1 -- in --", "node1 -- Input --")
    )
    assert pg.workloads.read_dapple(path).op_time_s[:, 0].tolist() == [0.0, 1e-3]


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "b"], ["a#0", "a#1", "b"]),
        (["a", "a", "a#1"], ["a#0", "a#1#1", "a#1"]),
        (["a#0", "a", "a", "a#0"], ["a#0#0", "a#1", "a#2", "a#0#3"]),
    ],
)
def test_repeated_names_become_unique(tmp_path: Path, names: list[str], unique: list[str]) -> None:
    """Ops of one name get their position, also where that is the name of another op."""
    nodes = [{"id": i, "name": name, "time": 1.0, "bwd_time": 1.0, "output_bytes": 8} for i, name in enumerate(names)]
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"time_unit": "ms", "nodes": nodes, "edges": []}))
    assert list(neutral(path).graph.op_names) == unique


def test_names_of_backward_ops_are_unique(tmp_path: Path) -> None:
    """An op that is named like another's backward op is read."""
    nodes = [
        {"id": i, "name": n, "time": 1, "bwd_time": 1, "output_bytes": 8} for i, n in enumerate(["a", "a (backward)"])
    ]
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"time_unit": "ms", "nodes": nodes, "edges": []}))
    problem = pg.workloads.read_graph(path, n_devices=1, bytes_per_s=1.0, latency_s=0.0, training=True)
    assert len(set(problem.graph.op_names)) == 4


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
