"""Result: what every method returns; Evaluator: the one clock, the one count of calls, the one simulation."""

import time
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InvalidOption
from placement_gym.objectives import Objective, objective_s
from placement_gym.placement import Placement, device_memory_used_bytes
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.rule import Rule, resolve_rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import compile_problem, simulate

Status = Literal["optimal", "feasible", "budget_exhausted", "limit_reached", "no_feasible_found"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """A placement, simulated.

    Attributes:
        baseline: Name of the function that made it.
        placement: The placement.
        schedule: What the simulator makes of it.
        objective: Seconds of what was minimised, `objective_name`.
        lower_bound: Seconds of the objective that no placement of the problem beats, by `bounds.py` or a proof.
        class_lower_bound: Seconds that no placement of the kind `restricted_to` beats, `lower_bound` without a kind.
        status: "optimal" (it meets the bound, or no other placement of the kind `restricted_to` is better),
            "budget_exhausted" (a search that spent its calls), "limit_reached" (an exact method that ran out of the
            time or the size that it was given), "no_feasible_found" (nothing that fits into memory was found; this has
            the least `excess_bytes` of what was seen), "feasible" (anything else).
        runtime_s: Wall-clock seconds, the final simulation included.
        simulator_calls: Placements simulated, the final one included.
        seed: Seed of a random baseline.
        objective_name: "makespan" (of the schedule), "max_load", "gpipe_load" or "latency" (`objectives.py`).
        op_subgraph: int32 [n_ops] where the latency is that of these subgraphs (`objectives.latency_s`).
        priority: float64 [n_ops], the order that the method decided, largest first; None where it decides none. Under
            a `priority` queue the schedule goes by it, or by b-level ranks where it is None; other queues ignore it.
        restricted_to: The kind of placements that an exact method searched ("contiguous", "pipelines", "one subgraph
            per accelerator"; under a `priority` queue "b-level order", "the orders tried"): `status` and
            `class_lower_bound` speak of that kind alone, others may be better. None: of all.
        interrupted: Whether Ctrl-C ended an exact method early: this is the best that it had.
    """

    baseline: str
    placement: Placement
    schedule: Schedule
    objective: float
    lower_bound: float
    class_lower_bound: float
    status: Status
    runtime_s: float
    simulator_calls: int
    seed: int | None
    objective_name: Objective = "makespan"
    op_subgraph: IntArray | None = None
    priority: FloatArray | None = None
    restricted_to: str | None = None
    interrupted: bool = False

    def __repr__(self) -> str:
        """At most five lines, whatever the size."""
        schedule, proved = self.schedule, f"lower bound {self.lower_bound:.6g} s, gap {100 * self.gap:.3g} %"
        if self.excess_bytes > 0:
            proved = f"does not fit: {schedule.overfull()}; {self.excess_bytes:.6g} bytes over memory in all"
        elif self.restricted_to is not None:
            proved += f"; of {self.restricted_to} {self.class_lower_bound:.6g} s, gap {100 * self.class_gap:.3g} %"
        used = np.bincount(self.placement.op_device, minlength=schedule.problem.n_devices)
        return (
            f"Result of {self.baseline!r} on {schedule.problem.name!r}: {self.objective_name} {self.objective:.6g} s, "
            f"{self.status}{f' among {self.restricted_to}' if self.restricted_to else ''}\n"
            f"  {proved}\n"
            f"  ops per device {used[:16].tolist()}{' ...' if len(used) > 16 else ''}; "
            f"makespan {schedule.makespan_s:.6g} s\n"
            f"  {self.runtime_s:.3g} s of work, {self.simulator_calls} simulator calls, seed {self.seed}"
        )

    @property
    def excess_bytes(self) -> float:
        """Bytes by which devices exceed their memory at their worst instants, all together; 0 if the placement fits."""
        return self.schedule.excess_bytes

    @property
    def gap(self) -> float:
        """(objective - lower_bound) / objective; 0 where both are 0, NaN where the placement does not fit into memory.

        It compares with all placements.
        """
        if self.excess_bytes > 0:
            return float("nan")
        return (self.objective - self.lower_bound) / self.objective if self.objective > 0 else 0.0

    @property
    def class_gap(self) -> float:
        """The same for the kind `restricted_to`, 0 where the placement is optimal among them; `gap` without a kind."""
        if self.excess_bytes > 0:
            return float("nan")
        return (self.objective - self.class_lower_bound) / self.objective if self.objective > 0 else 0.0


class Score(NamedTuple):
    """What searches compare, the smaller the better: a placement that does not fit is worse than any that does.

    Attributes:
        excess_bytes: Bytes over capacity, all devices together; 0 if the placement fits.
        makespan_s: Seconds.
    """

    excess_bytes: float
    makespan_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What an exact method has found and proved.

    Attributes:
        op_device: int32 [n_ops], None if it found no placement.
        lower_bound: Seconds of the objective that no placement of the kind that was searched beats.
        proven: Whether its search is over.
        op_subgraph: int32 [n_ops], subgraphs that a latency is meant for (`objectives.latency_s`).
        priority: float64 [n_ops], the order under a `priority` queue, None for b-level ranks.
    """

    op_device: IntArray | None
    lower_bound: float
    proven: bool
    op_subgraph: IntArray | None = None
    priority: FloatArray | None = None


class Evaluator:
    """Times a baseline from its construction on, simulates for it and counts."""

    def __init__(
        self,
        baseline: str,
        problem: Problem,
        rule: str | Rule,
        seed: int | None = None,
        objective: Objective = "makespan",
    ) -> None:
        self.baseline, self.problem, self.seed, self.objective = baseline, problem, seed, objective
        self.rule = resolve_rule(rule)
        self.compiled = compile_problem(problem, self.rule)
        self.ranks: FloatArray | None = None
        if self.rule.queue == "priority":
            self.ranks = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
        self.simulator_calls, self.interrupted = 0, False
        self._began = time.perf_counter()

    def weigh(self, op_devices: IntArray, priorities: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """(float64 [B], float64 [B]): makespans and bytes over capacity of int32 [B, n_ops]; each is one call.

        Under a `priority` queue they go by `priorities`, float64 [n_ops] or [B, n_ops], or by b-level ranks.

        Raises:
            InvalidOption: `priorities` of another shape.
        """
        ranks = self.ranks if self.ranks is None or priorities is None else np.asarray(priorities, dtype=np.float64)
        n = self.problem.n_ops
        if ranks is not None and (ranks.shape not in ((n,), (len(op_devices), n)) or bool(np.isnan(ranks).any())):
            raise InvalidOption(
                f"priorities has shape {ranks.shape} (or holds NaN); expected ({n},) or ({len(op_devices)}, {n})"
            )
        self.simulator_calls += len(op_devices)
        return self.compiled.weigh(np.ascontiguousarray(op_devices, dtype=np.int32), ranks)

    @property
    def order_decides_fit(self) -> bool:
        """Whether a placement may fit in one order and not in another: a `priority` queue, and memory counted live."""
        return self.ranks is not None and self.compiled.memory.live and self.compiled.memory.binds

    def excess_bytes(self, op_device: IntArray, priority: FloatArray | None = None) -> float:
        """Bytes over capacity of int32 [n_ops], all devices together; one call where only a run can tell."""
        if self.compiled.memory.binds and self.compiled.memory.live:
            return float(self.weigh(op_device[None, :], priority)[1][0])
        used = device_memory_used_bytes(self.problem, op_device)
        return float(np.maximum(0.0, used - self.problem.device_memory_bytes).sum())

    def best(self, op_devices: IntArray, priorities: FloatArray | None = None) -> tuple[Score, int]:
        """The best of int32 [B, n_ops], its score and its row; as `weigh` otherwise."""
        makespans_s, excess_bytes = self.weigh(op_devices, priorities)
        row = int(np.lexsort((makespans_s, excess_bytes))[0])
        return Score(float(excess_bytes[row]), float(makespans_s[row])), row

    def result(
        self,
        op_device: IntArray,
        status: Status = "feasible",
        *,
        simulated: bool = False,
        lower_bound: float = 0.0,
        op_subgraph: IntArray | None = None,
        priority: FloatArray | None = None,
        restricted_to: str | None = None,
    ) -> Result:
        """The result of a placement.

        Args:
            op_device: int [n_ops].
            status: What is known; becomes "optimal" where the objective meets the lower bound.
            simulated: The makespan of this placement is among the calls counted already.
            lower_bound: Seconds that the method has proved no placement of the kind `restricted_to` can beat; 0 where
                it knows no more than the status says.
            op_subgraph: Subgraphs that the latency is meant for.
            priority: float64 [n_ops], the order that the method decided.
            restricted_to: The kind of placements that `status` and `lower_bound` are about, None if about all.

        Raises:
            InfeasiblePlacement: The placement breaks support or colocation.
        """
        placement = Placement(op_device)
        ranks = self.ranks if self.ranks is None or priority is None else priority
        schedule = simulate(self.problem, placement, rule=self.rule, priority=ranks, memory="report")
        self.simulator_calls += 0 if simulated else 1
        value = objective_s(self.objective, schedule, op_subgraph)
        of_all = min(value, lower_bound_s(self.problem, self.objective))
        proved = max(of_all, min(value, lower_bound))
        if schedule.excess_bytes > 0:
            status = "no_feasible_found"
        elif (status == "optimal" and lower_bound == 0) or value <= proved * (1 + 1e-9):
            status, proved = "optimal", value
        if restricted_to is None or value <= of_all * (1 + 1e-9):
            of_all = proved
        return Result(
            self.baseline,
            placement,
            schedule,
            value,
            of_all,
            proved,
            status,
            time.perf_counter() - self._began,
            self.simulator_calls,
            self.seed,
            self.objective,
            op_subgraph,
            priority,
            restricted_to,
            self.interrupted,
        )
