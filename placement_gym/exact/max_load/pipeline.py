"""Pipelines of least max-load: the dynamic programme of Tarnawski et al. (NeurIPS 2020, section 5.1).

Over all ideals it is exact; over the prefixes of one order of the ops it is quick.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import IntArray
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InfeasiblePlacement, InvalidOption
from placement_gym.exact.deadline import Deadline, OutOfTimeError
from placement_gym.exact.device_classes import DeviceClasses
from placement_gym.exact.fitting import solve_within_memory
from placement_gym.exact.ideals import Ideals, Tensors, list_ideals, rows_of, tensors_of
from placement_gym.exact.max_load.blocks import Blocks
from placement_gym.exact.max_load.chains import Devices, chain_of, enter_ideals, entries_of, states_of
from placement_gym.problem import Problem
from placement_gym.result import Answer, Evaluator, Result, Status
from placement_gym.rule import Rule

MAX_IDEALS = 2_000_000
# Seconds that the first order of the ops has at least.
GRACE_S = 2.0
# An optimum is mostly close to the bound, and the closer the cutoff the quicker: so it is first looked for in the
# lowest parts of what is between the bound and the best pipeline known.
SHARES = (1 / 16, 1 / 4, 1.0)
# The work of all blocks in whole units: sums of them are exact.
UNITS = 2.0**40
# A state takes 25 bytes for each ideal that it can hold, and there may be many states.
PLACES_PER_IDEAL = 16


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A pipeline.

    Attributes:
        max_load_s: Its largest load as the programme adds it up, seconds.
        op_device: int32 [n_ops].
    """

    max_load_s: float
    op_device: IntArray


def dp(
    problem: Problem,
    *,
    rule: str | Rule = "physical",
    max_ideals: int = MAX_IDEALS,
    time_limit_s: float = 600.0,
) -> Result:
    """The least max-load of any pipeline: each device holds the difference of two nested ideals that follow each other.

    An ideal is a set of ops that holds all predecessors of its ops. Backward ops go where the forward op of their
    colocation group is. Devices may differ; those of one class (`DeviceClasses`) are exchanged freely. The status is
    "optimal", or "limit_reached" with the best pipeline found along a few orders of the ops and the bound proved so
    far. Both are about pipelines (`Result.restricted_to`); `Result.lower_bound` holds for all placements.

    Args:
        problem: Links that touch an accelerator must be alike.
        rule: Of the schedule that comes with the result; the max-load does not depend on it.
        max_ideals: Most ideals to list (each takes an eighth of a byte per op and 50 bytes or so).
        time_limit_s: Seconds in all (up to two seconds where a first pipeline takes that long). Ctrl-C ends it like
            the limit once there is a pipeline.

    Raises:
        InfeasiblePlacement: No pipeline fits into the devices, or none was found within the limits (the message says
            which).
        InvalidOption: A limit that is not positive.
        InvalidProblem: The time of a tensor depends on the pair of devices.
    """
    if max_ideals < 1 or not time_limit_s > 0:
        raise InvalidOption(f"max_ideals is {max_ideals} and time_limit_s {time_limit_s}; expected > 0")
    evaluator, deadline = Evaluator("dp", problem, rule, objective="max_load"), Deadline(time_limit_s)
    found = solve_within_memory(
        evaluator, deadline, lambda one, until: best_pipeline(one, until, max_ideals=max_ideals)
    )
    if found.op_device is None:
        if deadline.interrupted:
            raise KeyboardInterrupt
        none = f"no pipeline of {problem.name!r}"
        if found.proven:
            raise InfeasiblePlacement(f"{none} fits into its devices")
        raise InfeasiblePlacement(
            f"{none} was found within the limits of {time_limit_s} s and {max_ideals} ideals; there may be one"
        )
    evaluator.interrupted = deadline.interrupted
    status: Status = "optimal" if found.proven else "limit_reached"
    return evaluator.result(found.op_device, status, lower_bound=found.lower_bound, restricted_to="pipelines")


def best_pipeline(
    problem: Problem, deadline: Deadline, *, max_ideals: int = MAX_IDEALS, first: Deadline | None = None
) -> Answer:
    """What `dp` finds and proves.

    Args:
        problem: Links that touch an accelerator must be alike.
        deadline: Ends the search, as Ctrl-C does.
        max_ideals: Most ideals to list.
        first: Ends the building of blocks and the first order, without which there is no pipeline. Where it is not
            given, the blocks take the time that they need, and the first order has `GRACE_S` in any case.

    Raises:
        InfeasiblePlacement: A block fits no device.
        InvalidProblem: The time of a tensor depends on the pair of devices.
    """
    best, bound, complete = None, lower_bound_s(problem, "max_load"), False
    with deadline.ends():
        programme = _Programme.of(problem, first)
        orders = programme.orders()
        first = first or deadline.share(1.0, least_s=GRACE_S)
        best = programme.cheapest(programme.prefixes(orders[0], first), programme.ceiling_s(), first)
        for order in orders[1:]:
            prefixes = programme.prefixes(order, deadline)
            best = programme.cheapest(prefixes, programme.ceiling_s(best), deadline) or best
        ideals = programme.ideals(max_ideals, deadline)
        for share in SHARES if ideals is not None else ():
            assert ideals is not None
            highest = programme.ceiling_s(best)
            cutoff = bound + share * (highest - bound) if share < 1 else highest
            if programme.n_places(ideals, cutoff) > PLACES_PER_IDEAL * max_ideals:
                break
            found = programme.cheapest(ideals, cutoff, deadline)
            bound, best, complete = max(bound, cutoff), found or best, found is not None or share == 1
            if complete:
                break
    op_device = None if best is None else best.op_device
    # A bound of 0 says no more than that the search is over.
    return Answer(op_device, 0.0 if complete else bound * (1 - 1e-9), complete)


def pipeline_split(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """The best contiguous split of the ops in one order, depth-first: PipeDream's planner (SOSP 2019), unreplicated.

    Raises:
        InfeasiblePlacement: No split fits into the devices.
        InvalidProblem: The time of a tensor depends on the pair of devices.
    """
    evaluator = Evaluator("pipeline_split", problem, rule, objective="max_load")

    def split(one: Problem, _: Deadline) -> Answer:
        programme = _Programme.of(one)
        found = programme.cheapest(programme.prefixes(programme.orders()[0]), programme.ceiling_s())
        return Answer(None if found is None else found.op_device, 0.0, False)

    found = solve_within_memory(evaluator, Deadline(), split)
    if found.op_device is None:
        raise InfeasiblePlacement(f"no contiguous split of {problem.name!r} in one order fits into its devices")
    return evaluator.result(found.op_device)


@dataclass(frozen=True, slots=True, eq=False)
class _Programme:
    """A problem in the arrays of the kernels."""

    classes: DeviceClasses
    blocks: Blocks
    devices: Devices
    tensors: Tensors
    units: NDArray[np.int64]

    @classmethod
    def of(cls, problem: Problem, deadline: Deadline | None = None) -> "_Programme":
        classes = DeviceClasses.of(problem)
        blocks = Blocks.of(problem, classes, deadline)
        tensors = tensors_of(blocks.tensor_s, blocks.tensor_blocks, blocks.n_blocks)
        least = blocks.time_s.min(axis=1)
        per_s = UNITS / least.sum() if least.sum() > 0 else 1.0
        # The work of a block is its least time; a class does the most of it in a second where it is at its best.
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(blocks.time_s > 0, least[:, None] / blocks.time_s, 0.0).max(axis=0)
        devices = Devices(
            np.array([len(members) for members in classes.members], dtype=np.int64),
            classes.memory_bytes,
            classes.pays,
            share * per_s,
        )
        return cls(classes, blocks, devices, tensors, np.floor(least * per_s).astype(np.int64))

    def orders(self) -> Sequence[IntArray]:
        """Three topological orders: depth-first from the inputs, level by level, depth-first from the outputs."""
        n, order = self.blocks.n_blocks, self.blocks.order
        return (
            np.arange(n, dtype=np.int32),
            np.fromiter(_kahn(n, order, first_in_first_out=True), dtype=np.int32, count=n),
            np.fromiter(_kahn(n, order[:, ::-1], first_in_first_out=False), dtype=np.int32, count=n)[::-1],
        )

    def prefixes(self, order: IntArray, deadline: Deadline | None = None) -> Ideals:
        """The ideals that are prefixes of an order.

        Raises:
            OutOfTimeError: The deadline is over.
        """
        pairs = np.stack([order[:-1], order[1:]], axis=1)
        found = self._list(pairs, self.blocks.n_blocks + 1, deadline or Deadline())
        if found is None:
            raise OutOfTimeError
        return found

    def ideals(self, max_ideals: int, deadline: Deadline | None = None) -> Ideals | None:
        """All ideals; None if there are more than `max_ideals`, or than can be listed in half the time left."""
        # Sorting them takes time as well, and the programme mostly far more.
        return self._list(self.blocks.order, max_ideals, (deadline or Deadline()).share(0.5))

    def _list(self, pairs: IntArray, max_ideals: int, deadline: Deadline) -> Ideals | None:
        n = self.blocks.n_blocks
        successor_start, successors = rows_of(pairs[:, 0], pairs[:, 1], n)
        n_before = np.bincount(pairs[:, 1], minlength=n).astype(np.int32)
        time_s, memory = self.blocks.time_s, self.blocks.memory_bytes
        count, found = deadline.run_kernel(
            lambda stop: list_ideals(
                successor_start, successors, n_before, self.units, time_s, memory, self.tensors, max_ideals, stop
            )
        )
        if count > max_ideals:
            return None
        by_work = np.lexsort((np.bitwise_count(found.bits).sum(axis=1), found.units))
        return Ideals(*(np.ascontiguousarray(array[by_work]) for array in found))

    def ceiling_s(self, best: Chain | None = None) -> float:
        """Seconds below which pipelines are looked for: the best known one's, or more than any pipeline takes."""
        if best is not None:
            return best.max_load_s * (1 - 1e-12)
        slowest = np.where(np.isfinite(self.blocks.time_s), self.blocks.time_s, 0.0).max(axis=1)
        return float(2 * (slowest.sum() + 2 * self.tensors.seconds.sum()) + 1e-300)

    def n_places(self, ideals: Ideals, cutoff: float) -> int:
        """Pairs of a state and an ideal that it can hold."""
        return int(states_of(ideals, self.devices, cutoff).offset[-1])

    def cheapest(self, ideals: Ideals, cutoff: float, deadline: Deadline | None = None) -> Chain | None:
        """The cheapest chain of these ideals, if there is one below `cutoff`.

        Raises:
            OutOfTimeError: The deadline is over.
        """
        deadline, states = deadline or Deadline(), states_of(ideals, self.devices, cutoff)
        entries, n_ideals = entries_of(states, cutoff), len(ideals.units)
        deadline.run_kernel(
            lambda stop: enter_ideals(ideals, self.tensors, self.devices, states, entries, cutoff, 1, n_ideals, stop)
        )
        deadline.check()
        found = chain_of(ideals, states, entries)
        return None if found is None else Chain(found[0], self._op_device(ideals, *found[1:]))

    def _op_device(self, ideals: Ideals, path: IntArray, kinds: IntArray) -> IntArray:
        """int32 [n_ops]: part k lies between ideals `path[k]` and `path[k + 1]`, on a device of class `kinds[k]`."""
        block = np.arange(self.blocks.n_blocks)
        inside = (ideals.bits[path][:, block >> 6] >> (block & 63).astype(np.uint64)) & np.uint64(1)
        part = (inside == 0).sum(axis=0) - 1
        members = [iter(group) for group in self.classes.members]
        part_device = np.array([next(members[c]) for c in kinds.tolist()], dtype=np.int32)
        return np.ascontiguousarray(part_device[part][self.blocks.op_block])


def _kahn(n: int, pairs: IntArray, *, first_in_first_out: bool) -> Iterator[int]:
    """A topological order of the blocks, ready ones taken from the front or from the back."""
    after: list[list[int]] = [[] for _ in range(n)]
    waiting = np.bincount(pairs[:, 1], minlength=n).tolist()
    for a, b in pairs.tolist():
        after[a].append(b)
    ready = [v for v in range(n) if waiting[v] == 0]
    while ready:
        v = ready.pop(0 if first_in_first_out else -1)
        yield v
        for w in after[v]:
            waiting[w] -= 1
            if waiting[w] == 0:
                ready.append(w)
