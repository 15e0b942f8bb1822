"""MeasuredMakespan: a judge of placements that measures them, and is not taken in by the machine's moods."""

from collections.abc import Callable, Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.errors import ExecutionError, InvalidOption

# (op_device int32 [B, n_ops], priority float64 [B, n_ops] or None, turns) -> float64 [len(turns)], seconds of a run of
# each placement whose turn it is, inf where it fails (`Runner`).
Runs = Callable[[IntArray, FloatArray | None, Sequence[int]], FloatArray]
Rows = NDArray[np.int64]
# Placements of one batch that may challenge the champion: more would take long, and most are lucky.
CHALLENGERS = 3
# How likely a placement that is no faster may be taken for a faster one.
LEVEL = 0.05


def wins_needed(n_pairs: int) -> int:
    """How many of so many pairs of runs one placement must win to be faster than the other (one-sided sign test).

    `n_pairs` + 1, which is never reached, where even all of them may be chance (less than 5).
    """
    chance, needed = 0.0, n_pairs + 1
    while needed > 0:
        chance += comb(n_pairs, needed - 1) / 2**n_pairs
        if chance > LEVEL:
            break
        needed -= 1
    return needed


class MeasuredMakespan:
    """Makespans by measurement, in seconds of one reference placement, the champion: the best that is known for sure.

    All placements of a batch run in turn, the champion first, then all again: a slow minute of the machine hits all
    alike. A makespan is the median over these passes of the placement's time over the champion's, times the champion's
    makespan, so that the machine may be another one an hour later. Of many measurements the least is mostly a lucky
    one. So the best placements of a batch that seem faster than the champion are challengers: they run against it in
    passes of their own, only these count, and the fastest that wins a sign test there is the champion from then on. No
    other placement is told to be faster than the champion, at most as fast.

    Args:
        runs: Runs placements.
        op_device: int32 [n_ops], the first champion; it is measured at once.
        priority: float64 [n_ops], its ranks for the `priority` queue.
        repeats: Passes over a batch.
        confirmations: Passes over challengers.

    Attributes:
        op_device: int32 [n_ops], the champion.
        priority: float64 [n_ops] or None, its ranks.
        makespan_s: Its makespan, seconds.

    Raises:
        InvalidOption: Passes too few.
        ExecutionError: The champion does not run, now or later.
    """

    def __init__(
        self,
        runs: Runs,
        op_device: IntArray,
        priority: FloatArray | None = None,
        *,
        repeats: int = 3,
        confirmations: int = 8,
    ) -> None:
        if repeats < 1:
            raise InvalidOption(f"repeats is {repeats}; expected >= 1")
        if wins_needed(confirmations) > confirmations:
            raise InvalidOption(
                f"confirmations is {confirmations}; expected >= 5: fewer passes cannot confirm anything"
            )
        self.runs, self.repeats, self.confirmations = runs, repeats, confirmations
        self.op_device, self.priority = op_device, priority
        alone = self._times_s(
            op_device[None], None if priority is None else priority[None], np.arange(0), confirmations
        )
        self.makespan_s = float(np.median(alone))

    def __call__(self, op_device: IntArray, priority: FloatArray | None) -> FloatArray:
        """float64 [B], makespans in seconds; inf for placements that fail.

        Args:
            op_device: int32 [B, n_ops].
            priority: float64 [B, n_ops], where the champion has ranks.
        """
        makespans_s = np.full(len(op_device), self.makespan_s)
        others = np.flatnonzero(~self._is_champion(op_device, priority))
        if not len(others):
            return makespans_s
        measured_s = self.makespan_s * _median(self._ratios(op_device, priority, others, self.repeats))
        makespans_s[others] = np.maximum(measured_s, self.makespan_s)
        by_time = np.argsort(measured_s, kind="stable")[:CHALLENGERS]
        challengers = others[by_time[measured_s[by_time] < self.makespan_s]]
        if len(challengers):
            makespans_s[challengers] = self._challenge(op_device, priority, challengers)
        return makespans_s

    def _challenge(self, op_device: IntArray, priority: FloatArray | None, challengers: Rows) -> FloatArray:
        """float64 [challengers]: their makespans against the champion; the fastest that won is champion afterwards."""
        ratios = self._ratios(op_device, priority, challengers, self.confirmations)
        won = (ratios < 1).sum(axis=0) >= wins_needed(self.confirmations)
        ratio = _median(ratios)
        makespans_s = self.makespan_s * np.where(won, ratio, np.maximum(ratio, 1.0))
        if makespans_s.min() < self.makespan_s:
            first = challengers[makespans_s.argmin()]
            self.op_device, self.makespan_s = op_device[first].copy(), float(makespans_s.min())
            self.priority = None if priority is None else priority[first].copy()
        return makespans_s

    def _is_champion(self, op_device: IntArray, priority: FloatArray | None) -> BoolArray:
        same: BoolArray = (op_device == self.op_device).all(axis=1)
        if priority is not None and self.priority is not None:
            same &= (priority == self.priority).all(axis=1)
        return same

    def _ratios(self, op_device: IntArray, priority: FloatArray | None, rows: Rows, passes: int) -> FloatArray:
        """float64 [passes, rows]: times of these rows over the champion's in the same pass."""
        times_s = self._times_s(op_device, priority, rows, passes)
        ratios: FloatArray = times_s[:, 1:] / times_s[:, :1]
        return ratios

    def _times_s(self, op_device: IntArray, priority: FloatArray | None, rows: Rows, passes: int) -> FloatArray:
        """float64 [passes, 1 + rows]: seconds of the champion, then of each row, in each pass."""
        placements = np.concatenate([self.op_device[None], op_device[rows]])
        ranks = None
        if priority is not None and self.priority is not None:
            ranks = np.concatenate([self.priority[None], priority[rows]])
        times_s = self.runs(placements, ranks, list(range(len(placements))) * passes).reshape(passes, -1)
        if not np.isfinite(times_s[:, 0]).all():
            raise ExecutionError(
                "the placement that all others are measured against failed; expected one that runs "
                f"(op_device {self.op_device.tolist()})"
            )
        return times_s


def _median(ratios: FloatArray) -> FloatArray:
    """float64 [rows]: medians over passes; inf where any of them failed."""
    medians: FloatArray = np.where(np.isfinite(ratios).all(axis=0), np.median(ratios, axis=0), np.inf)
    return medians
