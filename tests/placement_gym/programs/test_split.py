"""Split: which cuts an op may have, and what its blocks are."""

import numpy as np
import pytest
from small_programs import PROGRAMS

from placement_gym.errors import InvalidProgram
from placement_gym.programs import ProgramBuilder, Split, TensorOp
from placement_gym.programs.split import MAX_CANDIDATES, candidates, splittable


def matmul(i: int = 8, j: int = 8, k: int = 8) -> TensorOp:
    """An op: x [i, j] times w [j, k]."""
    b = ProgramBuilder("matmul")
    b.op("einsum", "ij,jk->ik", b.input("x", (i, j)), b.parameter("w", (j, k)), name="mm")
    return b.ops[-1]


def test_candidates_are_all_orders_of_all_powers_of_two() -> None:
    """A matmul in 4 blocks: one label in 4, or two labels in 2 in either order."""
    found = {split.label_blocks for split in candidates(matmul(), 4)}
    pairs = {((a, 2), (b, 2)) for a in "ijk" for b in "ijk" if a != b}
    assert found == {((label, 4),) for label in "ijk"} | pairs
    assert len(candidates(matmul(), 4)) == 9


def test_candidates_reach_what_the_labels_allow() -> None:
    """Labels of size 3 and 1 allow 2 blocks at most; labels of 1 none; n = 1 is one block."""
    assert candidates(matmul(3, 1, 1), 8) == [Split((("i", 2),))]
    assert candidates(matmul(1, 1, 1), 8) == [Split()]
    assert candidates(matmul(), 1) == [Split()]
    assert {split.n_blocks for split in candidates(matmul(7, 2, 1), 16)} == {8}
    assert {split.label_blocks for split in candidates(matmul(7, 2, 1), 16)} == {
        (("i", 4), ("j", 2)), (("j", 2), ("i", 4)),
    }  # fmt: skip


@pytest.mark.parametrize("n", [0, 3, 6, -2])
def test_candidates_refuse_what_is_no_power_of_two(n: int) -> None:
    """The message says the number."""
    with pytest.raises(InvalidProgram, match=rf"n is {n}; expected a power of two"):
        candidates(matmul(), n)


def test_candidates_are_limited_to_those_that_cut_the_fewest_labels() -> None:
    """Six labels in 64 blocks: only the first are kept, one label first."""
    b = ProgramBuilder("many")
    b.op("exp", "abcdef->abcdef", b.input("x", (64,) * 6))
    found = candidates(b.ops[-1], 64)
    assert len(found) == MAX_CANDIDATES
    assert [len(split.label_blocks) for split in found[:7]] == [1] * 6 + [2]


def test_blocks_are_numbered_by_the_first_label_slowest() -> None:
    """Four blocks of a matrix by columns, then rows; uneven by one index."""
    op = matmul(5, 3, 7)
    split = Split((("k", 2), ("i", 2)))
    assert split.bounds(op, ("i", "k")).tolist() == [
        [[0, 2], [0, 3]], [[2, 5], [0, 3]], [[0, 2], [3, 7]], [[2, 5], [3, 7]],
    ]  # fmt: skip
    assert split.bounds(op, ("j",)).tolist() == [[[0, 3]]] * 4
    assert split.block_part(op).tolist() == [0, 1, 2, 3]


def test_blocks_that_differ_in_a_reduced_label_make_the_same_part() -> None:
    """The contracted label slowest: blocks 0 and 2 are partial results of part 0."""
    assert Split((("j", 2), ("i", 2))).block_part(matmul()).tolist() == [0, 1, 0, 1]
    assert Split((("i", 2), ("j", 2))).block_part(matmul()).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 7])
def test_blocks_differ_by_one_index_at_most(blocks: int) -> None:
    """Blocks of a label of size 7 follow each other without gap."""
    bounds = Split((("i", blocks),)).bounds(matmul(7), ("i",))[:, 0]
    assert bounds[0, 0] == 0
    assert bounds[-1, 1] == 7
    assert np.array_equal(bounds[1:, 0], bounds[:-1, 1])
    assert np.ptp(bounds[:, 1] - bounds[:, 0]) <= 1


def test_labels_that_a_function_needs_whole_are_never_cut() -> None:
    """Spatial labels, rows of a table, a selected axis, the halves of a rotated head: even if not called whole."""
    free = {
        op.function: set(splittable(op))
        for program in ("convolution", "embedding", "attention")
        for op in PROGRAMS[program]().ops
    }
    assert free["conv2d"] == {"n", "o", "c"}
    assert free["conv2d_weight_gradient"] == {"n", "o", "c"}
    assert free["max_pool2d"] == {"n", "c"}
    assert free["embedding"] == {"b", "s", "d"}
    assert free["embedding_gradient"] == {"b", "s", "d"}
    assert free["select_gradient"] == {"b", "d"}
    assert free["select"] == {"s", "d"}
    assert free["rotary"] == {"b", "q", "h", "d"}
    b = ProgramBuilder("unmarked")
    table, ids = b.parameter("table", (8, 4)), b.input("ids", (4, 4), dtype="int64", n_values=8)
    rows = b.op("embedding", "vd,bs->bsd", table, ids)
    b.op("select", "bsd->bd", rows, options={"axis": -2, "index": 0})
    x, w = b.input("x", (4, 4, 8, 8)), b.parameter("w", (4, 4, 1, 1))
    b.op("conv2d", "nchw,ocij->nokl", x, w, sizes={"k": 8, "l": 8}, options={"stride": 1, "padding": 0})
    b.op("embedding_gradient", "bs,bsd->vd", ids, rows, sizes={"v": 8})
    computed = [op for op in b.ops if not op.is_source]
    assert [set(splittable(op)) for op in computed] == [set("bsd"), set("bd"), set("noc"), set("bsd")]


@pytest.mark.parametrize(
    ("label_blocks", "message"),
    [
        ((("z", 2),), "split of op 'mm': unknown label 'z'; known: i, j, k"),
        ((("i", 9),), "label 'i' of size 8 in 9 blocks; expected 1..8"),
        ((("i", 0),), "label 'i' of size 8 in 0 blocks"),
        ((("i", 2.0),), "label 'i' of size 8 in 2.0 blocks"),
        ((("i", 2), ("i", 2)), "label 'i' is cut twice"),
    ],
)
def test_check_says_what_is_wrong(label_blocks: tuple[tuple[str, int], ...], message: str) -> None:
    """Unknown labels, too many blocks, none, a label twice."""
    with pytest.raises(InvalidProgram, match=message):
        Split(label_blocks).check(matmul())


def test_check_refuses_to_cut_what_stays_whole() -> None:
    """One block of a whole label is no cut."""
    op = next(op for op in PROGRAMS["embedding"]().ops if op.function == "embedding")
    Split((("v", 1),)).check(op)
    with pytest.raises(InvalidProgram, match="label 'v' stays whole; got 2 blocks"):
        Split((("v", 2),)).check(op)
