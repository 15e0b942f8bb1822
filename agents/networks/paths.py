"""Critical paths: the longest path from each op, in tables with which sums along all paths take few steps."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from placement_gym.arrays import FloatArray


def next_on_path(op_time: FloatArray, edge_index: NDArray[np.int64], edge_time: FloatArray) -> NDArray[np.int64]:
    """int64 [n_ops]: the op that follows each op on its longest path to an exit; n_ops where none follows.

    The length of a path counts ops and edges (b-level; Kwok and Ahmad, 1999, section 4). Ties go to the smallest op
    number. With the rows of `edge_index` swapped, it is the op before each op on its longest path from an entry.

    Args:
        op_time: float64 [n_ops], in any unit.
        edge_index: int64 [2, n_edges], from and to.
        edge_time: float64 [n_edges], in the same unit.
    """
    n = len(op_time)
    behind: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    before: list[list[int]] = [[] for _ in range(n)]
    missing = [0] * n
    for a, b, time in zip(*edge_index.tolist(), edge_time.tolist(), strict=True):
        behind[a].append((b, time))
        before[b].append(a)
        missing[a] += 1
    level, follower = op_time.astype(np.float64).tolist(), [n] * n
    settled = [op for op in range(n) if missing[op] == 0]
    for op in settled:
        if behind[op]:
            longest, negative = max((time + level[b], -b) for b, time in behind[op])
            level[op] += longest
            follower[op] = -negative
        for a in before[op]:
            missing[a] -= 1
            if missing[a] == 0:
                settled.append(a)
    return np.array(follower, dtype=np.int64)


def jump_table(follower: NDArray[np.int64]) -> Tensor:
    """int64 [rounds, n_ops + 1]: row k holds the op 2^k places further on each op's path, n_ops past its end."""
    n = len(follower)
    row, rows = np.append(follower, n), []
    while (row < n).any():
        rows.append(row)
        row = row[row]
    return torch.from_numpy(np.stack(rows) if rows else np.empty((0, n + 1), np.int64))


def path_mean(values: Tensor, jumps: Tensor) -> Tensor:
    """[..., n_ops, width]: for each op, the mean of `values` [..., n_ops, width] over its path, itself included.

    Each row of `jumps` (see `jump_table`) doubles the number of ops that a sum covers (pointer jumping), so the cost
    grows as n_ops log(length of the longest path).
    """
    count = values.new_ones(*values.shape[:-1], 1)
    total = torch.cat([values, count], dim=-1)
    total = torch.cat([total, total.new_zeros(*total.shape[:-2], 1, total.shape[-1])], dim=-2)
    for row in jumps:
        total = total + total.index_select(-2, row)
    mean: Tensor = total[..., :-1, :-1] / total[..., :-1, -1:]
    return mean
