"""What papers minimise: makespan (simulated), max-load and GPipe's load (throughput), single-sample latency."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.errors import InfeasiblePlacement, InvalidOption, unknown_name
from placement_gym.placement import Placement, infeasibility, unpadded
from placement_gym.problem import Problem
from placement_gym.schedule import Schedule

Objective = Literal["makespan", "max_load", "gpipe_load", "latency"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)


def objective_s(objective: Objective, schedule: Schedule, op_subgraph: ArrayLike | None = None) -> float:
    """Seconds of an objective for a simulated placement.

    Args:
        objective: Its name.
        schedule: What the simulator makes of the placement.
        op_subgraph: For the latency only, see `latency_s`.

    Raises:
        InvalidOption: An unknown objective.
        InfeasiblePlacement: The subgraphs wait for each other.
    """
    if objective == "makespan":
        return makespan_s(schedule)
    return placement_objective_s(objective, schedule.problem, schedule.op_device, op_subgraph)


def placement_objective_s(
    objective: Objective, problem: Problem, op_device: ArrayLike, op_subgraph: ArrayLike | None = None
) -> float:
    """Seconds of an objective that needs no simulation: all but the makespan; arguments and errors as `objective_s`."""
    if objective == "max_load":
        return max_load_s(problem, op_device)
    if objective == "gpipe_load":
        return gpipe_load_s(problem, op_device)
    if objective == "latency":
        return latency_s(problem, op_device, op_subgraph)
    raise InvalidOption(unknown_name("objective", objective, OBJECTIVES))


def makespan_s(schedule: Schedule) -> float:
    """Seconds until the end of a simulated schedule (the rule says which end)."""
    return schedule.makespan_s


def device_loads_s(problem: Problem, op_device: ArrayLike, *, counted: BoolArray | None = None) -> FloatArray:
    """Work and transfers of each device for one sample (Tarnawski et al., NeurIPS 2020, section 3).

    A device's load is the time of its ops and, on an accelerator, of every tensor that leaves it (once, at the
    slowest destination) and of every tensor that enters it (once, whatever the number of readers). CPUs pay no
    transfer. Transfers and work do not overlap.

    Args:
        problem: The problem.
        op_device: int [n_ops], device of each op.
        counted: bool [n_ops], ops whose time and whose output's transfers count; all of them if None.

    Returns:
        float64 [n_devices], seconds.

    Raises:
        InfeasiblePlacement: The placement breaks support or colocation.
    """
    devices = _feasible(problem, op_device)
    graph, d = problem.graph, problem.n_devices
    count = np.ones(problem.n_ops, dtype=np.bool_) if counted is None else counted
    load = np.zeros(d)
    np.add.at(load, devices[count], problem.op_time_s[np.flatnonzero(count), devices[count]])
    src, dst = devices[graph.edge_src], devices[graph.edge_dst]
    apart = np.flatnonzero((src != dst) & count[graph.edge_src])
    if not apart.size:
        return load
    tensor, src, dst = graph.edge_tensor[apart].astype(np.int64), src[apart], dst[apart]
    seconds = problem.link_latency_s[src, dst] + graph.edge_bytes[apart] / problem.link_bytes_per_s[src, dst]
    pays = pays_for_transfers(problem)
    for end, key in ((src, tensor), (dst, tensor * d + dst)):
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        slowest = np.zeros(len(first))
        np.maximum.at(slowest, group, seconds)
        np.add.at(load, end[first], np.where(pays[end[first]], slowest, 0.0))
    return load


def pays_for_transfers(problem: Problem) -> BoolArray:
    """Of each device: accelerators spend their own time on transfers, CPUs (kind "cpu") do not."""
    return np.array([kind != "cpu" for kind in problem.device_kinds], dtype=np.bool_)


def max_load_s(problem: Problem, op_device: ArrayLike) -> float:
    """Seconds per sample of a pipeline: the largest of `device_loads_s`; raises as that does."""
    return float(device_loads_s(problem, op_device).max())


def gpipe_load_s(problem: Problem, op_device: ArrayLike) -> float:
    """Seconds per sample where all forward passes come before all backward ones, as in GPipe (same paper, section 5.3).

    The largest forward load and the largest backward load, added; a tensor's transfers count where its maker does.
    Raises as `device_loads_s` does.
    """
    backward = problem.graph.op_is_backward
    return float(sum(device_loads_s(problem, op_device, counted=part).max() for part in (~backward, backward)))


def _feasible(problem: Problem, op_device: ArrayLike) -> IntArray:
    """int32 [n_ops]; raises InfeasiblePlacement. What a placement costs does not depend on memory."""
    devices = Placement(unpadded(op_device, problem.n_ops)).op_device
    reason = infeasibility(problem, devices, memory=False)
    if reason is not None:
        raise InfeasiblePlacement(reason)
    return devices


def contiguous_pieces(problem: Problem, op_device: IntArray) -> IntArray:
    """int32 [n_ops]: cuts the ops of each device into contiguous subgraphs; equal (device, piece) is one subgraph.

    The piece of an op is one more than the largest number of times that a path to it leaves the op's device,
    so no path leaves a piece and enters it again.
    """
    graph = problem.graph
    pieces = np.zeros(problem.n_ops, dtype=np.int32)
    left = np.zeros((problem.n_ops, problem.n_devices), dtype=np.int32)
    for op in graph.order.tolist():
        here = op_device[op]
        for e in graph.in_edges[graph.in_start[op] : graph.in_start[op + 1]]:
            tail = graph.edge_src[e]
            leaves = left[tail].copy()
            if op_device[tail] != here:
                leaves[op_device[tail]] = pieces[tail] + 1
            np.maximum(left[op], leaves, out=left[op])
        pieces[op] = left[op, here]
    return pieces


def latency_s(problem: Problem, op_device: ArrayLike, op_subgraph: ArrayLike | None = None) -> float:
    """Seconds until one sample is through, each accelerator running contiguous subgraphs (same paper, section 4).

    A CPU op ends its own time after its last input. A subgraph on an accelerator starts when all its inputs from
    outside are there and the accelerator's subgraph before it is done, fetches each input once, runs all its ops,
    sends each output that is read outside once, and only then gives any result. CPUs run any number of ops at a
    time.

    Args:
        problem: The problem.
        op_device: int [n_ops], device of each op.
        op_subgraph: int [n_ops], number of each op's subgraph among those of its accelerator, which runs them in
            ascending order; what it says of ops on CPUs is not read. By default `contiguous_pieces`.

    Raises:
        InfeasiblePlacement: The placement breaks support or colocation, or subgraphs wait for each other.
    """
    return float(result_times_s(problem, op_device, op_subgraph).max())


def result_times_s(problem: Problem, op_device: ArrayLike, op_subgraph: ArrayLike | None = None) -> FloatArray:
    """float64 [n_ops]: when each op's result is there in the model of `latency_s`; raises as that does."""
    devices = _feasible(problem, op_device)
    graph, n = problem.graph, problem.n_ops
    piece = contiguous_pieces(problem, devices) if op_subgraph is None else np.asarray(op_subgraph)
    if piece.shape != (n,) or piece.dtype.kind not in "iu":
        raise InfeasiblePlacement(
            f"op_subgraph has shape {piece.shape} and dtype {piece.dtype}; expected whole numbers of shape ({n},)"
        )
    on_cpu = ~pays_for_transfers(problem)[devices]
    # (device, piece) of subgraphs, (-1, op) of CPU ops: one block each, sorted by device and piece.
    key = np.stack([np.where(on_cpu, -1, devices), np.where(on_cpu, np.arange(n), piece)], axis=1)
    blocks, block = np.unique(key, axis=0, return_inverse=True)
    block = block.reshape(-1)
    duration = np.zeros(len(blocks))
    np.add.at(duration, block, problem.op_time_s[np.arange(n), devices])
    crossing = np.flatnonzero(block[graph.edge_src] != block[graph.edge_dst]).astype(np.int32)
    _add_transfers(problem, devices, block.astype(np.int32), crossing, duration)
    turns = np.flatnonzero((blocks[1:, 0] == blocks[:-1, 0]) & (blocks[1:, 0] >= 0))
    before = np.concatenate([block[graph.edge_src[crossing]], turns])
    after = np.concatenate([block[graph.edge_dst[crossing]], turns + 1])
    return _finish_s(duration, before, after)[block]


def _finish_s(duration: FloatArray, before: NDArray[np.int64], after: NDArray[np.int64]) -> FloatArray:
    """float64 [n_blocks]: earliest ends of blocks that take `duration`, each `before` ahead of its `after`."""
    waiting = np.bincount(after, minlength=len(duration))
    readers: dict[int, list[int]] = {}
    for a, b in zip(before.tolist(), after.tolist(), strict=True):
        readers.setdefault(a, []).append(b)
    finish = duration.copy()
    ready = np.flatnonzero(waiting == 0).tolist()
    while ready:
        one = ready.pop()
        for other in readers.get(one, []):
            finish[other] = max(finish[other], finish[one] + duration[other])
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    if (waiting > 0).any():
        raise InfeasiblePlacement("the accelerators' subgraphs wait for each other in a circle")
    return finish


def _add_transfers(
    problem: Problem, devices: IntArray, block: IntArray, crossing: IntArray, duration: FloatArray
) -> None:
    """Adds to each accelerator block the time of every tensor that enters or leaves it, once each.

    Blocks talk through host memory, so two blocks of one accelerator pay too, at the price of the accelerator's
    slowest link.
    """
    graph = problem.graph
    pays = pays_for_transfers(problem)
    src, dst = devices[graph.edge_src[crossing]], devices[graph.edge_dst[crossing]]
    latency, speed = problem.link_latency_s[src, dst], problem.link_bytes_per_s[src, dst]
    same = src == dst
    latency[same] = problem.link_latency_s.max(axis=1)[src[same]]
    off_diagonal = np.where(np.eye(problem.n_devices, dtype=bool), np.inf, problem.link_bytes_per_s)
    speed[same] = off_diagonal.min(axis=1)[src[same]]
    seconds = latency + graph.edge_bytes[crossing] / speed
    tensor = graph.edge_tensor[crossing].astype(np.int64)
    for ops in (graph.edge_src[crossing], graph.edge_dst[crossing]):
        _, first, group = np.unique(tensor * len(duration) + block[ops], return_index=True, return_inverse=True)
        slowest = np.zeros(len(first))
        np.maximum.at(slowest, group, seconds)
        owner = ops[first]
        np.add.at(duration, block[owner], np.where(pays[devices[owner]], slowest, 0.0))
