"""Lower bounds on the objectives of any placement, on the makespan under any rule."""

import numpy as np
from numba import njit

from placement_gym.objectives import Objective
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, fastest_op_time_s


def work_bound_s(problem: Problem, *, parallel_slots: bool = True) -> float:
    """Total work over devices, adapted to devices that differ; without `parallel_slots` a device does one op at a time.

    With slots s_d and times t_id, any placement of makespan T satisfies, for any weights w_d >= 0 that sum to 1,
    sum_i min_d (w_d / s_d) t_id <= sum_d w_d T = T (weak duality of the fractional assignment). Equal weights give
    the sum of the fastest times over the slots; a few multiplicative updates look for better ones, and any weights
    give a valid bound.
    """
    per_slot = problem.op_time_s / (problem.device_slots[None, :] if parallel_slots else 1)
    weight = _weights(per_slot)
    with np.errstate(invalid="ignore"):
        priced = np.where(np.isfinite(per_slot), per_slot * weight[None, :], np.inf)
    return float(priced.min(axis=1).sum())


@njit(cache=True, error_model="numpy")
def _weights(per_slot: np.ndarray) -> np.ndarray:
    """The best weights of `work_bound_s` that are found, float64 [n_devices]."""
    n, d = per_slot.shape
    weight, load = np.full(d, 1.0 / d), np.empty(d)
    best, best_weight = 0.0, weight.copy()
    for step in range(200):
        load[:], total = 0.0, 0.0
        for i in range(n):
            least, n_cheapest = np.inf, 0
            for j in range(d):
                if per_slot[i, j] < np.inf:
                    least = min(least, per_slot[i, j] * weight[j])
            for j in range(d):
                n_cheapest += per_slot[i, j] < np.inf and per_slot[i, j] * weight[j] <= least * (1 + 1e-9)
            for j in range(d):
                # The load that the cheapest choices (ties shared) put on each device raises or lowers its price.
                if per_slot[i, j] < np.inf and per_slot[i, j] * weight[j] <= least * (1 + 1e-9):
                    load[j] += per_slot[i, j] / n_cheapest
            total += least
        if total > best:
            best, best_weight[:] = total, weight
        if load.max() - load.min() <= 1e-12 * load.max():
            # No weights give a better bound than those under which the loads are even.
            break
        weight = weight * np.exp(0.5 / (1 + 0.1 * step) * (load - load.mean()) / load.max())
        weight /= weight.sum()
    return best_weight


def critical_path_bound_s(problem: Problem) -> float:
    """The longest path with every op on its fastest device and no communication."""
    fastest = fastest_op_time_s(problem)
    return float(b_level_s(problem, fastest, np.zeros(problem.graph.n_edges)).max())


def lower_bound_s(problem: Problem, objective: Objective = "makespan") -> float:
    """Seconds of the objective that no placement beats, taken down by rounding of 1e-12.

    The work bound holds for loads (devices add up their ops), the critical path for the latency (CPUs run any number
    of ops at a time), both for the makespan.
    """
    if objective == "latency":
        bound = critical_path_bound_s(problem)
    elif objective == "makespan":
        bound = max(work_bound_s(problem), critical_path_bound_s(problem))
    else:
        bound = work_bound_s(problem, parallel_slots=False)
    return bound * (1 - 1e-12)
