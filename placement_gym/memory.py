"""Peak memory of a run: parameters and live tensors per device, from the trace alone."""

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.trace import Trace, transfer_heads


def live_intervals(
    problem: Problem, op_device: IntArray, rule: Rule, trace: Trace
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """(device, from_s, until_s, bytes) of every output and every copy, one row each.

    An output lives on its own device from the start of its op until its op, the last local reader and the last
    outgoing transfer have finished; a copy from the start of its transfer until its last reader there has.
    """
    graph = problem.graph
    heads = transfer_heads(graph, op_device, rule)
    local, remote = np.flatnonzero(heads < 0), np.flatnonzero(heads >= 0)
    until = trace.op_finish_s.copy()
    np.maximum.at(until, graph.edge_src[local], trace.op_finish_s[graph.edge_dst[local]])
    np.maximum.at(until, graph.edge_src[remote], trace.transfer_arrival_s[heads[remote]])
    # A multicast makes one copy per receiving device, so copies are told apart by transfer and device.
    device = op_device[graph.edge_dst[remote]].astype(np.int64)
    _, first, copy = np.unique(
        heads[remote].astype(np.int64) * problem.n_devices + device, return_index=True, return_inverse=True
    )
    copy_until = np.full(len(first), -np.inf)
    np.maximum.at(copy_until, copy, trace.op_finish_s[graph.edge_dst[remote]])
    return (
        np.concatenate([op_device, device[first]]).astype(np.int32),
        np.concatenate([trace.op_start_s, trace.transfer_start_s[heads[remote][first]]]),
        np.concatenate([until, copy_until]),
        np.concatenate([graph.op_output_bytes, graph.edge_bytes[remote[first]]]),
    )


def peak_memory_bytes(problem: Problem, op_device: IntArray, rule: Rule, trace: Trace) -> FloatArray:
    """float64 [n_devices]: the worst instant of each device; what ends at an instant is freed before what starts."""
    device, start, until, size = live_intervals(problem, op_device, rule, trace)
    lasting = until > start
    device, start, until, size = device[lasting], start[lasting], until[lasting], size[lasting]
    peak = np.zeros(problem.n_devices)
    np.add.at(peak, op_device, problem.graph.op_parameter_bytes)
    for d in range(problem.n_devices):
        here = device == d
        time = np.concatenate([until[here], start[here]])
        change = np.concatenate([-size[here], size[here]])
        held = np.cumsum(change[np.lexsort((change, time))])
        peak[d] += max(0.0, float(held.max(initial=0.0)))
    return peak
