"""How programmes that add up bytes deal with the memory rule "live", under which a run decides what fits."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from placement_gym.arrays import IntArray
from placement_gym.errors import InvalidProblem
from placement_gym.exact.deadline import Deadline
from placement_gym.objectives import gpipe_load_s, latency_s, max_load_s
from placement_gym.problem import Problem
from placement_gym.result import Answer, Evaluator

# The share of the time for the first of two programmes.
SHARE = 0.5


def solve_within_memory(
    evaluator: Evaluator, deadline: Deadline, solve: Callable[[Problem, Deadline], Answer]
) -> Answer:
    """The answer of a programme for loads or latency that adds up `op_memory_bytes` on each device.

    Under the memory rule "claims" that is the whole rule. Under "live" it leaves out what is live, so the bound holds
    and the placement may not fit. Then the programme is solved again as if every output were kept, which mostly fits.

    Args:
        evaluator: Says what fits, and counts.
        deadline: Of both.
        solve: The programme.
    """
    problem, memory = evaluator.problem, evaluator.compiled.memory
    if not (memory.live and memory.binds):
        return solve(problem, deadline)
    first = solve(problem, deadline.share(SHARE))
    if first.op_device is None or evaluator.excess_bytes(first.op_device) == 0:
        return first
    bound = first.lower_bound
    if first.proven and bound == 0:
        # A proof without a bound says that this placement is the optimum.
        bound = value_s(evaluator, first.op_device, first.op_subgraph)
    kept = problem.graph.op_parameter_bytes + problem.graph.op_output_bytes
    with suppress(InvalidProblem):
        second = solve(replace(problem, memory_rule="claims", op_memory_bytes=kept), deadline)
        if second.op_device is not None and (
            evaluator.excess_bytes(second.op_device) < evaluator.excess_bytes(first.op_device)
        ):
            return replace(second, lower_bound=bound, proven=False)
    return replace(first, lower_bound=bound, proven=False)


def value_s(evaluator: Evaluator, op_device: IntArray, op_subgraph: IntArray | None = None) -> float:
    """Seconds of the evaluator's objective, a load or the latency, for int32 [n_ops] (see `objectives`)."""
    problem, objective = evaluator.problem, evaluator.objective
    if objective == "latency":
        return latency_s(problem, op_device, op_subgraph)
    return max_load_s(problem, op_device) if objective == "max_load" else gpipe_load_s(problem, op_device)
