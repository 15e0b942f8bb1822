"""Trace: when every op and transfer of one run became ready, started, finished and let go of its resource."""

from dataclasses import dataclass, fields

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.graph import OpGraph
from placement_gym.memory import LiveRows, write_live_rows, write_peaks
from placement_gym.placement import device_memory_used_bytes
from placement_gym.problem import Problem
from placement_gym.rule import CHOICES, Rule


@dataclass(slots=True, eq=False)
class Trace:
    """What one run of the simulator (or of a real engine) writes down. Times in seconds.

    Attributes:
        op_ready_s: float64 [n_ops], last input delivered.
        op_start_s: float64 [n_ops].
        op_finish_s: float64 [n_ops], outputs exist.
        op_release_s: float64 [n_ops], the device slot is free again.
        transfer_ready_s: float64 [n_edges], producer done. A transfer is written at the first edge that it
            delivers (in the order of `walk_order`); NaN at edges that stay on a device or that another edge's
            transfer delivers.
        transfer_start_s: float64 [n_edges].
        transfer_arrival_s: float64 [n_edges].
        transfer_release_s: float64 [n_edges], the channels are free again.
        last_event_s: Time of the last event.
    """

    op_ready_s: FloatArray
    op_start_s: FloatArray
    op_finish_s: FloatArray
    op_release_s: FloatArray
    transfer_ready_s: FloatArray
    transfer_start_s: FloatArray
    transfer_arrival_s: FloatArray
    transfer_release_s: FloatArray
    last_event_s: float = 0.0

    def scaled(self, factor: float) -> "Trace":
        """The same trace with every time multiplied."""
        return Trace(*(getattr(self, f.name) * factor for f in fields(self)))

    @classmethod
    def empty(cls, n_ops: int, n_edges: int) -> "Trace":
        """All NaN."""
        op, edge = np.full((4, n_ops), np.nan), np.full((4, n_edges), np.nan)
        return cls(op[0], op[1], op[2], op[3], edge[0], edge[1], edge[2], edge[3])


def walk_order(graph: OpGraph, rule: Rule) -> IntArray:
    """int32 [n_edges]: out-edges, grouped by op as `graph.out_start` says, in the order in which they are handled.

    By edge number or by the name of the op they lead to (`rule.ties`); edges of one tensor stay together unless
    every edge is its own transfer.
    """
    walk = graph.out_edges
    if rule.ties == "op_name":
        name_rank = np.empty(graph.n_ops, dtype=np.int64)
        name_rank[sorted(range(graph.n_ops), key=graph.op_names.__getitem__)] = np.arange(graph.n_ops)
        walk = walk[np.lexsort((name_rank[graph.edge_dst[walk]], graph.edge_src[walk]))]
    if rule.transfers != "edge" and len(walk):
        _, first, tensor = np.unique(graph.edge_tensor[walk], return_index=True, return_inverse=True)
        walk = walk[np.lexsort((np.arange(len(walk)), first[tensor]))]
    return walk


def transfer_heads(graph: OpGraph, op_device: IntArray, rule: Rule) -> IntArray:
    """int32 [n_edges]: where the transfer that delivers edge e is written, -1 if e stays on its device."""
    walk = walk_order(graph, rule)
    dst_device = op_device[graph.edge_dst]
    remote = walk[op_device[graph.edge_src[walk]] != dst_device[walk]]
    heads = np.full(graph.n_edges, -1, dtype=np.int32)
    if rule.transfers == "edge":
        heads[remote] = remote
        return heads
    key = graph.edge_tensor[remote].astype(np.int64)
    if rule.transfers == "tensor":
        key = key * (int(op_device.max()) + 1) + dst_device[remote]
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    heads[remote] = remote[first[group]]
    return heads


def peak_memory_bytes(problem: Problem, op_device: IntArray, rule: Rule, trace: Trace) -> FloatArray:
    """float64 [n_devices]: bytes at the worst instant of each device, by the problem's memory rule."""
    if problem.memory_rule == "claims":
        return device_memory_used_bytes(problem, op_device)
    graph, walk = problem.graph, walk_order(problem.graph, rule)
    rows = LiveRows.of_size(problem.n_ops, graph.n_edges, problem.n_devices)
    # Copies, because Numba takes read-only arrays for another type.
    n_rows = write_live_rows(
        CHOICES["transfers"].index(rule.transfers),
        np.array(graph.op_output_bytes),
        np.array(graph.out_start),
        graph.edge_dst[walk],
        graph.edge_bytes[walk],
        graph.edge_tensor[walk],
        np.array(op_device),
        trace.op_start_s,
        trace.op_finish_s,
        trace.transfer_start_s[walk],
        trace.transfer_arrival_s[walk],
        rows,
    )
    write_peaks(np.array(problem.op_memory_bytes), np.array(op_device), n_rows, rows)
    return rows.peak
