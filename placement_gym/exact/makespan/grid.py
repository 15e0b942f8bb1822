"""Grid: times as whole numbers for the constraint programme, rounded so that its bound stays a lower bound."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement_gym.contention import channels_of
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.simulator.ticks import times_in_ticks

Whole = NDArray[np.int64]
UNITS = 30  # The time that is to be resolved is about 2**30 units long.
FOREVER = 2.0**40


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Durations in whole units of time, rounded down.

    Every instant of a simulated schedule is rounded down to whole units. This keeps the order of instants: a <= b
    stays true, and where the rounded a < b, the true a < b. So what the simulator guarantees about the order of two
    events holds for the rounded events. Where one event comes a duration after another, their rounded difference is
    at least the rounded duration and at most `slack` units more: rounding down adds less than two units, the
    simulator's floating-point sum less than one. A unit is a power of two times the simulator's tick, so scaling
    rounds nothing. Where all durations are whole units, all instants are whole units too, and `slack` is 0.

    Attributes:
        unit_s: Seconds of a unit.
        slack: Units by which an instant may lie later than the one before it and the durations between.
        op_time: int64 [n_ops, n_devices], 0 where the device cannot run the op.
        op_hold: int64 [n_ops, n_devices], units for which the slot stays taken afterwards.
        flight: int64 [n_edges, n_devices, n_devices], units until an edge's bytes arrive, 0 on one device.
        after: int64 [n_devices, n_devices], units for which the channels stay taken afterwards, 0 on one device.
    """

    unit_s: float
    slack: int
    op_time: Whole
    op_hold: Whole
    flight: Whole
    after: Whole

    @classmethod
    def of(cls, problem: Problem, rule: Rule, longest_s: float) -> "Grid":
        """The grid on which `longest_s` > 0 is about 2**30 units."""
        op_time, latency, bytes_per_tick, hold, tick_s = times_in_ticks(problem, rule)
        scale = 2.0 ** (UNITS - np.ceil(np.log2(longest_s / tick_s)))
        able = np.isfinite(op_time)
        time = np.where(able, op_time, 0.0) * scale
        held = np.where(time > 0, hold * scale, 0.0)
        apart = ~np.eye(problem.n_devices, dtype=bool)
        seconds = problem.graph.edge_bytes[:, None, None] / bytes_per_tick[None, :, :]
        holds = rule.latency == "holds"
        contended = bool((channels_of(rule.contention, problem.device_node) >= 0).any())
        flight = np.where(apart, seconds if holds else latency + seconds, 0.0) * scale
        kept = np.where(apart & (holds and contended), latency, 0.0) * scale
        whole = all(bool((x == np.floor(x)).all()) for x in (time, held, flight, kept))
        # What takes hundreds of times longer than is allowed is ruled out as well by less, which cannot overflow.
        down = [np.floor(np.minimum(x, FOREVER)).astype(np.int64) for x in (time, held, flight, kept)]
        return cls(tick_s / scale, 0 if whole else 6, *down)


def least_off_diagonal(matrix: Whole) -> tuple[int, int]:
    """(smallest, largest) entry of [n_devices, n_devices] off the diagonal; zeros where there is one device."""
    apart = matrix[~np.eye(len(matrix), dtype=bool)]
    return (int(apart.min()), int(apart.max())) if apart.size else (0, 0)
