"""shard: the graph computes what the program does, and its costs are those of the shards."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import PROGRAMS, plans

import placement_gym as pg
from placement_gym.errors import ExecutionError, InvalidProgram
from placement_gym.graph import OpGraph
from placement_gym.programs import OpSplits, ProgramBuilder, TensorProgram, shard
from placement_gym.programs.movement import Estimate
from placement_gym.pytorch.programs import random_sources, run_graph, run_program


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small convolutions on many threads take a hundred times as long where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_computes(graph: OpGraph, program: TensorProgram) -> None:
    """The results of the graph are the outputs of the program."""
    values = random_sources(program.named_sources)
    expected, got = run_program(program, values), run_graph(graph, values)
    assert list(expected) == list(got)
    for name, tensor in expected.items():
        assert got[name].shape == tensor.shape
        assert torch.allclose(got[name], tensor, rtol=1e-10, atol=1e-10), name


def number_of(graph: OpGraph, name: str) -> int:
    """Op number by name."""
    return graph.op_names.index(name)


def shard_sums(graph: OpGraph, values: np.ndarray) -> dict[str, float]:
    """Sum over the blocks of every op of the program, without joins and repartitions."""
    sums: dict[str, float] = defaultdict(float)
    for name, kind, value in zip(graph.op_names, graph.op_kinds, values.tolist(), strict=True):
        if kind not in ("join", "repartition"):
            sums[name.rpartition("/")[0]] += value
    return sums


@pytest.mark.parametrize("estimate", ["aligned", "scattered"])
@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("name", PROGRAMS)
def test_graph_computes_what_the_program_does(name: str, n: int, estimate: Estimate) -> None:
    """Chosen splits, for every small program; FLOPs of the shards add up."""
    program = PROGRAMS[name]()
    graph = shard(program, n, estimate=estimate)
    assert_computes(graph, program)
    flops = shard_sums(graph, graph.op_flops)
    assert flops == {op.name: op.flops for op in program.ops if not op.is_source}
    if n == 1:
        copies = sum(program.ops[o].is_source for o in program.outputs)
        assert graph.n_ops == len(program.ops) - len(program.sources) + copies


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_plan_computes_what_the_program_does(name: str, data: st.DataObject) -> None:
    """Splits drawn at random, uneven and out of step with each other."""
    program = PROGRAMS[name]()
    graph = shard(program, plan=data.draw(plans(program)))
    assert_computes(graph, program)
    assert shard_sums(graph, graph.op_flops) == {op.name: op.flops for op in program.ops if not op.is_source}
    assert graph.order.tolist() == list(range(graph.n_ops))


def two_matmuls() -> TensorProgram:
    """Input x [6, 4], weights [4, 8] and [8, 10]; float32."""
    b = ProgramBuilder("two_matmuls")
    y = b.op("einsum", "ij,jk->ik", b.input("x", (6, 4)), b.parameter("w", (4, 8)), name="up")
    return b.build(b.op("einsum", "ij,jk->ik", y, b.parameter("v", (8, 10)), name="down"))


def test_costs_of_a_partial_sum_by_hand() -> None:
    """Columns, then the label summed over: blocks hand on whole outputs; one join adds two partial results."""
    program = two_matmuls()
    graph = shard(program, plan=OpSplits.of(program, {"up": {"k": 2}, "down": {"j": 2}}))
    assert graph.op_names == ("up/0", "up/1", "down/0", "down/1", "down/join0")
    assert graph.op_kinds == ("einsum",) * 4 + ("join",)
    up, down, join = 2 * 6 * 4 * 4, 2 * 6 * 4 * 10, 60
    assert graph.op_flops.tolist() == [up, up, down, down, join]
    assert graph.op_output_bytes.tolist() == [96, 96, 240, 240, 240]
    assert graph.op_parameter_bytes.tolist() == [64, 64, 160, 160, 0]
    assert graph.op_traffic_bytes.tolist() == [96 + 64 + 96] * 2 + [96 + 160 + 240] * 2 + [3 * 240]
    edges = list(zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), graph.edge_bytes.tolist(), strict=True))
    assert edges == [(0, 2, 96.0), (1, 3, 96.0), (2, 4, 240.0), (3, 4, 240.0)]
    assert len(set(graph.edge_tensor.tolist())) == 4
    assert set(graph.op_dtypes) == {"float32"}


def test_costs_of_repartitions_and_regions_by_hand() -> None:
    """Columns, then rows: two repartitions, each of a half of both blocks; rows, then the rows' quarters: regions."""
    program = two_matmuls()
    graph = shard(program, plan=OpSplits.of(program, {"up": {"k": 2}, "down": {"i": 2}}))
    assert graph.op_names == ("up/0", "up/1", "up/part0", "down/0", "up/part1", "down/1")
    part = number_of(graph, "up/part1")
    assert graph.op_kinds[part] == "repartition"
    assert graph.op_flops[part] == 0
    assert graph.op_traffic_bytes[part] == 2 * 96
    assert graph.op_output_bytes[part] == 96
    assert graph.edge_bytes.tolist() == [48, 48, 96, 48, 48, 96]
    assert len(set(graph.edge_tensor.tolist())) == 6
    assert graph.kernels is not None
    assert [o.region for o in graph.kernels.op_kernels[part].operands] == [((3, 6), (0, 4))] * 2
    graph = shard(program, plan=OpSplits.of(program, {"up": {"i": 1}, "down": {"i": 3, "k": 2}}))
    assert "repartition" not in graph.op_kinds
    assert graph.edge_bytes.tolist() == [2 * 8 * 4] * 6
    # Two blocks that differ in k alone read the same region, hence the same tensor.
    assert graph.edge_tensor.tolist() == [0, 0, 1, 1, 2, 2]


def test_repartition_is_shared_by_its_readers() -> None:
    """Two ops whose blocks all need the whole of a tensor in two blocks: put together once."""
    b = ProgramBuilder("shared")
    x = b.op("exp", "ij->ij", b.input("x", (4, 4)), name="x1")
    y = b.op("einsum", "ij,jk->ik", b.parameter("w", (4, 4)), x, name="y")
    z = b.op("einsum", "ij,jk->ik", b.parameter("u", (4, 4)), x, name="z")
    program = b.build(y, z)
    graph = shard(program, plan=OpSplits.of(program, {"x1": {"i": 2}, "y": {"i": 2}, "z": {"i": 2}}))
    assert [name for name in graph.op_names if "part" in name] == ["x1/part0"]
    part = number_of(graph, "x1/part0")
    assert len(set(graph.edge_tensor[graph.edge_src == part].tolist())) == 1
    assert (graph.edge_src == part).sum() == 4


def test_lookup_reads_rows_and_a_tensor_read_twice_is_read_once() -> None:
    """Traffic of an embedding is ids, rows and output, though it needs the whole table; x * x reads x once."""
    program = PROGRAMS["embedding"]()
    graph = shard(program, plan=OpSplits.of(program, {"embedding": {"b": 3}}))
    rows = 7 * 6 * 8
    assert graph.op_traffic_bytes[0] == rows + rows + 7 * 8
    assert graph.op_parameter_bytes[0] == 11 * 6 * 8
    # The last token alone goes to where it is selected.
    select = number_of(graph, "select/0")
    assert graph.edge_bytes[graph.edge_dst == select].max() <= 3 * 6 * 8
    graph = shard(PROGRAMS["same_tensor_twice"](), 1)
    mul = number_of(graph, "mul/0")
    assert (graph.edge_dst == mul).sum() == 1
    assert graph.op_traffic_bytes[mul] == 2 * 7 * 7 * 8


def test_maxima_are_joined_by_maximum_and_backward_ops_stay_backward() -> None:
    """Kernels of the joins, flags of what was split."""
    program = PROGRAMS["softmax_ffn"]()
    graph = shard(program, plan=OpSplits.of(program, {"max": {"o": 2, "b": 2}, "einsum_1": {"h": 2}}))
    assert graph.kernels is not None
    functions = {name: kernel.function for name, kernel in zip(graph.op_names, graph.kernels.op_kernels, strict=True)}
    assert functions["max/join0"] == functions["max/join1"] == "join_max"
    assert functions["einsum_1/join0"] == "join_add"
    program = PROGRAMS["backward"]()
    graph = shard(program, plan=OpSplits.of(program, {"einsum_1": {"b": 2}, "einsum_2": {"o": 2}}))
    backward = {name for name, flag in zip(graph.op_names, graph.op_is_backward.tolist(), strict=True) if flag}
    names = {f"einsum_{k}/{block}" for k in (1, 2) for block in ("0", "1", "join0")}
    assert {name for name in backward if "part" not in name} == names
    # What is put together for a backward op alone is backward, whoever made it.
    b = ProgramBuilder("flags")
    x = b.op("exp", "ij->ij", b.input("x", (4, 4)), name="x1")
    back = b.op("relu_gradient", "ij,ij->ij", b.input("dy", (4, 4)), x, name="back", is_backward=True)
    program = b.build(back)
    graph = shard(program, plan=OpSplits.of(program, {"x1": {"i": 2}, "back": {"j": 2}}))
    assert dict(zip(graph.op_names, graph.op_is_backward.tolist(), strict=True)) == {
        "x1/0": False, "x1/1": False, "x1/part0": True, "x1/part1": True, "back/0": True, "back/1": True,
    }  # fmt: skip


def doppler_chain() -> OpGraph:
    """CHAINMM of the paper: 16 blocks per op, priced as the released files are."""
    b = ProgramBuilder("chain")
    A, B, C, D, E = (b.parameter(name, (10_000, 10_000)) for name in "ABCDE")
    left, inner = b.op("einsum", "ij,jk->ik", A, B), b.op("einsum", "ij,jk->ik", D, E)
    right = b.op("einsum", "ij,jk->ik", C, inner)
    program = b.build(b.op("add", "ij,ij->ij", left, right))
    return shard(program, 16, estimate="scattered", costs="doppler_released")


def test_released_costs_of_doppler() -> None:
    """Every block is charged the whole op, every edge 4 x its producer; the shards of the chain number 76."""
    graph = doppler_chain()
    assert graph.n_ops == 76
    flops = dict(zip(graph.op_kinds, graph.op_flops.tolist(), strict=True))
    assert flops == {"einsum": 1e12, "join": 1e8, "add": 1e8}
    assert graph.edge_bytes.tolist() == (4 * graph.op_flops[graph.edge_src]).tolist()
    assert not graph.op_traffic_bytes.any()


def test_released_costs_are_those_of_the_published_file(shared_data: Path) -> None:
    """On devices of 1e10 FLOP/s and links of 1e10 bytes/s: the times of the published chain, kind by kind."""
    published = pg.workloads.read_doppler(shared_data / "doppler" / "chain_mm_112nodes.txt")
    device = pg.Device("gpu", {"float32": 1e10}, memory_bytes_per_s=1e12)
    cluster = pg.Cluster.uniform(device, 4, latency_s=0, bytes_per_s=1e10)
    ours = pg.Problem.build(doppler_chain(), cluster)
    assert ours.n_ops == published.n_ops
    for values in ("op_time_s", "link_bytes_per_s"):
        assert set(np.unique(getattr(ours, values))) == set(np.unique(getattr(published, values)))
    assert set(ours.graph.edge_bytes.tolist()) == set(published.graph.edge_bytes.tolist())


def test_problem_of_a_sharded_program_is_simulated_and_saved(tmp_path: Path) -> None:
    """A problem has the graph's kernels; the file that it is saved to has none, and an equal fingerprint."""
    device = pg.Device("gpu", {"float64": 1e12}, memory_bytes_per_s=1e12)
    cluster = pg.Cluster.uniform(device, 4, latency_s=1e-6, bytes_per_s=1e10)
    problem = pg.Problem.build(shard(PROGRAMS["attention"](), 4), cluster)
    schedule = pg.simulate(problem, np.arange(problem.n_ops, dtype=np.int32) % 4)
    assert schedule.makespan_s > 0
    problem.save(tmp_path / "attention.npz")
    loaded = pg.Problem.load(tmp_path / "attention.npz")
    assert problem.graph.kernels is not None
    assert loaded.graph.kernels is None
    assert loaded.fingerprint == problem.fingerprint
    with pytest.raises(ExecutionError, match=r"the graph has no kernels; expected one made by programs\.shard"):
        run_graph(loaded.graph, {})


def test_wrong_arguments_are_refused() -> None:
    """Unknown costs, a plan of another program, n, a source without a tensor of its shape."""
    program = two_matmuls()
    with pytest.raises(InvalidProgram, match="unknown costs 'x'; known: doppler_released, physical"):
        shard(program, costs="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidProgram, match="the plan is one of program 'chain'; expected a plan of 'two_matmuls'"):
        shard(program, plan=OpSplits.of(PROGRAMS["chain"]()))
    with pytest.raises(InvalidProgram, match="n is 3; expected a power of two"):
        shard(program, 3)
    graph = shard(program)
    with pytest.raises(ExecutionError, match=r"tensor of source 'x' is none; expected shape \(6, 4\)"):
        run_graph(graph, {})
    with pytest.raises(ExecutionError, match=r"tensor of source 'x' is \(2, 2\); expected shape \(6, 4\)"):
        run_graph(graph, {"x": torch.zeros(2, 2)})
