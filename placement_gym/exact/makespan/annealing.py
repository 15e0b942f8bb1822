"""anneal: simulated annealing from a placement, which keeps to a deadline."""

import math
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.neighbourhood import Found, Neighbourhood
from placement_gym.exact.deadline import Deadline
from placement_gym.result import Evaluator

# A run of the search loop takes about so many seconds; what it has found is known after it.
RUN_S = 0.5
# A search of fewer simulations finds nothing.
FEWEST_CALLS = 100


def anneal(
    evaluator: Evaluator,
    op_device: IntArray,
    priority: FloatArray | None,
    deadline: Deadline,
    *,
    calls: int,
    hot: float,
    cold: float,
    seed: int,
) -> Iterator[Found]:
    """Better and better placements: those after each run of a search that is cut into short runs.

    Each run begins from the best placement of those before it, at the temperature at which that before it ended.

    Args:
        evaluator: Gives problem and rule, and counts the simulations.
        op_device: int32 [n_ops], the start.
        priority: float64 [n_ops], its order under a `priority` queue; None for b-level ranks.
        deadline: Ends the search, which is planned to end before it; so does Ctrl-C.
        calls: Most simulations.
        hot: First temperature over the start's makespan.
        cold: Last temperature over the start's makespan.
        seed: Of the moves.
    """
    one_s = simulation_s(evaluator, op_device)
    calls = min(calls, int(deadline.left_s / one_s)) if deadline.left_s < math.inf else calls
    if calls < FEWEST_CALLS:
        return
    n_runs = max(1, round(calls * one_s / RUN_S))
    near, rng = Neighbourhood.of(evaluator.problem), np.random.default_rng(seed)
    temperature = np.geomspace(hot, cold, n_runs + 1)
    order = evaluator.ranks if priority is None else priority
    for run in range(n_runs):
        if deadline.is_over:
            return
        search = partial(
            near.search,
            evaluator.compiled,
            op_device,
            order,
            calls=calls // n_runs,
            rng=rng,
            hot=float(temperature[run]),
            cold=float(temperature[run + 1]),
            critical_share=0.5,
        )
        stop_now = np.zeros(1, dtype=np.uint8)
        # One placement may take far longer to simulate than that which the runs were planned by.
        found = deadline.run(partial(search, stop_now=stop_now), partial(stop_now.fill, 1))
        evaluator.simulator_calls += found.calls
        op_device, order = found.op_device, found.priority
        yield found


def simulation_s(evaluator: Evaluator, op_device: IntArray) -> float:
    """Seconds that a simulation takes."""
    one = np.ascontiguousarray(op_device[None, :])
    # The first one may compile.
    evaluator.weigh(one)
    began = time.perf_counter()
    evaluator.weigh(one)
    return max(time.perf_counter() - began, 1e-9)
