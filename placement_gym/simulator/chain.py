"""The chain of ops that sets a makespan: every op of it waited for the one before."""

import numpy as np
from numba import njit

from placement_gym.arrays import IntArray
from placement_gym.simulator.compiled import CompiledProblem
from placement_gym.trace import Trace


@njit(cache=True)
def _critical_op(
    op: int,
    op_times: np.ndarray,
    op_device: np.ndarray,
    in_start: np.ndarray,
    in_edges: np.ndarray,
    src: np.ndarray,
    size: np.ndarray,
    latency: np.ndarray,
    bytes_per_tick: np.ndarray,
) -> int:
    """What op waited for last: the op before it on its device, or the input that came last; -1 if nothing."""
    ready, start = op_times[0, op], op_times[1, op]
    device = op_device[op]
    if start > ready:
        for other in range(op_device.size):
            if op_device[other] == device and op_times[3, other] == start and other != op:
                return other
    latest = -1.0
    found = -1
    for k in range(in_start[op], in_start[op + 1]):
        e = in_edges[k]
        a = src[e]
        there = op_times[2, a]
        if op_device[a] != device:
            there += latency[op_device[a], device] + size[e] / bytes_per_tick[op_device[a], device]
        if there > latest:
            latest = there
            found = a
    return found


@njit(cache=True)
def write_chain(
    chain: np.ndarray,
    op_times: np.ndarray,
    op_device: np.ndarray,
    in_start: np.ndarray,
    in_edges: np.ndarray,
    src: np.ndarray,
    size: np.ndarray,
    latency: np.ndarray,
    bytes_per_tick: np.ndarray,
) -> int:
    """Writes the chain of ops that sets the makespan into `chain`, last first; returns its length."""
    op = 0
    for other in range(op_device.size):
        if op_times[2, other] > op_times[2, op]:
            op = other
    n = 0
    while op >= 0 and n < chain.size:
        chain[n] = op
        n += 1
        op = _critical_op(op, op_times, op_device, in_start, in_edges, src, size, latency, bytes_per_tick)
    return n


def critical_chain(compiled: CompiledProblem, op_device: IntArray, trace: Trace) -> IntArray:
    """int32 [length]: the ops of the chain, last first.

    Args:
        compiled: Problem and rule.
        op_device: int32 [n_ops].
        trace: Of a run of that placement.
    """
    graph, arrays = compiled.problem.graph, compiled.arrays
    chain = np.empty(compiled.problem.n_ops, np.int32)
    times = np.stack([trace.op_ready_s, trace.op_start_s, trace.op_finish_s, trace.op_release_s])
    n = write_chain(
        chain,
        # The kernel's own numbers again, so that an op that starts when another ends is seen to.
        times / compiled.tick_s,
        op_device,
        graph.in_start,
        graph.in_edges,
        graph.edge_src,
        graph.edge_bytes,
        arrays.latency,
        arrays.bytes_per_tick,
    )
    return chain[:n]
