"""Searches that spend a budget of simulator calls: random search, local search, simulated annealing."""

import numpy as np

from placement_gym.arrays import IntArray
from placement_gym.baselines.list_scheduling import place_by_list
from placement_gym.baselines.neighbourhood import Found, Neighbourhood
from placement_gym.errors import InvalidOption
from placement_gym.groups import Groups, Room
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.result import Evaluator, Result, Score
from placement_gym.rule import Rule
from placement_gym.simulator.partial import PartialProblem


def _check_calls(simulator_calls: int, least: int) -> None:
    if simulator_calls < least:
        raise InvalidOption(f"simulator_calls is {simulator_calls}; expected >= {least}")


def random_search(
    problem: Problem, *, rule: str | Rule = "physical", simulator_calls: int = 1000, seed: int = 0
) -> Result:
    """The best of `simulator_calls` random placements.

    Raises:
        InvalidOption: A budget below 1.
    """
    _check_calls(simulator_calls, 1)
    evaluator, groups = Evaluator("random_search", problem, rule, seed), Groups.of(problem)
    rng = np.random.default_rng(seed)
    best: tuple[Score, IntArray] | None = None
    n_tries = 200
    for begin in range(0, simulator_calls, 256):
        tries = []
        for _ in range(min(256, simulator_calls - begin)):
            group_device = groups.random(problem, rng, n_tries=n_tries)
            if n_tries > 1 and Room(groups, problem, group_device).excess_bytes > 0:
                n_tries = 1  # what does not fit in so many tries is not tried so often again
            tries.append(groups.op_device(group_device))
        score, row = evaluator.best(np.stack(tries))
        if best is None or score < best[0]:
            best = score, tries[row]
    assert best is not None
    return evaluator.result(best[1], "budget_exhausted", simulated=True)


def _start(evaluator: Evaluator, rng: np.random.Generator, n_tries: int) -> IntArray:
    """The best of `n_tries` list schedules by critical path."""
    problem = evaluator.problem
    rank = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
    partial = PartialProblem.of(evaluator.compiled)
    tries = []
    for _ in range(n_tries):
        jitter = rng.random(problem.n_ops)
        tries.append(place_by_list(evaluator.compiled, rank=rank, jitter=jitter, partial=partial).op_device)
    return tries[evaluator.best(np.stack(tries))[1]]


def local_search(
    problem: Problem, *, rule: str | Rule = "physical", simulator_calls: int = 4000, seed: int = 0
) -> Result:
    """Descent by random moves from the best of a few critical-path schedules; equal makespans are walked along.

    Moves are those of `simulated_annealing`.

    Raises:
        InvalidOption: A budget below 20.
    """
    _check_calls(simulator_calls, 20)
    evaluator, near = Evaluator("local_search", problem, rule, seed), Neighbourhood.of(problem)
    rng = np.random.default_rng(seed)
    start = _start(evaluator, rng, 10)
    calls = simulator_calls - evaluator.simulator_calls
    found = near.search(
        evaluator.compiled, start, evaluator.ranks, calls=calls, rng=rng, hot=0.0, cold=0.0, critical_share=0.5
    )
    evaluator.simulator_calls += calls
    return evaluator.result(found.op_device, "budget_exhausted", simulated=True, priority=found.priority)


def simulated_annealing(
    problem: Problem,
    *,
    rule: str | Rule = "physical",
    simulator_calls: int = 4000,
    seed: int = 0,
    restarts: int = 1,
    hot: float = 0.01,
    cold: float = 0.0002,
    critical_share: float = 0.5,
) -> Result:
    """Simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 1983) over placements.

    Starts from the best of a few critical-path schedules (their simulations count). Moves: one group, a group to a
    neighbour's device, swaps, groups of like groups or of a run of the topological order to one device or with two
    devices exchanged; half of them touch the chain of ops that sets the makespan. Under a `priority` queue two ops of
    such a run may also exchange their priorities, b-levels at first: the order is searched, too. The temperature falls
    geometrically over the budget.

    Args:
        problem: The problem.
        rule: Simulator rule.
        simulator_calls: Budget of simulations, all included.
        seed: Seed of start and moves.
        restarts: Runs that share the budget evenly; the best counts.
        hot: First temperature over the start's makespan.
        cold: Last temperature over the start's makespan.
        critical_share: Share of moves that touch the chain of ops that sets the makespan.

    Raises:
        InvalidOption: A budget below 20 per restart, or temperatures that are not hot >= cold > 0.
    """
    if restarts < 1:
        raise InvalidOption(f"restarts is {restarts}; expected >= 1")
    _check_calls(simulator_calls, 20 * restarts)
    if not hot >= cold > 0:
        raise InvalidOption(f"hot is {hot} and cold {cold}; expected hot >= cold > 0")
    evaluator, near = Evaluator("simulated_annealing", problem, rule, seed), Neighbourhood.of(problem)
    rng = np.random.default_rng(seed)
    start = _start(evaluator, rng, 10)
    found: list[Found] = []
    for left in range(restarts, 0, -1):
        calls = (simulator_calls - evaluator.simulator_calls) // left
        one = near.search(
            evaluator.compiled,
            start,
            evaluator.ranks,
            calls=calls,
            rng=rng,
            hot=hot,
            cold=cold,
            critical_share=critical_share,
        )
        evaluator.simulator_calls += calls
        found.append(one)
    best = min(found, key=lambda one: one.score)
    return evaluator.result(best.op_device, "budget_exhausted", simulated=True, priority=best.priority)
