"""Evaluation: what whole placements of B episodes are worth, by the simulator, the objective and the noise."""

from __future__ import annotations

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.envs.process import Process, Rows
from placement_gym.envs.stack import ProblemStack
from placement_gym.envs.task import Task
from placement_gym.errors import InfeasiblePlacement
from placement_gym.objectives import placement_objective_s
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.simulator import noise_factors

# Placements that are evaluated on all cores; fewer are not worth starting threads for.
MANY = 64


class Evaluation:
    """What the last whole placement of each episode is worth.

    Attributes:
        makespan_s: float64 [B], simulated, with the episode's noise.
        objective_s: float64 [B].
        excess_bytes: float64 [B], bytes over capacity, 0 for what fits.
        noise_seed: int64 [B], of the one draw of noise that an episode has.
    """

    def __init__(self, task: Task, stack: ProblemStack, process: Process) -> None:
        self._task, self._stack, self._process = task, stack, process
        self.makespan_s, self.objective_s, self.excess_bytes = (np.zeros(process.n_rows) for _ in range(3))
        self.noise_seed = np.zeros(process.n_rows, np.int64)

    def weigh(self, rows: Rows, value_s: FloatArray) -> None:
        """Evaluates the whole placements of rows, int64 [any]; writes their values into float64 [B].

        A placement that is overfull, or has no latency, has the worst value of the problem and a reference beside.
        """
        task, places = self._task, self._process.place[rows]
        for place in np.unique(places).tolist():
            of_it, entry = rows[places == place], self._stack.entry(place)
            op_device = np.ascontiguousarray(self._process.op_device[of_it, : entry.problem.n_ops])
            makespan_s, excess_bytes = entry.compiled.weigh(
                op_device, self.priorities(of_it), None if len(of_it) >= MANY else 1
            )
            worst_s = np.full(len(of_it), entry.worst_s)
            if task.noise > 0:
                for i, row in enumerate(of_it.tolist()):
                    rng = np.random.default_rng(self.noise_seed[row])
                    makespan_s[i], largest = self._noisy(row, op_device[i], rng)
                    worst_s[i] *= max(1.0, largest)  # what the rule holds after an op is not noisy
            objective_s = makespan_s
            if task.objective != "makespan":
                objective_s = np.array([self._without_simulator(entry.problem, one) for one in op_device])
            overfull = excess_bytes > 0
            self.makespan_s[of_it], self.objective_s[of_it] = makespan_s, objective_s
            self.excess_bytes[of_it] = excess_bytes
            value_s[of_it] = np.where(overfull | np.isinf(objective_s), worst_s + entry.reference_s, objective_s)
            self._process.evaluated(of_it, makespan_s, objective_s, overfull)

    def _without_simulator(self, problem: Problem, op_device: IntArray) -> float:
        """The load or latency of a whole placement in seconds; inf where subgraphs wait for each other."""
        try:
            return placement_objective_s(self._task.objective, problem, op_device)
        except InfeasiblePlacement:
            return np.inf

    def priorities(self, rows: Rows) -> FloatArray | None:
        """float64 [len(rows), n_ops] or [n_ops]: ranks of ops of rows that share a problem; None if none are asked for.

        They are b-levels where the process chooses none.
        """
        if self._task.rule.queue != "priority":
            return None
        chosen = self._process.priorities(rows)
        if chosen is not None:
            return chosen
        problem = self._stack.entry(int(self._process.place[rows[0]])).problem
        return b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))

    def _noisy(self, row: int, op_device: IntArray, rng: np.random.Generator) -> tuple[float, float]:
        """(makespan in seconds under one draw of noise, largest factor of the draw) of a whole placement."""
        entry = self._stack.entry(int(self._process.place[row]))
        op_factor, edge_factor = noise_factors(entry.problem, self._task.noise, rng)
        ranks = self.priorities(np.array([row]))
        ranks = np.zeros(entry.problem.n_ops) if ranks is None else ranks.reshape(entry.problem.n_ops)
        trace = entry.compiled.trace(op_device, ranks, op_factor, edge_factor)
        end = trace.last_event_s if self._task.rule.makespan == "last_event" else np.nanmax(trace.op_finish_s)
        return float(end), float(max(op_factor.max(), edge_factor.max(initial=0.0)))

    def draws_s(self, row: int, n_draws: int) -> FloatArray:
        """float64 [n_draws]: makespans of a row's whole placement under other draws of noise, always the same ones."""
        op_device = self.whole_placement(row)
        rng = np.random.default_rng(0)
        return np.array([self._noisy(row, op_device, rng)[0] for _ in range(n_draws)])

    def whole_placement(self, row: int) -> IntArray:
        """int32 [n_ops]: the placement of a row; ops not placed yet where their group is, or first could be."""
        entry = self._stack.entry(int(self._process.place[row]))
        so_far = self._process.op_device[row, : entry.problem.n_ops]
        home = self._process.partial.group_device[row, : entry.groups.n_groups]
        first = entry.groups.allowed.argmax(axis=1).astype(np.int32)
        default = entry.groups.op_device(np.where(home >= 0, home, first))
        return np.where(so_far >= 0, so_far, default).astype(np.int32)
