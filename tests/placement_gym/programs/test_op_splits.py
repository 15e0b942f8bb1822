"""OpSplits: the choice of splits, and the bytes that it counts."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import PROGRAMS, plans

from placement_gym.errors import InvalidProgram
from placement_gym.op_kernel import DTYPE_BYTES
from placement_gym.programs import OpSplits, ProgramBuilder, Split, TensorProgram, shard
from placement_gym.programs.elimination import minimise, total
from placement_gym.programs.movement import Estimate
from placement_gym.programs.split import candidates


def matmuls(*sizes: int) -> TensorProgram:
    """A chain: x [sizes[0], sizes[1]] times w0 [sizes[1], sizes[2]] times ...; float32."""
    b = ProgramBuilder("matmuls")
    y = b.input("x", sizes[:2])
    for k, shape in enumerate(pairwise(sizes[1:])):
        y = b.op("einsum", "ij,jk->ik", y, b.parameter(f"w{k}", shape), name=f"mm{k}")
    return b.build(y)


def moved_by_elements(plan: OpSplits) -> float:
    """Aligned bytes, counted element by element: who holds each, who reads it elsewhere."""
    moved = 0.0
    holder: dict[int, np.ndarray] = {}
    for i, (op, split) in enumerate(zip(plan.program.ops, plan.op_split, strict=True)):
        if op.is_source:
            continue
        for k in {
            (source, labels): k for k, (source, labels) in enumerate(zip(op.inputs, op.input_labels, strict=True))
        }.values():
            source = op.inputs[k]
            if source in holder:
                for j, bounds in enumerate(split.input_bounds(op, k)):
                    read = holder[source][tuple(slice(a, b) for a, b in bounds)]
                    moved += float((read != j).sum()) * DTYPE_BYTES[plan.program.ops[source].dtype]
        holder[i] = np.full(op.shape, -1)
        for j, bounds in enumerate(split.bounds(op, op.labels)):
            region = tuple(slice(a, b) for a, b in bounds)
            if (holder[i][region] >= 0).all():
                moved += float(holder[i][region].size) * DTYPE_BYTES[op.dtype]
            else:
                holder[i][region] = j
    return moved


def test_moved_bytes_of_two_matmuls_by_hand() -> None:
    """Columns, then rows: each of two devices lacks a quarter of the 8 x 8 matrix between them."""
    program = matmuls(8, 8, 8, 8)
    plan = OpSplits.of(program, {"mm0": {"k": 2}, "mm1": {"i": 2}}, n=2, estimate="aligned")
    assert plan.moved_bytes == 2 * 16 * 4
    joined = OpSplits.of(program, {"mm0": {"k": 2}, "mm1": {"j": 2}}, n=2, estimate="aligned")
    assert joined.moved_bytes == 64 * 4
    # Scattered: x twice and w0 once, the matrix between twice (by halves), w1 twice; halves put together once each.
    scattered = OpSplits.of(program, {"mm0": {"k": 2}, "mm1": {"i": 2}}, n=2, estimate="scattered")
    assert scattered.moved_bytes == (2 + 1 + 1 + 2 + 1) * 64 * 4


def test_column_then_row_parallel_is_found() -> None:
    """One token through a wide hidden layer: the hidden label is cut in both matmuls, with one join of the output."""
    b = ProgramBuilder("mlp")
    h = b.op("einsum", "bd,dh->bh", b.input("x", (1, 16)), b.parameter("w1", (16, 64)), name="up")
    y = b.op("einsum", "bh,ho->bo", b.op("relu", "bh->bh", h), b.parameter("w2", (64, 16)), name="down")
    plan = OpSplits.of(b.build(y), n=4, estimate="aligned")
    assert [split.label_blocks for split in plan.op_split if split.label_blocks] == [(("h", 4),)] * 3
    assert plan.optimal
    assert plan.moved_bytes == 3 * 16 * 4


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_moved_bytes_equal_those_counted_by_element(name: str, data: st.DataObject) -> None:
    """For any splits."""
    plan = data.draw(plans(PROGRAMS[name]()))
    assert plan.moved_bytes == moved_by_elements(plan)


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_scattered_bytes_bound_those_of_the_graph(name: str, data: st.DataObject) -> None:
    """All edges of the graph and what its ops read of sources: less only where ops share what is put together."""
    drawn = data.draw(plans(PROGRAMS[name]()))
    plan = OpSplits(drawn.program, drawn.op_split, "scattered")
    graph = shard(plan.program, plan=plan)
    assert graph.kernels is not None
    kernels = [k for k, kind in zip(graph.kernels.op_kernels, graph.op_kinds, strict=True) if kind != "repartition"]
    sources = sum(o.n_bytes for kernel in kernels for o in dict.fromkeys(kernel.operands) if o.op < 0)
    moved = float(graph.edge_bytes.sum()) + sources
    assert moved <= plan.moved_bytes
    if name == "chain":
        assert moved == plan.moved_bytes


@pytest.mark.parametrize("estimate", ["aligned", "scattered"])
@pytest.mark.parametrize(
    ("sizes", "n"), [((4, 6, 5, 3), 4), ((1, 8, 16, 8), 4), ((2, 3, 7, 2), 8), ((9, 1, 9, 5, 2), 2)]
)
def test_plan_equals_brute_force(sizes: tuple[int, ...], n: int, estimate: Estimate) -> None:
    """No combination of candidates moves fewer bytes."""
    program = matmuls(*sizes)
    options = [[Split()] if op.is_source else candidates(op, n) for op in program.ops]
    best = min(OpSplits(program, splits, estimate).moved_bytes for splits in product(*options))
    plan = OpSplits.of(program, n=n, estimate=estimate)
    assert plan.optimal
    assert plan.moved_bytes == best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([1, 4, 20, 10_000]))
def test_elimination_equals_brute_force(seed: int, n: int, max_entries: int) -> None:
    """On random tables: a minimum where it says so, which large tables always allow; never below it."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, n)
    own = [rng.integers(0, 9, size).astype(float) for size in sizes]
    pairs = {
        (a, b): rng.integers(0, 9, (sizes[a], sizes[b])).astype(float)
        for a in range(n)
        for b in range(n)
        if a != b and rng.random() < 0.5
    }
    best = min(total(own, pairs, choices) for choices in product(*(range(size) for size in sizes)))
    choices, exact = minimise(own, pairs, max_entries=max_entries)
    value = total(own, pairs, choices)
    assert value == best if exact else value >= best
    assert exact or max_entries < 10_000


def test_search_finds_the_minimum_where_tables_are_too_large() -> None:
    """A grid of variables: rounds that hold different variables reach it with small tables, greedy choices do not."""
    rng = np.random.default_rng(4)
    side, size = 6, 4
    own = [rng.random(size) for _ in range(side * side)]
    pairs = {}
    for row, column in product(range(side), range(side)):
        for other in ([row, column + 1], [row + 1, column]):
            if max(other) < side:
                pairs[row * side + column, other[0] * side + other[1]] = rng.random((size, size))
    exact, proven = minimise(own, pairs, max_entries=10**6)
    found, found_proven = minimise(own, pairs, max_entries=1000)
    alone, _ = minimise(own, pairs, max_entries=1)
    assert (proven, found_proven) == (True, False)
    assert total(own, pairs, found) == total(own, pairs, exact) < total(own, pairs, alone)


def test_a_tensor_read_twice_by_the_same_labels_moves_once() -> None:
    """Scattered: x + y reads two tensors, x + x one; tables of ops that differ in nothing else are not mixed up."""
    for order in ((0, 1), (1, 0)):
        b = ProgramBuilder("twice")
        x, y = b.input("x", (4, 4)), b.input("y", (4, 4))
        sums = [b.op("add", "ij,ij->ij", *((x, x), (x, y))[which]) for which in order]
        plan = OpSplits.of(b.build(*sums), n=4, estimate="scattered")
        assert plan.moved_bytes == 3 * 4 * 4 * 4


def test_given_splits_are_kept_and_the_others_fit_them() -> None:
    """Rows are given to the second matmul, so the first is cut by rows too, and nothing moves."""
    program = matmuls(8, 8, 8, 8)
    plan = OpSplits.of(program, {"mm1": {"i": 4}}, n=4, estimate="aligned")
    assert plan.op_split[2] == plan.op_split[4] == Split((("i", 4),))
    assert plan.moved_bytes == 0
    whole = OpSplits.of(program, {"mm0": {}}, n=4, estimate="aligned")
    assert whole.op_split[2] == Split()
    assert whole.moved_bytes > 0


def test_wrong_plans_are_refused() -> None:
    """Unknown ops and labels, sources, labels too small, estimates, numbers of splits and of blocks."""
    program = matmuls(8, 8, 8)
    for wrong, message in (
        ({"mm7": {"i": 2}}, "plan for matmuls: unknown op 'mm7'; known: mm0, w0, x"),
        ({"w0": {"axis0": 2}}, "'w0' is a parameter, which is not cut; its readers are"),
        ({"mm0": {"z": 2}}, "split of op 'mm0': unknown label 'z'; known: i, j, k"),
        ({"mm0": {"i": 16}}, "label 'i' of size 8 in 16 blocks"),
    ):
        with pytest.raises(InvalidProgram, match=message):
            OpSplits.of(program, wrong)
    with pytest.raises(InvalidProgram, match="1 splits; expected 3, one per op"):
        OpSplits(program, (Split(),))
    with pytest.raises(InvalidProgram, match="unknown estimate 'x'; known: aligned, scattered"):
        OpSplits.of(program, estimate="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidProgram, match="n is 5; expected a power of two"):
        OpSplits.of(program, n=5)


@pytest.mark.parametrize("n_layers", [1, 200])
def test_programs_and_their_splits_print_in_five_lines(n_layers: int) -> None:
    """With units, whatever their size."""
    program = matmuls(*[8] * (n_layers + 2))
    splits = OpSplits.of(program, n=4)
    for noun in (program, splits):
        lines = repr(noun).splitlines()
        assert 1 <= len(lines) <= 5
        assert max(len(line) for line in lines) <= 140
        assert "'matmuls'" in lines[0]
    assert f"{splits.moved_bytes:.6g} bytes move" in repr(splits)
    assert f"{n_layers} ops in {4 * n_layers} blocks" in repr(splits)
    assert f"{1024 * n_layers:.4g} FLOP; parameters: {256 * n_layers:.4g} bytes" in repr(program)
