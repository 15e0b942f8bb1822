"""MeasuredMakespan: an evaluator that runs placements on real devices and allows for slow spells of the machine."""

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
# Placements of one batch that may challenge the champion, at least, and as a share of the batch: more would take long,
# and most are lucky.
CHALLENGERS, CHALLENGING_SHARE = 3, 1 / 3
# Passes of the final between two looks at whether it is decided.
LOOK_EVERY = 4
# How likely one final may take a placement that is no faster for a faster one; a search holds a dozen of them.
LEVEL = 0.005


def wins_needed(n_pairs: int, level: float) -> int:
    """How many of so many pairs of runs one placement must win to be faster than the other (one-sided sign test).

    `n_pairs` + 1, which is never reached, where winning even all of them is likelier than `level` by chance.
    """
    chance, needed = 0.0, n_pairs + 1
    while needed > 0:
        chance += comb(n_pairs, needed - 1) / 2**n_pairs
        if chance > level:
            break
        needed -= 1
    return needed


class MeasuredMakespan:
    """Makespans by measurement, in seconds of one reference placement, the champion: the best that is known for sure.

    All placements of a batch run in turn, the champion first, then all again: a slow minute of the machine hits all
    alike. A makespan is the median over these passes of the placement's time over the champion's, times the champion's
    makespan, so that the machine may be another one an hour later. Of many measurements the least is mostly a lucky
    one. So the best placements of a batch that seem faster than the champion are challengers: they run in rounds, the
    slower half drops out after each, and each round has twice the passes of the one before. The last one runs against
    the champion in passes of their own, which end as soon as the sign test over all `confirmations` is decided; only
    these count, and if it wins, it is the champion from then on. No other placement is told to be faster than the
    champion, at most as fast. The machine may change for longer than a final lasts, and in favour of one placement, so
    in the end (`settle`) the last champion has to win against the first one once more.

    Args:
        runs: Runs placements.
        op_device: int32 [n_ops], the first champion; it is measured at once.
        priority: float64 [n_ops], its ranks for the `priority` queue.
        repeats: Passes over a batch, and of the challengers' first round.
        confirmations: Most passes of the last challenger against the champion.

    Attributes:
        op_device: int32 [n_ops], the champion.
        priority: float64 [n_ops] or None, its ranks.
        makespan_s: Its makespan, seconds.
        n_champions: How many there have been.

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
        confirmations: int = 16,
    ) -> None:
        if repeats < 1:
            raise InvalidOption(f"repeats is {repeats}; expected >= 1")
        if wins_needed(confirmations, LEVEL) > confirmations:
            raise InvalidOption(
                f"confirmations is {confirmations}; expected >= 8: fewer passes cannot confirm anything"
            )
        self.runs, self.repeats, self.confirmations = runs, repeats, confirmations
        self.op_device, self.priority = op_device, priority
        self.n_champions = 1
        alone = self._times_s(
            op_device[None], None if priority is None else priority[None], np.arange(0), confirmations
        )
        self.makespan_s = float(np.median(alone))
        self._first = op_device, priority, self.makespan_s

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
        most = max(CHALLENGERS, int(CHALLENGING_SHARE * len(others)))
        by_time = np.argsort(measured_s, kind="stable")[:most]
        challengers = others[by_time[measured_s[by_time] < self.makespan_s]]
        if len(challengers):
            makespans_s[challengers] = self._challenge(op_device, priority, challengers)
        return makespans_s

    def _challenge(self, op_device: IntArray, priority: FloatArray | None, challengers: Rows) -> FloatArray:
        """float64 [challengers]: their makespans; one that wins the final is champion afterwards."""
        ratios, passes = np.empty((0, len(challengers))), self.repeats
        ratio, left = np.ones(len(challengers)), np.arange(len(challengers))
        while len(left) > 1:
            further = np.full((passes, len(challengers)), np.nan)
            further[:, left] = self._ratios(op_device, priority, challengers[left], passes)
            ratios, passes = np.concatenate([ratios, further]), 2 * passes
            ratio[left] = _median(ratios[:, left])
            left = left[np.argsort(ratio[left], kind="stable")][: len(left) // 2]
            left = left[ratio[left] < 1]
        least = 1.0
        if len(left):
            (last,) = left.tolist()
            ratio[last], won = self._final(op_device, priority, challengers[last : last + 1])
            least = ratio[last] if won else 1.0
        makespans_s: FloatArray = self.makespan_s * np.maximum(ratio, least)
        if least < 1:
            row = challengers[last]
            self.op_device, self.makespan_s = op_device[row].copy(), float(makespans_s[last])
            self.priority = None if priority is None else priority[row].copy()
            self.n_champions += 1
        return makespans_s

    def settle(self) -> bool:
        """Whether the last champion wins against the first once more; if not, the first one is champion again.

        True without a run where there has been one champion only.
        """
        if self.n_champions == 1:
            return True
        op_device, priority = self.op_device, self.priority
        self.op_device, self.priority, self.makespan_s = self._first
        ranks = None if priority is None else priority[None]
        ratio, won = self._final(op_device[None], ranks, np.zeros(1, np.int64))
        if won:
            self.op_device, self.priority, self.makespan_s = op_device, priority, ratio * self.makespan_s
        return won

    def _final(self, op_device: IntArray, priority: FloatArray | None, challenger: Rows) -> tuple[float, bool]:
        """The challenger's time over the champion's, and whether it is faster by a sign test over all confirmations."""
        needed, ratios = wins_needed(self.confirmations, LEVEL), np.empty((0, 1))
        while (left := self.confirmations - len(ratios)) > 0:
            wins = int((ratios < 1).sum())
            if wins >= needed or wins + left < needed:
                break
            further = self._ratios(op_device, priority, challenger, min(LOOK_EVERY, left))
            ratios = np.concatenate([ratios, further])
        ratio = float(_median(ratios)[0])
        return ratio, ratio < 1 and int((ratios < 1).sum()) >= needed

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
