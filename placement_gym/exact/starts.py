"""Placements that `mip` begins from, by heuristics that keep to its deadline."""

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.heuristics import single_device
from placement_gym.baselines.list_methods import critical_path
from placement_gym.baselines.load_moves import LoadArrays, descend
from placement_gym.baselines.partitioning import greedy_latency, load_local_search
from placement_gym.errors import InfeasiblePlacement, InvalidProblem
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.fitting import value_s
from placement_gym.exact.makespan.annealing import anneal
from placement_gym.exact.max_load.pipeline import GRACE_S, best_pipeline
from placement_gym.groups import Groups
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result

# A placement, int32 [n_ops], and its order under a `priority` queue, float64 [n_ops] (None for b-level ranks).
Ordered = tuple[IntArray, FloatArray | None]
# The share of the time left for the best pipeline, for descents and for annealing, and the most seconds for pipelines.
SHARE = 0.2
PIPELINE_S = 20.0
RESTARTS = 20
BATCH_S = 0.5
ANNEALING_CALLS = 20_000
# `critical_path` takes up to so many times as long as `single_device`, and annealing needs time after it.
LONGER = 6


class Start(NamedTuple):
    """A placement to begin from.

    Attributes:
        op_device: int32 [n_ops].
        priority: float64 [n_ops], its order under a `priority` queue; None for b-level ranks.
        excess_bytes: Bytes over capacity; 0 if it fits.
    """

    op_device: IntArray
    priority: FloatArray | None
    excess_bytes: float


def best_start(evaluator: Evaluator, deadline: Deadline, *, contiguous: bool, seed: int) -> Start | None:
    """The best placement that heuristics find, None if they find none.

    One is looked for even after the deadline. Ctrl-C ends the search for a better one.
    """
    problem, objective = evaluator.problem, evaluator.objective
    finders = {
        "makespan": [_schedules(evaluator, deadline, seed)],
        "max_load": [_pipelines(problem, deadline), *([] if contiguous else [_descents(problem, deadline, seed)])],
        "gpipe_load": [_pipelines(problem, deadline)],
        "latency": [_greedy(problem)],
    }[objective]
    best, least = None, (np.inf, np.inf)
    with deadline.ends():
        for op_device, priority in (one for find in finders for one in find):
            score = _score(evaluator, op_device, priority)
            if score < least:
                best, least = Start(op_device, priority, score[0]), score
            deadline.check()
    if best is None and not deadline.interrupted:
        with deadline.ends(), suppress(InfeasiblePlacement):
            op_device = single_device(problem).placement.op_device
            best = Start(op_device, None, evaluator.excess_bytes(op_device))
    return best


def _score(evaluator: Evaluator, op_device: IntArray, priority: FloatArray | None) -> tuple[float, float]:
    """(bytes over capacity, seconds of the objective)."""
    if evaluator.objective == "makespan":
        return evaluator.best(op_device[None, :], priority)[0]
    return evaluator.excess_bytes(op_device), value_s(evaluator, op_device)


def _pipelines(problem: Problem, deadline: Deadline) -> Iterator[Ordered]:
    """The best pipeline; none where links differ."""
    share = deadline.share(min(SHARE, PIPELINE_S / max(deadline.left_s, PIPELINE_S)))
    first = share.share(1.0, least_s=min(GRACE_S, deadline.left_s / 2))
    with suppress(InfeasiblePlacement, InvalidProblem):
        found = best_pipeline(problem, share, first=first).op_device
        if found is not None:
            yield found, None
    if share.interrupted:
        raise KeyboardInterrupt


def _descents(problem: Problem, deadline: Deadline, seed: int) -> Iterator[Ordered]:
    """A random placement, and local optima of the largest load, as many as the time is likely to allow."""
    groups, share = Groups.of(problem), deadline.share(SHARE)
    arrays = LoadArrays.of(problem, groups)
    with suppress(InfeasiblePlacement):
        start = groups.random(problem, np.random.default_rng(seed))
        yield groups.op_device(start), None
        for _ in range(2):
            # No move gains that much, so this looks at every move once. The first time it may compile.
            began = time.perf_counter()
            descend(arrays, start.copy(), 1.0)
        # About every second group is moved.
        seconds = (time.perf_counter() - began) * groups.n_groups / 2
        done = 0
        while done < RESTARTS and seconds <= share.left_s:
            # Several at a time where they are short; Ctrl-C loses those under way.
            batch = min(RESTARTS - done, max(1, int(min(BATCH_S, share.left_s) / seconds)))
            began = time.perf_counter()
            yield load_local_search(problem, restarts=batch, seed=seed + done).placement.op_device, None
            seconds, done = (time.perf_counter() - began) / batch, done + batch


def _greedy(problem: Problem) -> Iterator[Ordered]:
    with suppress(InfeasiblePlacement):
        yield greedy_latency(problem).placement.op_device, None


def _schedules(evaluator: Evaluator, deadline: Deadline, seed: int) -> Iterator[Ordered]:
    """One device, a list schedule, annealing, as far as the time is likely to allow."""
    problem, rule = evaluator.problem, evaluator.rule
    found: Result | None = None
    for find in (partial(single_device, problem, rule=rule), partial(critical_path, problem, rule=rule, seed=seed)):
        began = time.perf_counter()
        with suppress(InfeasiblePlacement):
            found = find()
            yield found.placement.op_device, found.priority
        if found is not None and LONGER * (time.perf_counter() - began) > deadline.left_s:
            return
    if found is not None:
        share, calls = deadline.share(SHARE), ANNEALING_CALLS
        begin = found.placement.op_device
        for one in anneal(evaluator, begin, found.priority, share, calls=calls, hot=0.01, cold=0.0002, seed=seed):
            yield one.op_device, one.priority
