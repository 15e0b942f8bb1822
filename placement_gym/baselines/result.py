"""Result: what every baseline returns; Judge: the one clock, the one count of simulator calls, the one simulation."""

import time
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.bounds import lower_bound_s
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.rule import Rule, resolve_rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import compile_problem, simulate

Status = Literal["optimal", "feasible", "budget_exhausted"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A placement, simulated.

    Attributes:
        baseline: Name of the function that made it.
        placement: The placement.
        schedule: What the simulator makes of it.
        objective: The schedule's makespan, seconds.
        lower_bound: Seconds that no placement can beat (`bounds.py`).
        status: "optimal" (it meets the bound, or every placement was tried), "budget_exhausted" (a search that
            spent its calls), "feasible" (anything else).
        runtime_s: Wall-clock seconds, the final simulation included.
        simulator_calls: Placements simulated, the final one included.
        seed: Seed of a random baseline.
    """

    baseline: str
    placement: Placement
    schedule: Schedule
    objective: float
    lower_bound: float
    status: Status
    runtime_s: float
    simulator_calls: int
    seed: int | None

    @property
    def gap(self) -> float:
        """(objective - lower_bound) / objective; 0 where both are 0."""
        return (self.objective - self.lower_bound) / self.objective if self.objective > 0 else 0.0


class Judge:
    """Times a baseline from its construction on, simulates for it and counts."""

    def __init__(self, baseline: str, problem: Problem, rule: str | Rule, seed: int | None = None) -> None:
        self.baseline, self.problem, self.seed = baseline, problem, seed
        self.rule = resolve_rule(rule)
        self.compiled = compile_problem(problem, self.rule)
        self.simulator_calls = 0
        self._began = time.perf_counter()

    def makespans_s(self, op_devices: IntArray) -> FloatArray:
        """float64 [B]: makespans of int32 [B, n_ops]; each is one call."""
        self.simulator_calls += len(op_devices)
        return self.compiled.makespans_s(np.ascontiguousarray(op_devices, dtype=np.int32))

    def result(self, op_device: IntArray, status: Status = "feasible", *, simulated: bool = False) -> Result:
        """The result of a placement.

        Args:
            op_device: int [n_ops].
            status: What is known; becomes "optimal" where the makespan meets the lower bound.
            simulated: The makespan of this placement is among the calls counted already.

        Raises:
            InfeasiblePlacement: The placement breaks support, memory or colocation.
        """
        placement = Placement(op_device)
        schedule = simulate(self.problem, placement, rule=self.rule)
        self.simulator_calls += 0 if simulated else 1
        bound = lower_bound_s(self.problem)
        if schedule.makespan_s <= bound * (1 + 1e-9):
            status = "optimal"
        return Result(
            self.baseline,
            placement,
            schedule,
            schedule.makespan_s,
            bound if status != "optimal" else schedule.makespan_s,
            status,
            time.perf_counter() - self._began,
            self.simulator_calls,
            self.seed,
        )
