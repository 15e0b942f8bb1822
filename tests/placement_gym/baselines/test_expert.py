"""An expert's split: what is read, what is measured, what is said of files that are not right."""

import json
from pathlib import Path

import pytest
from published import Published

import placement_gym as pg
from placement_gym.baselines import expert
from placement_gym.errors import InfeasiblePlacement, InvalidFile


def write(path: Path, fpgas: list[list[object]], cpus: list[list[object]]) -> Path:
    """A split in the experts' format."""
    path.write_text(json.dumps({"fpgas": [{"nodes": x} for x in fpgas], "cpus": [{"nodes": x} for x in cpus]}))
    return path


def layers() -> pg.Problem:
    """Layers 1 and 2, forward and backward (numbers 3 and 4, in the order of the ops), layer by layer colocated."""
    graph = pg.OpGraph.build(
        ["node1", "node1grad", "node2", "node2grad"],
        [(0, 2, 1.0), (2, 3, 1.0), (3, 1, 1.0)],
        is_backward=[False, True, False, True],
        colocation=[0, 0, 1, 1],
    )
    time = [[s, s, 10 * s] for s in (1.0, 2.0, 3.0, 4.0)]
    return pg.Problem.from_times(graph, time, link_bytes_per_s=1.0, device_kinds=["accelerator", "accelerator", "cpu"])


def test_expert_is_read_and_measured(tmp_path: Path) -> None:
    """By hand: layer 1 on accelerator 1 works 3 s, layer 2 on accelerator 0 works 7 s, both send and fetch 1 s each."""
    problem = layers()
    for fpgas in ([[2, 4], [1, 3]], [[2], [1]], [["node2grad"], ["node1", 3]]):
        result = expert(problem, path=write(tmp_path / "split.json", fpgas, [[]]))  # type: ignore[arg-type]
        assert result.placement.op_device.tolist() == [1, 1, 0, 0]
        assert (result.objective, result.objective_name) == (9.0, "max_load")
    split = write(tmp_path / "split.json", [[1]], [[2]])
    assert expert(problem, path=split, objective="makespan").objective_name == "makespan"
    assert expert(problem, path=split).placement.op_device.tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected a split"),
        ("[1]", "field 'fpgas' is missing or no list"),
        ('{"fpgas": []}', "field 'cpus' is missing or no list"),
        ('{"fpgas": [{"nodes": 1}], "cpus": []}', r"fpgas\[0\] has no list 'nodes'"),
        ('{"fpgas": [{"nodes": [true]}], "cpus": []}', r"fpgas\[0\] has no list 'nodes' of numbers or names"),
        ('{"fpgas": [{"nodes": [1, 9]}], "cpus": []}', r"fpgas\[0\] holds node 9; 'problem' has no such op"),
        ('{"fpgas": [{"nodes": [1]}], "cpus": [{"nodes": [1]}]}', r"node 1 in cpus\[0\] is listed twice"),
        ('{"fpgas": [{"nodes": [1]}], "cpus": []}', "op 'node2' of 'problem' is on no device"),
    ],
)
def test_damaged_splits_are_named(tmp_path: Path, text: str, said: str) -> None:
    """Each gives one error with the path and what is wrong."""
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InvalidFile, match=said) as caught:
        expert(layers(), path=tmp_path / "split.json")
    assert str(tmp_path / "split.json") in str(caught.value)


def test_splits_that_do_not_fit_are_infeasible(tmp_path: Path) -> None:
    """A missing file, more parts than devices, a group apart."""
    with pytest.raises(InvalidFile, match="no such file"):
        expert(layers(), path=tmp_path / "absent.json")
    with pytest.raises(InfeasiblePlacement, match=r"fpgas\[2\] holds 1 nodes; 'problem' has 2 such devices"):
        expert(layers(), path=write(tmp_path / "split.json", [[], [1], [2]], []))
    with pytest.raises(InfeasiblePlacement, match="same colocation group"):
        expert(layers(), path=write(tmp_path / "split.json", [[1], [2, 3]], []))


def test_experts_splits_have_the_published_loads(published: Published) -> None:
    """The six digits that the paper's program prints, for all seven throughput instances that have an expert."""
    checked = 0
    for name, values in published.values.items():
        if "human_expert" in values["max_load"]:
            experts, model = published.folder / "human-experts", name.rpartition("/")[2]
            split = experts / f"{model}_expert.json"
            if not split.exists():
                split = experts / f"{model.replace('training', 'inference')}_expert.json"
            result = expert(published.problem(name), path=split)
            assert result.objective * 1e3 == pytest.approx(values["max_load"]["human_expert"], rel=6e-6), name
            checked += 1
    assert checked == 7


@pytest.mark.parametrize("model", ["bert24", "inceptionv3", "resnet50"])
def test_experts_splits_have_the_published_latencies(published: Published, tmp_path: Path, model: str) -> None:
    """With six accelerators and enough memory, which the paper's program does not insist on and the instances lack."""
    name = f"latency-inputs/LayerGraphs/{model}_inference"
    expected_ms = published.values[name]["latency_q1"]["human_expert_split"]
    split = published.folder / "human-experts" / f"{model}_inference_expert.json"
    if model == "bert24":
        with pytest.raises(InfeasiblePlacement, match="has 5 such devices"):
            expert(published.problem(name), path=split, objective="latency")
    else:
        result = expert(published.problem(name), path=split, objective="latency")
        assert (result.status, result.excess_bytes > 0) == ("no_feasible_found", True)
    data = json.loads((published.folder / f"{name}.json").read_text())
    (tmp_path / "roomy.json").write_text(json.dumps({**data, "maxFPGAs": 6, "maxSizePerFPGA": 1e12}))
    roomy = pg.workloads.read_dnn_partitioning(tmp_path / "roomy.json")
    assert expert(roomy, path=split, objective="latency").objective * 1e3 == pytest.approx(expected_ms, abs=5.1e-4)
