"""ProfiledCost: seconds of ops from measured kernels."""

from pathlib import Path

import numpy as np
import pytest
from executable import chain, made_up_profile

from placement_gym.cluster import Cluster, Device, Link
from placement_gym.costs.model import ProfiledCost, TableCost
from placement_gym.errors import InvalidFile, InvalidProblem
from placement_gym.graph import OpGraph
from placement_gym.problem import Problem


@pytest.mark.parametrize(("load", "kernel_s"), [("alone", 1e-3), ("mean", 1.5e-3), ("loaded", 2e-3)])
def test_an_op_takes_its_kernels_time_and_the_overhead(load: str, kernel_s: float) -> None:
    """On every device of the model; the overhead is the profile's, or the one given."""
    graph = chain()
    profile = made_up_profile(graph)
    cluster = profile.cluster(["cpu:1", "cpu:0"])
    measured = ProfiledCost(profile, load=load)  # type: ignore[arg-type]
    np.testing.assert_allclose(measured.op_time_s(graph, cluster), np.full((3, 2), kernel_s + 1e-5))
    given = ProfiledCost(profile, load, overhead_s=0.25)  # type: ignore[arg-type]
    np.testing.assert_allclose(given.op_time_s(graph, cluster), np.full((3, 2), kernel_s + 0.25))


def test_a_problem_is_built_from_a_file(tmp_path: Path) -> None:
    """Loaded kernels where nothing else is said."""
    made_up_profile(chain()).save(tmp_path / "p.json")
    costs = ProfiledCost.of_file(str(tmp_path / "p.json"))
    problem = Problem.build(chain(), costs.profile.cluster(), costs=costs)
    np.testing.assert_allclose(problem.op_time_s, 2e-3 + 1e-5)
    with pytest.raises(InvalidFile, match=r"gone\.json: no such profile"):
        ProfiledCost.of_file(str(tmp_path / "gone.json"))


def test_a_kernel_that_was_not_measured_is_named() -> None:
    """With its op and the command that measures it."""
    costs = ProfiledCost(made_up_profile(chain(1)))
    with pytest.raises(
        InvalidProblem,
        match=r"op 'op1': its kernel relu\[ab->ab\]\(\)\(float32\[16,16\]\).* not measured on 'cpu'; "
        r"measure it with `python -m experiments\.profile workload=",
    ):
        costs.op_time_s(chain(2), costs.profile.cluster())


def test_a_graph_without_kernels_has_no_profiled_costs() -> None:
    """The message says which workloads have."""
    costs = ProfiledCost(made_up_profile(chain()))
    with pytest.raises(InvalidProblem, match=r"no kernels.*split program or a captured module"):
        costs.op_time_s(OpGraph.build(["a"], []), costs.profile.cluster())


def test_devices_of_another_cluster_are_refused() -> None:
    """The message says which cluster fits."""
    cluster = Cluster.uniform(Device("p100", {}, 1e9), 2, latency_s=0, bytes_per_s=1e9)
    with pytest.raises(InvalidProblem, match=r"unknown device 'p100-0'; known: cpu:0, cpu:1; .*cluster=profiled"):
        ProfiledCost(made_up_profile(chain())).op_time_s(chain(), cluster)


TWO_DEVICES = Cluster.build(
    [Device(name, {"float32": 1e12}, memory_bytes_per_s=1e12) for name in ("gpu", "host")], Link(0.0, 1e9)
)


def test_a_table_gives_its_seconds() -> None:
    """Each op takes what its row says; a device that the row leaves out cannot run it; others are not used."""
    table = TableCost({"a": {"gpu": 1.0, "host": 3.0, "tpu": 9.0}, "b": {"gpu": 2.0}, "of another graph": {"tpu": 1.0}})
    time_s = table.op_time_s(OpGraph.build(["b", "a"], []), TWO_DEVICES)
    assert time_s.tolist() == [[2.0, np.inf], [1.0, 3.0]]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ({}, "no row for 2 of 2 ops: 'a', 'b'; its rows are $"),
        ({"x": {"gpu": 1.0, "host": 1.0}}, "no row for 2 of 2 ops: 'a', 'b'; its rows are 'x'"),
        ({"a": {"gpu": 1.0, "host": 1.0}, "bb": {"gpu": 1.0}}, "no row for 1 of 2 ops: 'b'; its rows are 'bb'"),
        ({"a": {"cuda": 1.0}, "b": {"cuda": 1.0}}, "row of op 'a': unknown device 'cuda'; known: gpu, host"),
        ({"a": {"gpu": 1.0}, "b": {"gpu": 1.0, "Host": 1.0}}, "row of op 'b': unknown device 'Host'; known: gpu, host"),
        ({"a": {"gpu": 1.0}, "b": {"gpu": 1.0}}, "no times for the devices 'host'; it has times for 'gpu'"),
        ({"a": {}, "b": {}}, "no times for the devices 'gpu', 'host'"),
    ],
)
def test_a_table_whose_names_do_not_match_is_refused(seconds: dict[str, dict[str, float]], said: str) -> None:
    """Ops and devices that the table does not know, and devices that the cluster does not have, are named."""
    with pytest.raises(InvalidProblem, match=said):
        TableCost(seconds).op_time_s(OpGraph.build(["a", "b"], []), TWO_DEVICES)
