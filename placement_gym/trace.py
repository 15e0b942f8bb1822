"""Trace: when every op and transfer of one run became ready, started, finished and let go of its resource."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement_gym.graph import FloatArray, IntArray, OpGraph
from placement_gym.rule import Transfers


@dataclass(slots=True, eq=False)
class Trace:
    """What one run of the simulator (or of a real engine) writes down. Times in seconds.

    Attributes:
        op_ready_s: float64 [n_ops], last input delivered.
        op_start_s: float64 [n_ops].
        op_finish_s: float64 [n_ops], outputs exist.
        op_release_s: float64 [n_ops], the device slot is free again.
        transfer_ready_s: float64 [n_edges], producer done. A transfer is written at the first edge that it
            delivers; NaN at edges that stay on a device or are delivered by another edge's transfer.
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

    @classmethod
    def empty(cls, n_ops: int, n_edges: int) -> "Trace":
        """All NaN."""
        return cls(*(np.full(n_ops, np.nan) for _ in range(4)), *(np.full(n_edges, np.nan) for _ in range(4)))


def transfer_edges(graph: OpGraph, op_device: Sequence[int] | IntArray, transfers: Transfers, edge: int) -> list[int]:
    """Edges, ascending, that one transfer delivers together with `edge` (whose two ends lie on different devices)."""
    if transfers == "edge":
        return [edge]
    src = int(graph.edge_src[edge])
    home = op_device[src]
    same_tensor = [
        int(e)
        for e in graph.out_edges[graph.out_start[src] : graph.out_start[src + 1]]
        if graph.edge_tensor[e] == graph.edge_tensor[edge]
    ]
    if transfers == "multicast":
        return [e for e in same_tensor if op_device[graph.edge_dst[e]] != home]
    return [e for e in same_tensor if op_device[graph.edge_dst[e]] == op_device[graph.edge_dst[edge]]]


def transfer_heads(graph: OpGraph, op_device: IntArray, transfers: Transfers) -> IntArray:
    """int32 [n_edges]: the edge at which the transfer that delivers edge e is written, -1 where e stays on its device."""
    dst_device = op_device[graph.edge_dst]
    remote = np.flatnonzero(op_device[graph.edge_src] != dst_device)
    heads = np.full(graph.n_edges, -1, dtype=np.int32)
    if transfers == "edge":
        heads[remote] = remote
        return heads
    key = graph.edge_tensor[remote].astype(np.int64)
    if transfers == "tensor":
        key = key * (int(op_device.max()) + 1) + dst_device[remote]
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    heads[remote] = remote[first[group]]
    return heads
