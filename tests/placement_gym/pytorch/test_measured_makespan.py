"""Makespans by measurement: order of runs, drift, outliers, failures, and luck."""

from collections.abc import Sequence

import numpy as np
import pytest

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.errors import ExecutionError, InvalidOption
from placement_gym.pytorch.measured_makespan import MeasuredMakespan, wins_needed


class Machine:
    """A made-up machine: an op on device d > 0 costs `cost_s[d]` more than on device 0, where all together take 1 s.

    Attributes:
        speed: Factor on the time of each further run; the last stays.
        noise: Deviation of a log-normal factor.
        failing: Devices on which an op fails.
        calls: Turns of each call, as (placement's sum of devices).
    """

    def __init__(
        self, speed: Sequence[float] = (1.0,), noise: float = 0.0, seed: int = 0, failing: Sequence[int] = ()
    ) -> None:
        self.cost_s = np.array([0.0, -0.02, 0.1, 0.3])
        self.speed, self.noise, self.failing = list(speed), noise, failing
        self.rng = np.random.default_rng(seed)
        self.calls: list[list[list[int]]] = []

    def true_s(self, op_device: IntArray) -> FloatArray:
        """float64 [B]."""
        true_s: FloatArray = 1.0 + self.cost_s[op_device].sum(axis=-1)
        return true_s

    def __call__(self, op_device: IntArray, priority: FloatArray | None, turns: Sequence[int]) -> FloatArray:
        """Seconds of each run."""
        assert priority is None or priority.shape == op_device.shape
        self.calls.append([op_device[i].tolist() for i in turns])
        seconds = []
        for i in turns:
            factor = self.speed.pop(0) if len(self.speed) > 1 else self.speed[0]
            taken = self.true_s(op_device[i]) * factor * np.exp(self.noise * self.rng.standard_normal())
            seconds.append(np.inf if np.isin(op_device[i], self.failing).any() else taken)
        return np.array(seconds)


def placements(*rows: list[int]) -> IntArray:
    """int32 [B, n_ops]."""
    return np.array(rows, np.int32)


START = np.zeros(2, np.int32)


def test_passes_go_over_the_whole_batch_champion_first() -> None:
    """Not one placement's repeats after another; the champion is not run again as a row of its own."""
    machine = Machine()
    evaluator = MeasuredMakespan(machine, START, repeats=2, confirmations=8)
    assert machine.calls == [[[0, 0]] * 8]
    assert evaluator(placements([0, 2], [0, 0], [3, 3]), None).tolist() == [1.1, 1.0, 1.6]
    assert machine.calls[1:] == [[[0, 0], [0, 2], [3, 3]] * 2]


def test_drift_and_an_outlier_do_not_count() -> None:
    """A machine that gets slower by half between passes, twice as slow later, and stumbles once, tells the truth."""
    speed = [1.0] * 8 + [1.0] * 3 + [1.5, 1.5, 9.0] + [1.5] * 3 + [2.0]
    evaluator = MeasuredMakespan(Machine(speed), START, repeats=3, confirmations=8)
    np.testing.assert_allclose(evaluator(placements([0, 2], [3, 0]), None), [1.1, 1.3])
    np.testing.assert_allclose(evaluator(placements([2, 2]), None), [1.2])
    assert evaluator.makespan_s == 1.0


def test_a_placement_that_fails_takes_forever() -> None:
    """Others are told as if it had not been there; if the champion fails, nothing can be told."""
    evaluator = MeasuredMakespan(Machine(failing=[3]), START, confirmations=8)
    assert evaluator(placements([0, 3], [0, 2]), None).tolist() == [np.inf, 1.1]
    with pytest.raises(ExecutionError, match="all others are measured against failed"):
        MeasuredMakespan(Machine(failing=[0]), START)


def test_the_fastest_that_is_confirmed_becomes_champion() -> None:
    """After a round between the two that seem faster; makespans go on in the same seconds, relative to the champion."""
    machine = Machine()
    evaluator = MeasuredMakespan(machine, START, repeats=1, confirmations=8)
    np.testing.assert_allclose(evaluator(placements([0, 1], [1, 1], [2, 0]), None), [0.98, 0.96, 1.1])
    assert machine.calls[2:] == [[[0, 0], [1, 1], [0, 1]], [[0, 0], [1, 1]] * 4, [[0, 0], [1, 1]] * 4]
    assert evaluator.op_device.tolist() == [1, 1]
    machine.speed = [3.0]
    np.testing.assert_allclose(evaluator(placements([0, 1], [1, 1], [2, 0]), None), [0.98, 0.96, 1.1])
    assert evaluator.makespan_s == pytest.approx(0.96)


def test_ranks_are_part_of_a_placement() -> None:
    """The same devices in another order are measured."""
    machine = Machine()
    evaluator = MeasuredMakespan(machine, START, np.array([2.0, 1.0]), repeats=1, confirmations=8)
    evaluator(placements([0, 0], [0, 0]), np.array([[2.0, 1.0], [1.0, 2.0]]))
    assert len(machine.calls[1]) == 2


def test_rounds_halve_the_challengers() -> None:
    """A third of a large batch challenges; 4, 2 and 1 of them go on, over 1, 2 and at most 9 passes."""
    machine = Machine(noise=0.001)
    machine.cost_s[1] = -0.02
    evaluator = MeasuredMakespan(machine, np.zeros(12, np.int32), repeats=1, confirmations=9)
    rows = np.tril(np.ones((12, 12), np.int32))  # row k is 2 (k + 1) % faster
    told_s = evaluator(rows, None)
    assert [(len(call), len({tuple(row) for row in call})) for call in machine.calls[2:5]] == [(5, 5), (6, 3), (8, 2)]
    assert evaluator.op_device.tolist() == [1] * 12
    assert told_s.argmin() == 11
    assert evaluator.makespan_s == told_s[11] == pytest.approx(0.76, rel=0.01)


@pytest.mark.parametrize(("ahead", "passes"), [(0.9, 20), (1.1, 8)])
def test_a_final_ends_when_it_is_decided(ahead: float, passes: int) -> None:
    """19 of 24 passes are needed: won after 19, which 20 passes show, and lost after 6, which 8 show."""
    machine = Machine()
    evaluator = MeasuredMakespan(machine, START, repeats=1, confirmations=24)
    machine.cost_s[1] = -0.05
    before, runs = len(machine.calls), machine.__call__

    def turning(op_device: IntArray, priority: FloatArray | None, turns: Sequence[int]) -> FloatArray:
        if len(machine.calls) > before:  # once it has seemed faster
            machine.cost_s[1] = (ahead - 1) / 2
        return runs(op_device, priority, turns)

    evaluator.runs = turning
    evaluator(placements([1, 1]), None)
    assert sum(len(call) for call in machine.calls[before + 1 :]) == 2 * passes
    assert evaluator.op_device.tolist() == ([1, 1] if ahead < 1 else [0, 0])


@pytest.mark.parametrize("seed", range(5))
def test_luck_does_not_make_a_champion(seed: int) -> None:
    """Of 400 placements that are 1 to 2 % slower, with 2 % of noise, many seem faster at first; none is crowned."""
    machine = Machine(noise=0.02, seed=seed)
    machine.cost_s[2] = 0.01
    evaluator = MeasuredMakespan(machine, START, repeats=1, confirmations=9)
    seemed = 0
    for _ in range(25):
        rows = placements(*[[0, 2] if i % 2 else [2, 2] for i in range(16)])
        before = len(machine.calls)
        assert (evaluator(rows, None) >= evaluator.makespan_s).all()
        seemed += len(machine.calls) - before > 1
    assert seemed > 15
    assert evaluator.op_device.tolist() == [0, 0]
    assert evaluator.makespan_s == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_better_is_found_despite_noise(seed: int) -> None:
    """4 % better with 2 % of noise is crowned at the first or second sight."""
    machine = Machine(noise=0.02, seed=seed)
    evaluator = MeasuredMakespan(machine, START, repeats=3, confirmations=32)
    for _ in range(2):
        evaluator(placements([1, 1], [0, 2], [2, 2]), None)
    assert evaluator.op_device.tolist() == [1, 1]


def test_the_last_champion_has_to_win_again() -> None:
    """One that was faster for a while is deposed in the end; without another champion nothing is run."""
    machine = Machine()
    evaluator = MeasuredMakespan(machine, START, repeats=1, confirmations=8)
    before = len(machine.calls)
    assert evaluator.settle()
    assert len(machine.calls) == before
    evaluator(placements([1, 1]), None)
    assert evaluator.op_device.tolist() == [1, 1]
    machine.cost_s[1] = -0.04
    assert evaluator.settle()
    assert (evaluator.op_device.tolist(), evaluator.makespan_s) == ([1, 1], pytest.approx(0.92))
    machine.cost_s[1] = 0.01
    assert not evaluator.settle()
    assert (evaluator.op_device.tolist(), evaluator.makespan_s) == ([0, 0], 1.0)


def test_sign_test() -> None:
    """By hand: 8 of 8 is 1/256, 7 of 8 is 9/256 and too likely; 14 of 16 is 137/65,536; 7 of 7 is 1/128, not enough."""
    assert [wins_needed(n, 0.005) for n in (1, 7, 8, 9, 16)] == [2, 8, 8, 9, 14]
    assert [wins_needed(n, 0.05) for n in (4, 5, 8)] == [5, 5, 7]


@pytest.mark.parametrize(("options", "match"), [({"repeats": 0}, "repeats is 0"), ({"confirmations": 7}, ">= 8")])
def test_too_few_passes_are_refused(options: dict[str, int], match: str) -> None:
    """The message says how many are enough."""
    with pytest.raises(InvalidOption, match=match):
        MeasuredMakespan(Machine(), START, **options)
