"""The three things that papers minimise: makespan (simulated), max-load (throughput), single-sample latency."""

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.errors import InfeasiblePlacement
from placement_gym.placement import Placement, infeasibility
from placement_gym.problem import Problem
from placement_gym.schedule import Schedule


def makespan_s(schedule: Schedule) -> float:
    """Seconds until the end of a simulated schedule (the rule says which end)."""
    return schedule.makespan_s


def device_loads_s(problem: Problem, op_device: ArrayLike) -> FloatArray:
    """Work and transfers of each device for one sample (Tarnawski et al., NeurIPS 2020, section 3).

    A device's load is the time of its ops and, on an accelerator, of every tensor that leaves it (once, at the
    slowest destination) and of every tensor that enters it (once, whatever the number of readers). CPUs pay no
    transfer. Transfers and work do not overlap.

    Args:
        problem: The problem.
        op_device: int [n_ops], device of each op.

    Returns:
        float64 [n_devices], seconds.

    Raises:
        InfeasiblePlacement: The placement breaks support, memory or colocation.
    """
    devices = Placement(np.asarray(op_device)).op_device
    reason = infeasibility(problem, devices)
    if reason is not None:
        raise InfeasiblePlacement(reason)
    graph, d = problem.graph, problem.n_devices
    load = np.zeros(d)
    np.add.at(load, devices, problem.op_time_s[np.arange(problem.n_ops), devices])
    src, dst = devices[graph.edge_src], devices[graph.edge_dst]
    apart = np.flatnonzero(src != dst)
    if not apart.size:
        return load
    tensor, src, dst = graph.edge_tensor[apart].astype(np.int64), src[apart], dst[apart]
    seconds = problem.link_latency_s[src, dst] + graph.edge_bytes[apart] / problem.link_bytes_per_s[src, dst]
    pays = np.array([kind != "cpu" for kind in problem.device_kinds])
    for end, key in ((src, tensor), (dst, tensor * d + dst)):
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        slowest = np.zeros(len(first))
        np.maximum.at(slowest, group, seconds)
        np.add.at(load, end[first], np.where(pays[end[first]], slowest, 0.0))
    return load


def max_load_s(problem: Problem, op_device: ArrayLike) -> float:
    """Seconds per sample of a pipeline: the largest of `device_loads_s`; raises as that does."""
    return float(device_loads_s(problem, op_device).max())


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


def latency_s(problem: Problem, op_device: ArrayLike) -> float:
    """Seconds until one sample is through, each accelerator running contiguous subgraphs (same paper, section 4).

    A CPU op ends its own time after its last input. A subgraph on an accelerator starts when all its inputs from
    outside are there, fetches each once, runs all its ops, sends each output that is read outside once, and only
    then gives any result. CPUs run any number of ops at a time.

    Args:
        problem: The problem.
        op_device: int [n_ops], device of each op; an accelerator's ops are cut by `contiguous_pieces`.

    Raises:
        InfeasiblePlacement: The placement breaks support, memory or colocation.
    """
    devices = Placement(np.asarray(op_device)).op_device
    reason = infeasibility(problem, devices)
    if reason is not None:
        raise InfeasiblePlacement(reason)
    graph = problem.graph
    pieces = contiguous_pieces(problem, devices)
    is_cpu = np.array([kind == "cpu" for kind in problem.device_kinds])[devices]
    _, block = np.unique(
        np.where(is_cpu, -1 - np.arange(problem.n_ops), pieces.astype(np.int64) * problem.n_devices + devices),
        return_inverse=True,
    )
    duration = np.zeros(int(block.max()) + 1)
    np.add.at(duration, block, problem.op_time_s[np.arange(problem.n_ops), devices])
    crossing = np.flatnonzero(block[graph.edge_src] != block[graph.edge_dst]).astype(np.int32)
    _add_transfers(problem, devices, block.astype(np.int32), crossing, duration)
    waiting = np.zeros(len(duration), dtype=np.int64)
    np.add.at(waiting, block[graph.edge_dst[crossing]], 1)
    readers: dict[int, list[int]] = {}
    for e in crossing.tolist():
        readers.setdefault(int(block[graph.edge_src[e]]), []).append(int(block[graph.edge_dst[e]]))
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
    return float(finish.max())


def _add_transfers(
    problem: Problem, devices: IntArray, block: IntArray, crossing: IntArray, duration: FloatArray
) -> None:
    """Adds to each accelerator block the time of every tensor that enters or leaves it, once each.

    Blocks talk through host memory, so two blocks of one accelerator pay too, at the price of the accelerator's
    slowest link.
    """
    graph = problem.graph
    pays = np.array([kind != "cpu" for kind in problem.device_kinds])
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
