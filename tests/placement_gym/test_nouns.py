"""Graph, cluster, costs, problem, placement, ranks: what they hold and what they refuse."""

import inspect
import zipfile
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from mutations import N_MUTATIONS, mutated
from strategies import Placed, placed_problems

import placement_gym as pg
from placement_gym import files, ranks
from placement_gym.errors import (
    InfeasiblePlacement,
    InvalidCluster,
    InvalidFile,
    InvalidGraph,
    InvalidProblem,
    PlacementGymWarning,
)

# Of the problem in `test_files_of_older_formats_are_read`, as earlier states of version 0.2.0 printed them.
FIRST_FINGERPRINT = "d1a580d7b13663af43a3aca6c9f30dc761cbe50ece0607928e418a2733ba955c"
SECOND_FINGERPRINT = "e3f1a9dceb2017b59ba88f5b45e11c1241de793deecbbe5dd936ba0d79bfbc34"


def two_ops(**options: object) -> pg.OpGraph:
    """A -> b, 8 bytes."""
    return pg.OpGraph.build(["a", "b"], [(0, 1, 8.0)], **options)  # type: ignore[arg-type]


def test_graph_refuses_what_is_no_dag() -> None:
    """A cycle is named; so are loops, edges to nowhere, bad numbers and repeated names."""
    with pytest.raises(InvalidGraph, match="cyclic: 'a' -> 'b' -> 'c' -> 'a'"):
        pg.OpGraph.build(["a", "b", "c"], [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)])
    with pytest.raises(InvalidGraph, match="op 'a' has an edge to itself"):
        pg.OpGraph.build(["a"], [(0, 0, 1.0)])
    with pytest.raises(InvalidGraph, match=r"edge_dst\[0\] is 5; expected an op number in 0\.\.1"):
        pg.OpGraph.build(["a", "b"], [(0, 5, 1.0)])
    with pytest.raises(InvalidGraph, match="op_flops of op 'b' is nan"):
        two_ops(flops=[1.0, np.nan])
    with pytest.raises(InvalidGraph, match="edge_bytes of edge 0 is -1"):
        pg.OpGraph.build(["a", "b"], [(0, 1, -1.0)], traffic_bytes=0.0, output_bytes=0.0)
    with pytest.raises(InvalidGraph, match="op name 'a' appears twice"):
        pg.OpGraph.build(["a", "a"], [])
    with pytest.raises(InvalidGraph, match="has no ops"):
        pg.OpGraph.build([], [])


def test_graph_to_networkx_and_back() -> None:
    """A graph with several tensors between two ops survives the way out; a plain DiGraph comes in."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 8.0), (0, 1, 4.0)], kinds=["x", "y"], flops=[1.0, 2.0])
    out = graph.to_networkx()
    assert out.number_of_edges() == 2
    assert out.nodes["b"] == {
        "kind": "y", "dtype": "float32", "flops": 2.0, "traffic_bytes": 12.0, "parameter_bytes": 0.0,
        "output_bytes": 0.0, "is_backward": False, "colocation": -1,
    }  # fmt: skip
    plain: nx.DiGraph[str] = nx.DiGraph()
    plain.add_node("a", flops=5.0)
    plain.add_edge("a", "b", bytes=3.0)
    back = pg.OpGraph.from_networkx(plain)
    assert back.op_flops.tolist() == [5.0, 0.0]
    assert back.edge_bytes.tolist() == [3.0]


def three_nodes(**attributes: object) -> "nx.DiGraph[object]":
    """A -> b, a -> c; the attributes are those of op b."""
    graph: nx.DiGraph[object] = nx.DiGraph()
    graph.add_node("a", output_bytes=10.0, parameter_bytes=1.0)
    graph.add_node("b", **attributes)
    graph.add_node("c", traffic_bytes=7.0)
    graph.add_edge("a", "b", bytes=4.0)
    graph.add_edge("a", "c", bytes=4.0)
    return graph


def test_attributes_missing_on_some_nodes_are_derived_there() -> None:
    """Outputs, traffic and tensors that some ops or edges have are kept; the others get what `build` derives."""
    plain = pg.OpGraph.from_networkx(three_nodes())
    assert plain.op_output_bytes.tolist() == [10.0, 0.0, 0.0]
    assert plain.op_traffic_bytes.tolist() == [11.0, 4.0, 7.0]
    assert plain.edge_tensor.tolist() == [0, 0]
    graph = three_nodes()
    graph.edges["a", "c"]["tensor"] = 5
    assert pg.OpGraph.from_networkx(graph).edge_tensor.tolist() == [0, 1]
    given = pg.OpGraph.build(["a", "b"], [(0, 1, 4.0)], output_bytes=[None, 3.0], traffic_bytes=[9.0, None])
    assert given.op_output_bytes.tolist() == [4.0, 3.0]
    assert given.op_traffic_bytes.tolist() == [9.0, 7.0]


def test_attributes_that_are_not_read_are_named() -> None:
    """Attributes of unknown names are said, with the known name that each looks like."""
    with pytest.warns(
        PlacementGymWarning, match=r"op attributes .*'FLOPS' \(did you mean 'flops'\?\), 'colour', 'flop' "
    ):
        pg.OpGraph.from_networkx(three_nodes(FLOPS=1.0, flop=2.0, colour="red"))
    graph = three_nodes()
    graph.edges["a", "b"]["byte"] = 3.0
    with pytest.warns(
        PlacementGymWarning, match=r"edge attributes .*'byte' \(did you mean 'bytes'\?\); read are bytes"
    ):
        pg.OpGraph.from_networkx(graph)


def _undirected() -> object:
    return three_nodes().to_undirected()


def _equal_as_text() -> object:
    graph: nx.DiGraph[object] = nx.DiGraph()
    graph.add_edge(1, "1", bytes=1.0)
    return graph


def _without_bytes() -> object:
    graph = three_nodes()
    graph.add_edge("b", "c")
    return graph


def _partly_indexed() -> object:
    graph = three_nodes()
    graph.edges["a", "c"]["index"] = 0
    return graph


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_undirected, "undirected Graph; expected a networkx.DiGraph"),
        (_equal_as_text, "the nodes 1 and '1' are both named '1'"),
        (_without_bytes, "edge 'b' -> 'c' has no attribute 'bytes'"),
        (_partly_indexed, "edge 'a' -> 'b' has no attribute 'index'"),
        (lambda: three_nodes(flops="many"), "a value of a wrong type.*many"),
        (lambda: three_nodes(flops=[1.0, 2.0]), "a value of a wrong type"),
        (lambda: three_nodes(is_backward="False"), "is_backward of op 'b' is 'False'; expected a bool"),
        (lambda: three_nodes(colocation=0.5), "op_colocation holds numbers that are no int32"),
        (lambda: three_nodes(kind=3), "op_kinds holds 3; expected a text"),
        (lambda: three_nodes(flops=float("nan")), "op_flops of op 'b' is nan"),
    ],
)
def test_networkx_graphs_that_are_no_op_graph_are_refused(make: Callable[[], object], said: str) -> None:
    """What would be read wrongly is refused by name."""
    with pytest.raises(InvalidGraph, match=said):
        pg.OpGraph.from_networkx(make())  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [0.5, "a", None, 2**70])
def test_an_edge_joins_op_numbers(end: object) -> None:
    """The end of an edge is a whole number, never cut to one."""
    with pytest.raises(InvalidGraph, match="the end of an edge is no op number"):
        pg.OpGraph.build(["a", "b"], [(0, end, 1.0)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "function",
    [
        *(pg.OpGraph, pg.OpGraph.build, pg.OpGraph.from_networkx, pg.OpGraph.to_networkx),
        *(pg.Problem, pg.Problem.build, pg.Problem.from_times, pg.Problem.save, pg.Problem.load),
        *(pg.RooflineCost, pg.TableCost, pg.CostModel.op_time_s),
        *(getattr(pg.workloads, name) for name in pg.workloads.__all__ if name.startswith("read_")),
        *(pg.workloads.layered, pg.workloads.random_dag, pg.workloads.fork_join, pg.workloads.series_parallel),
        *(pg.envs.AssignEnv, pg.envs.AssignVectorEnv, pg.envs.SelectPlaceEnv, pg.envs.SelectPlaceVectorEnv),
        *(getattr(pg.envs.PlacementEnv, name) for name in ("reset", "step", "set_state", "noisy_makespans_s")),
        *(getattr(pg.envs.PlacementVectorEnv, name) for name in ("reset", "step", "set_state", "noisy_makespans_s")),
    ],
)
def test_signatures_are_short(function: Callable[..., object]) -> None:
    """`help` shows the names of types, not what they stand for."""
    for parameter in inspect.signature(function).parameters.values():
        assert len(str(parameter)) <= 80
        assert "numpy" not in str(parameter)


def test_arrays_are_read_only_copies() -> None:
    """Nobody changes a problem through an array, not even the one it was made from."""
    time = np.ones((2, 2))
    problem = pg.Problem.from_times(two_ops(), time)
    time[:] = 7.0
    assert problem.op_time_s.max() == 1.0
    with pytest.raises(ValueError, match="read-only"):
        problem.op_time_s[0, 0] = 3.0


def test_cluster_joins_pairs_as_said() -> None:
    """Named ordered pairs override the default link, one way only; unknown names list the known ones."""
    device = pg.Device("gpu", {"float32": 1e12}, 1e9)
    fast = pg.Link(1e-6, 5e9, (("gpu-0", "gpu-1"),))
    cluster = pg.Cluster.replicated([device], [2], pg.Link(1e-5, 1e9), [fast])
    assert cluster.bytes_per_s.tolist() == [[np.inf, 5e9], [1e9, np.inf]]
    assert cluster.latency_s.tolist() == [[0.0, 1e-6], [1e-5, 0.0]]
    with pytest.raises(InvalidCluster, match="unknown device 'gpu-7'; known: gpu-0, gpu-1"):
        pg.Cluster.replicated([device], [2], pg.Link(0, 1e9), [pg.Link(0, 1e9, (("gpu-0", "gpu-7"),))])
    with pytest.raises(InvalidCluster, match="memory_bytes_per_s is -1"):
        pg.Device("gpu", {}, -1.0)
    with pytest.raises(InvalidCluster, match="bytes_per_s is 0"):
        pg.Link(0.0, 0.0)


def test_roofline_by_hand() -> None:
    """The slower of arithmetic and traffic plus the launch; free ops are free; an unknown dtype cannot run."""
    graph = pg.OpGraph.build(
        ["compute", "memory", "free", "half"], [], dtypes=["float32", "float32", "float32", "float16"],
        flops=[10.0, 1.0, 0.0, 1.0], traffic_bytes=[1.0, 10.0, 0.0, 1.0],
    )  # fmt: skip
    cluster = pg.Cluster.uniform(
        pg.Device("d", {"float32": 2.0}, 4.0, launch_overhead_s=0.5), 1, latency_s=0, bytes_per_s=1
    )
    time = pg.RooflineCost(compute_efficiency=0.5).op_time_s(graph, cluster)
    assert time[:, 0].tolist() == [10.5, 3.0, 0.0, np.inf]
    with pytest.raises(InvalidProblem, match="op 'half' can run on no device"):
        pg.Problem.build(graph, cluster)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"op_time_s": [[-1.0], [1.0]]}, "op_time_s of op 'a' on device 'device0' is -1.0"),
        ({"op_time_s": [[np.nan], [1.0]]}, "op_time_s of op 'a' on device 'device0' is nan"),
        ({"op_time_s": [[np.inf], [1.0]]}, "op 'a' can run on no device"),
        ({"op_time_s": [[1.0]]}, r"op_time_s has shape \(1, 1\); expected \(2, 1\)"),
        ({"device_memory_bytes": 1.0, "op_memory_bytes": [0.0, 2.0]}, "op 'b' needs 2 bytes"),
        ({"device_kinds": ["gpu"]}, "device 'device0': unknown kind 'gpu'; known: accelerator, cpu"),
        ({"device_slots": 0}, "slots of device 'device0' is 0"),
        ({"device_slots": 1.5}, r"device_slots is \[1.5\]; expected whole numbers"),
        ({"device_node": [-1]}, "device_node of device 'device0' is -1; expected >= 0"),
        ({"device_node": [0, 1]}, r"device_node has shape \(2,\); expected \(1,\)"),
        ({"device_node": [0.5]}, r"device_node is \[0.5\]; expected whole numbers"),
        ({"op_memory_bytes": [0.0, np.nan]}, "op_memory_bytes of op 'b' is nan"),
    ],
)
def test_problem_refuses(options: dict[str, object], said: str) -> None:
    """Each impossible number is named with its op and device."""
    with pytest.raises(InvalidProblem, match=said):
        pg.Problem.from_times(two_ops(), **{"op_time_s": np.ones((2, 1)), **options})  # type: ignore[arg-type]


def test_colocation_without_a_common_device_is_refused() -> None:
    """Two ops that must share a device but run on none in common."""
    with pytest.raises(InvalidProblem, match="colocation group 0"):
        pg.Problem.from_times(two_ops(colocation=[0, 0]), [[1.0, np.inf], [np.inf, 1.0]])


@settings(max_examples=30, deadline=None)
@given(placed_problems())
def test_saved_problems_come_back(tmp_path_factory: pytest.TempPathFactory, placed: Placed) -> None:
    """One file holds the whole problem: the fingerprint, over every array, is the same."""
    path = tmp_path_factory.mktemp("problems") / "problem.npz"
    placed[0].save(path)
    assert pg.Problem.load(path).fingerprint == placed[0].fingerprint


def test_devices_share_a_node_as_said(tmp_path: Path) -> None:
    """Each device is a node of its own where nothing is said; nodes are saved and part of the fingerprint."""
    times = np.ones((2, 3))
    alone = pg.Problem.from_times(two_ops(), times)
    assert alone.device_node.dtype == np.int32
    assert alone.device_node.tolist() == [0, 1, 2]
    together = pg.Problem.from_times(two_ops(), times, device_node=[0, 0, 1])
    assert together.fingerprint != alone.fingerprint
    together.save(tmp_path / "problem.npz")
    loaded = pg.Problem.load(tmp_path / "problem.npz")
    assert loaded.device_node.tolist() == [0, 0, 1]
    assert loaded.fingerprint == together.fingerprint
    built = pg.Problem.build(pg.OpGraph.build(["a"], []), pg.presets.cluster("2x8v100_ethernet"))
    assert built.device_node.tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize(
    ("version", "printed", "lacks"),
    [(1, FIRST_FINGERPRINT, ("device_node", "memory_rule")), (2, SECOND_FINGERPRINT, ("memory_rule",))],
)
def test_files_of_older_formats_are_read(tmp_path: Path, version: int, printed: str, lacks: tuple[str, ...]) -> None:
    """A file without `device_node` or memory rule loads with what then held; its own fingerprint is checked."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 4.0)])
    problem = pg.Problem.from_times(graph, [[1.0, 2.0], [3.0, 4.0]], name="old", op_memory_bytes=graph.op_output_bytes)
    problem.save(tmp_path / "new.npz")
    left_out = {"header", *(f"problem.{name}" for name in lacks)}
    with np.load(tmp_path / "new.npz") as data:
        arrays = {key: data[key] for key in data.files if key not in left_out}
    for fingerprint, sound in ((printed, True), ("0" * 64, False)):
        text = f'{{"format": "placement_gym.problem.v{version}", "fingerprint": "{fingerprint}"}}'
        np.savez(tmp_path / "old.npz", header=np.frombuffer(text.encode(), np.uint8), **arrays)
        if sound:
            loaded = pg.Problem.load(tmp_path / "old.npz")
            assert loaded.fingerprint == problem.fingerprint
            assert (loaded.device_node.tolist(), loaded.memory_rule) == ([0, 1], "claims")
        else:
            with pytest.raises(InvalidFile, match="does not match its fingerprint"):
                pg.Problem.load(tmp_path / "old.npz")


def test_a_fingerprint_is_of_everything_but_the_name() -> None:
    """A problem of another name is the same problem; one that differs in any array is not."""
    times: dict[str, object] = {"op_time_s": np.ones((2, 2))}
    names = {pg.Problem.from_times(two_ops(), name=name, **times).fingerprint for name in ("a", "b")}  # type: ignore[arg-type]
    assert len(names) == 1
    changes: list[dict[str, object]] = [
        {"op_time_s": np.full((2, 2), 2.0)},
        {"link_latency_s": 1.0},
        {"link_bytes_per_s": 1.0},
        {"device_names": ["x", "y"]},
        {"device_kinds": ["cpu", "accelerator"]},
        {"device_slots": 2},
        {"device_memory_bytes": 1e9},
        {"op_memory_bytes": [1.0, 2.0]},
        {"device_node": [0, 0]},
        {"tick_s": 1.0},
    ]
    changed = {pg.Problem.from_times(two_ops(), **{**times, **change}).fingerprint for change in changes}  # type: ignore[arg-type]
    assert len(changed | names) == len(changes) + 1
    graphs = [two_ops(kinds=["x", "y"]), two_ops(dtypes="float16"), two_ops(flops=1.0)]
    assert len({pg.Problem.from_times(graph, np.ones((2, 2))).fingerprint for graph in graphs} | names) == 4


@pytest.mark.parametrize("n_ops", [1, 20, 3000])
def test_nouns_print_in_five_lines(n_ops: int) -> None:
    """A problem and its graph print in at most five short lines with units, whatever their size."""
    problem = pg.workloads.layered(n_ops=n_ops, n_devices=1 if n_ops == 1 else 64)
    for noun in (problem, problem.graph):
        lines = repr(noun).splitlines()
        assert 1 <= len(lines) <= 5
        assert max(len(line) for line in lines) <= 140
        assert f"{n_ops} op" in lines[0]
        assert " bytes" in repr(noun)
    assert " s;" in repr(problem)
    assert "bytes/s" in repr(problem)


@pytest.mark.parametrize("compressed", [True, False])
def test_any_damage_to_a_saved_problem_is_an_invalid_file(tmp_path: Path, compressed: bool) -> None:
    """Bytes changed, dropped or doubled at random: the problem as it was, or InvalidFile, and never another error."""
    path = tmp_path / "problem.npz"
    problem = pg.workloads.layered(n_ops=6, n_devices=2)
    problem.save(path)
    if not compressed:
        with np.load(path) as data:
            arrays = dict(data)
        np.savez(path, **arrays)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(N_MUTATIONS):
        path.write_bytes(mutated(whole, rng))
        try:
            assert pg.Problem.load(path).fingerprint == problem.fingerprint
        except InvalidFile:
            refused += 1
    assert refused > N_MUTATIONS / 2


def _without_fields(arrays: dict[str, np.ndarray], **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    both = {**arrays, **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in both.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"header": np.frombuffer(b"[1]", np.uint8)}, "its header is a list"),
        ({"header": np.frombuffer(b"[" * 100_000, np.uint8)}, "not a saved problem"),
        ({"header": None}, "header"),
        ({"graph__op_flops": None}, "field 'graph.op_flops' is missing"),
        ({"graph__op_names": np.ones(6)}, "field 'graph.op_names' has dtype float64; expected text"),
        ({"graph__op_flops": np.array(["x"] * 6)}, "field 'graph.op_flops' has dtype <U1; expected numbers"),
        ({"graph__op_flops": np.ones(6, complex)}, "expected numbers"),
        ({"graph__op_flops": np.ones(5)}, r"op_flops has shape \(5,\)"),
        ({"graph__op_flops": np.full(6, np.nan)}, "op_flops of op 'op0' is nan"),
        ({"problem__tick_s": np.ones(2)}, r"field 'problem.tick_s' has shape \(2,\)"),
        ({"problem__device_names": np.array("x")}, "field 'problem.device_names' has shape"),
        ({"problem__device_kinds": np.array(["a", "b"])}, "unknown kind 'a'"),
        ({"problem__op_time_s": np.zeros((6, 2))}, "does not match its fingerprint"),
        ({"problem__op_time_s": np.array([None] * 6)}, "not a saved problem"),
    ],
)
def test_wrong_content_of_a_saved_problem_is_named(
    tmp_path: Path, changes: dict[str, np.ndarray | None], said: str
) -> None:
    """A sound file with a wrong field is refused by the field's name."""
    path = tmp_path / "problem.npz"
    pg.workloads.layered(n_ops=6, n_devices=2).save(path)
    with np.load(path) as data:
        arrays = dict(data)
    np.savez(path, **_without_fields(arrays, **changes))
    with pytest.raises(InvalidFile, match=said):
        pg.Problem.load(path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the sizes that a file declares nor the shapes of its arrays make the reader allocate."""
    path = tmp_path / "problem.npz"
    problem = pg.workloads.layered(n_ops=6, n_devices=2)
    problem.save(path)
    with zipfile.ZipFile(path, "a") as file:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
        file.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InvalidFile, match="does not fit its 0 bytes"):
        pg.Problem.load(path)
    problem.save(path)
    monkeypatch.setattr(files, "LARGEST_BYTES", 100)
    with pytest.raises(InvalidFile, match="at most 100 are read"):
        pg.Problem.load(path)


def test_damaged_problem_files_are_named(tmp_path: Path) -> None:
    """Missing, truncated and foreign files each give one error; a failed write leaves the old file whole."""
    path = tmp_path / "problem.npz"
    problem = pg.workloads.layered(n_ops=20)
    problem.save(path)
    whole = path.read_bytes()
    with pytest.raises(InvalidFile, match="no such file"):
        pg.Problem.load(tmp_path / "absent.npz")
    with pytest.raises(InvalidFile, match="cannot write"):
        problem.save(tmp_path / "absent" / "problem.npz")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidFile, match="not a saved problem, or truncated"):
        pg.Problem.load(path)
    np.savez(path, header=np.frombuffer(b'{"format": "other"}', np.uint8))
    with pytest.raises(InvalidFile, match="format is 'other'"):
        pg.Problem.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["problem.npz"]


def test_placements_may_be_padded() -> None:
    """-1 behind the last op is padding, as environments give it; -1 at an op, or a device behind, is not."""
    problem = pg.workloads.layered(n_ops=4, n_devices=2, seed=0)
    op_device = [0, 1, 1, 0]
    padded = np.array([*op_device, -1, -1])
    assert pg.simulate(problem, padded).makespan_s == pg.simulate(problem, op_device).makespan_s
    assert pg.objectives.max_load_s(problem, padded) == pg.objectives.max_load_s(problem, op_device)
    pg.Placement(padded).check(problem)
    for wrong in ([0, 1, 1, -1], [*op_device, -1, 0], [*op_device, 0]):
        with pytest.raises(InfeasiblePlacement):
            pg.simulate(problem, wrong)


def test_infeasible_placements_say_why() -> None:
    """Support, memory and colocation: what, where, by how much."""
    graph = pg.OpGraph.build(["a", "b", "c"], [], colocation=[0, 0, -1])
    problem = pg.Problem.from_times(
        graph, [[1, 1], [1, 1], [1, np.inf]], device_memory_bytes=2.0, op_memory_bytes=[1.0, 1.0, 1.0]
    )
    pg.Placement(np.array([1, 1, 0])).check(problem)
    for placement, said in (
        ([0, 0, 1], r"op 'c' cannot run on device 'device1'; it can run on \['device0'\]"),
        ([0, 0, 0], "device 'device0' would hold 3 bytes; its memory is 2"),
        ([0, 1, 0], "op 'b' is on device 'device1' but 'a' of the same colocation group 0"),
    ):
        with pytest.raises(InfeasiblePlacement, match=said):
            pg.Placement(np.array(placement)).check(problem)


def test_levels_by_hand() -> None:
    """A (1) -> b (2) -> d (1), a -> c (5) -> d; every edge 0.5: the longest way is a c d, 1 + 0.5 + 5 + 0.5 + 1."""
    graph = pg.OpGraph.build(["a", "b", "c", "d"], [(0, 1, 1.0), (0, 2, 1.0), (1, 3, 1.0), (2, 3, 1.0)])
    problem = pg.Problem.from_times(graph, np.repeat([[1.0], [2.0], [5.0], [1.0]], 2, axis=1), link_bytes_per_s=2.0)
    time, edge = ranks.mean_op_time_s(problem), ranks.mean_edge_time_s(problem)
    assert edge.tolist() == [0.5] * 4
    assert ranks.b_level_s(problem, time, edge).tolist() == [8.0, 3.5, 6.5, 1.0]
    assert ranks.t_level_s(problem, time, edge).tolist() == [0.0, 1.5, 1.5, 7.0]
    assert ranks.critical_path(problem, time, edge).tolist() == [0, 2, 3]
