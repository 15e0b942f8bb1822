"""Pool: good placements that differ from each other, for an evaluator more exact than the simulator."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray, IntArray
from placement_gym.problem import Problem

# How many are kept, how much worse than the best they may be, and the share of edges by which any two must differ.
SIZE, WORSE, APART = 32, 0.02, 0.05


class Kept(NamedTuple):
    """A placement, int32 [n_ops], the order in which it was made, int64 [n_ops], and its makespan."""

    makespan_s: float
    op_device: IntArray
    order: NDArray[np.int64]


class Pool:
    """The best placements that differ in the edges they cut, which names of devices do not change.

    A simulator cannot tell near-best placements from each other, and those of one search are mostly alike; so the
    first thing that real devices are asked is which of these is fastest.

    Attributes:
        kept: Placements, the best first.
    """

    def __init__(self, problem: Problem) -> None:
        self._edges = problem.graph.edge_src, problem.graph.edge_dst
        self.kept: list[Kept] = []
        self._cut: list[BoolArray] = []

    def add(self, one: Kept) -> None:
        """Keeps the placement if it is nearly the best and none that is as good is like it."""
        if self.kept and one.makespan_s > (1 + WORSE) * self.kept[0].makespan_s:
            return
        if len(self.kept) == SIZE and one.makespan_s >= self.kept[-1].makespan_s:
            return
        src, dst = self._edges
        cut = one.op_device[src] != one.op_device[dst]
        alike = [k for k, other in enumerate(self._cut) if (cut != other).sum() < max(1, APART * len(cut))]
        if any(self.kept[k].makespan_s <= one.makespan_s for k in alike):
            return
        pairs = [pair for k, pair in enumerate(zip(self.kept, self._cut, strict=True)) if k not in alike]
        pairs = sorted([*pairs, (one, cut)], key=lambda pair: pair[0].makespan_s)[:SIZE]
        most_s = (1 + WORSE) * pairs[0][0].makespan_s
        self.kept = [kept for kept, _ in pairs if kept.makespan_s <= most_s]
        self._cut = [cut for _, cut in pairs[: len(self.kept)]]

    def state(self) -> list[Any]:
        """For checkpoints."""
        return [(s, torch.from_numpy(device), torch.from_numpy(order)) for s, device, order in self.kept]

    def restore(self, state: list[Any]) -> None:
        """What `state` wrote."""
        self.kept, self._cut = [], []
        for makespan_s, device, order in state:
            self.add(Kept(makespan_s, device.numpy(), order.numpy()))
