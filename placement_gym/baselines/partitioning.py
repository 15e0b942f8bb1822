"""Baselines of "Efficient Algorithms for Device Placement" (Tarnawski et al., NeurIPS 2020).

A greedy filling for the latency; local search and graph partitioning for the largest load. The experts' splits of the
same paper are in `expert.py`.
"""

from dataclasses import replace

import numpy as np

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.baselines.load_moves import LoadArrays, descend
from placement_gym.errors import InfeasiblePlacement, InvalidOption, MissingDependency
from placement_gym.groups import Groups, Room
from placement_gym.objectives import pays_for_transfers
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.result import Evaluator, Result
from placement_gym.rule import Rule

LEAST_GAIN = 1e-8
"""The share of the largest load by which a move of the local search has to lower it."""


def greedy_latency(problem: Problem, *, rule: str | Rule = "physical") -> Result:
    """For the latency: fills one accelerator after the other in a depth-first topological order.

    Tarnawski et al., NeurIPS 2020, section 4. What has to stay together (colocation groups, and groups that wait for
    each other) is one block. A block that the current accelerator cannot run or hold goes to the next one that can.
    Where there is none, it goes to a CPU and the current accelerator takes no more, so the blocks of each accelerator
    stay contiguous.

    Raises:
        InfeasiblePlacement: A block is left over for a CPU and no CPU can run and hold it.
    """
    evaluator, blocks = Evaluator("greedy_latency", problem, rule, objective="latency"), Groups.acyclic(problem)
    accelerators = np.flatnonzero(pays_for_transfers(problem)).tolist()
    cpus = np.flatnonzero(~pays_for_transfers(problem)).tolist()
    room = Room(blocks, problem)
    group_device = np.zeros(blocks.n_groups, dtype=np.int32)
    begun, is_open = 0, False
    for u in _depth_first_order(problem, blocks):
        fits = room.fits(u)
        if not (is_open and fits[accelerators[begun - 1]]):
            fitting = [i for i in range(begun, len(accelerators)) if fits[accelerators[i]]]
            begun, is_open = (fitting[0] + 1, True) if fitting else (begun, False)
        if is_open:
            device = accelerators[begun - 1]
        else:
            device = next((cpu for cpu in cpus if fits[cpu]), -1)
        if device < 0:
            op = problem.graph.op_names[blocks.ops[blocks.start[u]]]
            raise InfeasiblePlacement(
                f"greedy_latency of {problem.name!r} leaves the block of op {op!r} "
                f"({blocks.memory_bytes[u]:.4g} bytes) to a CPU; of its {len(cpus)} CPUs none can run and hold it"
            )
        group_device[u] = device
        room.put(u, device)
    return evaluator.result(blocks.op_device(group_device))


def _depth_first_order(problem: Problem, blocks: Groups) -> list[int]:
    """A topological order of blocks that goes on with the block that became ready last.

    The order decides what the greedy baseline finds. It is that of the paper's program as far as that is defined:
    blocks become ready in the order of the edges, those without inputs in the order of the ops.
    """
    graph = problem.graph
    before, after = blocks.op_group[graph.edge_src].tolist(), blocks.op_group[graph.edge_dst].tolist()
    readers: list[list[int]] = [[] for _ in range(blocks.n_groups)]
    waiting = [0] * blocks.n_groups
    for a, b in zip(before, after, strict=True):
        if a != b:
            readers[a].append(b)
            waiting[b] += 1
    ready = [u for u in dict.fromkeys(blocks.op_group.tolist()) if waiting[u] == 0]
    order: list[int] = []
    while ready:
        u = ready.pop()
        order.append(u)
        for other in readers[u]:
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    return order


def load_local_search(problem: Problem, *, rule: str | Rule = "physical", restarts: int = 10, seed: int = 0) -> Result:
    """Makes the move of one block to another device that lowers the largest load most, until none does; best of starts.

    Tarnawski et al., NeurIPS 2020, section 6. Two departures from their program: 1. no move breaks the limits of
    memory; 2. a move may lead to a CPU, too. A start is a random placement on the accelerators, or on all devices where
    the accelerators' memory is too small.

    Args:
        problem: The problem.
        rule: Simulator rule of the result's schedule.
        restarts: How many random starts.
        seed: Seed of the starts.

    Raises:
        InvalidOption: `restarts` below 1.
    """
    if restarts < 1:
        raise InvalidOption(f"restarts is {restarts}; expected >= 1")
    evaluator = Evaluator("load_local_search", problem, rule, seed, "max_load")
    rng = np.random.default_rng(seed)
    found: list[tuple[float, float, IntArray]] = []
    for groups in Groups.of(problem).ways_to_fit(problem):
        arrays, starting, n_tries = LoadArrays.of(problem, groups), _on_accelerators(problem, groups), 200
        for _ in range(restarts):
            group_device = starting.random(problem, rng, n_tries=n_tries)
            if n_tries > 1 and Room(groups, problem, group_device).excess_bytes > 0:
                # What does not fit on the accelerators may fit on all devices; if not, one try is enough from then on.
                starting, n_tries = groups, 200 if starting is not groups else 1
                group_device = starting.random(problem, rng, n_tries=n_tries)
            load_s, op_device = descend(arrays, group_device, LEAST_GAIN), groups.op_device(group_device)
            found.append((evaluator.excess_bytes(op_device), load_s, op_device))
    return evaluator.result(min(found, key=lambda one: one[:2])[2])


def _on_accelerators(problem: Problem, groups: Groups) -> Groups:
    """The groups, allowed on accelerators only, on other devices too where no accelerator can run them.

    The groups themselves where that cannot fit into memory.
    """
    accelerators = pays_for_transfers(problem)
    there: BoolArray = np.logical_and(groups.allowed, accelerators)
    able: BoolArray = np.logical_or.reduce(there, axis=1)
    if groups.memory_bytes[able].sum() > problem.device_memory_bytes[accelerators].sum():
        return groups
    return replace(groups, allowed=np.where(able[:, None], there, groups.allowed))


def metis(problem: Problem, *, rule: str | Rule = "physical", seed: int = 0) -> Result:
    """One part per accelerator, equal in work, few transfers between them, by METIS (Karypis and Kumar, 1998).

    METIS: SIAM J. Sci. Comput. 20(1). It stands for the graph partitioner (Scotch) of Tarnawski et al., NeurIPS 2020,
    section 6. A block weighs its mean time on the accelerators, a pair of blocks the mean time to send each tensor
    between them once. Part i goes to accelerator i; blocks that no accelerator can run go to the first CPU that can.

    Args:
        problem: The problem.
        rule: Simulator rule of the result's schedule.
        seed: Seed of METIS.

    Raises:
        MissingDependency: pymetis is not installed.
        InfeasiblePlacement: An accelerator cannot run its part; METIS knows of no support (and of no memory).
    """
    try:
        import pymetis
    except ImportError as error:
        raise MissingDependency(
            "the baseline metis needs the package pymetis: pip install placement-gym[metis]"
        ) from error
    evaluator, groups = Evaluator("metis", problem, rule, seed, "max_load"), Groups.of(problem)
    accelerators = np.flatnonzero(pays_for_transfers(problem)).astype(np.int32)
    able = groups.allowed[:, accelerators].any(axis=1)
    group_device = np.argmax(groups.allowed, axis=1).astype(np.int32)
    if able.any():
        weight, start, neighbour, edge_weight = _weighted_graph(
            problem, groups, accelerators, np.flatnonzero(able).astype(np.int32)
        )
        _, part = pymetis.part_graph(
            len(accelerators),
            pymetis.CSRAdjacency(start, neighbour),
            vweights=weight,
            eweights=edge_weight,
            options=pymetis.Options(seed=seed),
        )
        group_device[able] = accelerators[np.asarray(part)]
    op_device = groups.op_device(group_device)
    reason = infeasibility(problem, op_device, memory=False)
    if reason is not None:
        raise InfeasiblePlacement(f"METIS does not heed support in {problem.name!r}: {reason}")
    return evaluator.result(op_device)


def _weighted_graph(
    problem: Problem, groups: Groups, accelerators: IntArray, members: IntArray
) -> tuple[list[int], list[int], list[int], list[int]]:
    """The undirected graph of `members` (group numbers) as METIS reads it, in whole numbers.

    Returns:
        (weight of each member, start of each member's neighbours, neighbours, weight of each edge).
    """
    arrays = LoadArrays.of(problem, groups)
    time = arrays.group_time_s[np.ix_(members, accelerators)]
    finite = np.isfinite(time)
    work = np.where(finite, time, 0.0).sum(axis=1) / finite.sum(axis=1)
    pairs = np.ix_(accelerators, accelerators)
    apart = ~np.eye(len(accelerators), dtype=bool)
    latency = problem.link_latency_s[pairs][apart].mean() if apart.any() else 0.0
    per_byte = (1.0 / problem.link_bytes_per_s[pairs][apart]).mean() if apart.any() else 0.0
    number = {int(u): i for i, u in enumerate(members)}
    near: list[dict[int, float]] = [{} for _ in members]
    for tensor, maker in enumerate(arrays.tensor_group.tolist()):
        for reader in arrays.reader[arrays.reader_start[tensor] : arrays.reader_start[tensor + 1]].tolist():
            if maker in number and reader in number:
                a, b = number[maker], number[reader]
                seconds = latency + arrays.tensor_bytes[tensor] * per_byte
                near[a][b] = near[b][a] = near[a].get(b, 0.0) + float(seconds)
    start = [0, *np.cumsum([len(joined) for joined in near]).tolist()]
    seconds_of = [s for joined in near for s in joined.values()]
    # METIS takes edges of weight 1 and more; their sum stays within what it counts with where integers have 32 bits.
    return (
        _whole(work),
        start,
        [b for joined in near for b in joined],
        [max(1, w) for w in _whole(np.array(seconds_of))],
    )


def _whole(seconds: FloatArray) -> list[int]:
    """The same shares as whole numbers that add up to 1e9 or less."""
    total = float(seconds.sum())
    return [int(x) for x in seconds * (1e9 / total if total > 0 else 0.0)]
