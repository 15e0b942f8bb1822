"""How many bytes a device holds: the one rule for problems, searches, environments, the simulator and `check`.

`Problem.memory_rule` names the rule.

- "live": a device holds the parameters of its ops throughout, an output from the start of its op until the op, the
  last reader on the device and the last transfer away from it have finished, and a received copy from the start of
  its transfer until its last reader there has finished. What counts is the worst instant of the run. What ends at an
  instant is freed before what starts, so an op that takes no time and has no later reader holds nothing.
- "claims": every op claims `op_memory_bytes` on its device throughout; this is how published instances count.

A placement fits where no device holds more than its capacity. `Problem.op_memory_bytes` is what an op holds throughout
under either rule: its parameters under "live".
"""

from typing import Literal, NamedTuple

import numpy as np
from numba import njit

from placement_gym.arrays import BoolArray, FloatArray
from placement_gym.graph import OpGraph

MemoryRule = Literal["live", "claims"]
# The largest ops that a message names.
N_NAMED = 3


class MemoryArrays(NamedTuple):
    """What decides whether a placement fits, as the simulator's loops read it.

    Attributes:
        live: Whether the rule is "live".
        binds: Whether any placement can exceed a capacity at all.
        held: float64 [n_ops], bytes held throughout.
        output: float64 [n_ops], bytes of outputs.
        capacity: float64 [n_devices], bytes.
    """

    live: bool
    binds: bool
    held: np.ndarray
    output: np.ndarray
    capacity: np.ndarray


class LiveRows(NamedTuple):
    """Space for the live intervals of a run: one row per output, then one per received copy.

    Attributes:
        device: int32 [n_ops + n_edges].
        start: float64 [n_ops + n_edges], when the bytes are taken.
        until: float64 [n_ops + n_edges], when they are freed.
        size: float64 [n_ops + n_edges], bytes.
        copy: int32 [n_devices], scratch: the row of the copy that a device has of the tensor at hand.
        peak: float64 [n_devices], bytes at the worst instant.
    """

    device: np.ndarray
    start: np.ndarray
    until: np.ndarray
    size: np.ndarray
    copy: np.ndarray
    peak: np.ndarray

    @classmethod
    def of_size(cls, n_ops: int, n_edges: int, n_devices: int) -> "LiveRows":
        """Empty rows."""
        n = n_ops + n_edges
        return cls(
            np.empty(n, np.int32),
            np.empty(n),
            np.empty(n),
            np.empty(n),
            np.empty(n_devices, np.int32),
            np.empty(n_devices),
        )


def working_bytes(graph: OpGraph, op_time_s: FloatArray, transfers_s: float) -> FloatArray:
    """float64 [n_ops]: live bytes beside parameters while an op runs: its output and its distinct inputs, at least.

    An input that was received counts by its copies, one that was made on the device by its op's output; the smaller
    of both is counted, since either may be. What takes no time beside all the rest may begin and end at one instant
    of floating point, and holds nothing then.

    Args:
        graph: The ops.
        op_time_s: float64 [n_ops, n_devices].
        transfers_s: Seconds that all transfers take one after the other, at most.
    """
    need = graph.op_output_bytes.copy()
    # A tensor that an op reads twice is there once; tensors of one op add up.
    read, first = np.unique(np.stack([graph.edge_dst, graph.edge_tensor]), axis=1, return_index=True)
    pairs, pair = np.unique(np.stack([read[0], graph.edge_src[first]]), axis=1, return_inverse=True)
    copies = np.bincount(pair.ravel(), graph.edge_bytes[first], minlength=pairs.shape[1])
    np.add.at(need, pairs[0], np.minimum(copies, graph.op_output_bytes[pairs[1]]))
    horizon_s = np.where(np.isfinite(op_time_s), op_time_s, 0.0).max(axis=1).sum() + transfers_s
    return np.where((op_time_s > 1e-12 * horizon_s).all(axis=1), need, 0.0)


def why_none_fits(
    graph: OpGraph,
    can_run: BoolArray,
    device_memory_bytes: FloatArray,
    device_names: tuple[str, ...],
    held: FloatArray,
    working: FloatArray,
) -> str | None:
    """A proof that no placement fits, in words with numbers; None where there is none (perhaps still none fits).

    Proofs: an op or a colocation group needs more than each device that can run it has; all ops together hold more
    throughout than all devices have.

    Args:
        graph: The ops.
        can_run: bool [n_ops, n_devices], a device in common for every colocation group.
        device_memory_bytes: float64 [n_devices].
        device_names: One per device.
        held: float64 [n_ops], bytes held throughout.
        working: float64 [n_ops], live bytes beside them while an op runs, at least.
    """
    largest = np.where(can_run, device_memory_bytes, -np.inf)
    too_large = np.flatnonzero(held + working > largest.max(axis=1))
    if too_large.size:
        i = int(too_large[np.argmax((held + working)[too_large])])
        return (
            f"op {graph.op_names[i]!r} needs {held[i] + working[i]:.4g} bytes ({held[i]:.4g} held throughout, "
            f"{working[i]:.4g} for inputs and output); {device_names[int(largest[i].argmax())]!r}, the largest device "
            f"that can run it, has {largest[i].max():.4g}" + _largest_ops(graph, held + working)
        )
    groups = graph.op_colocation
    for group in np.unique(groups[groups >= 0]):
        members = np.flatnonzero(groups == group)
        need = held[members].sum() + working[members].max()
        common = np.where(can_run[members].all(axis=0), device_memory_bytes, -np.inf)
        if need > common.max():
            return (
                f"colocation group {group} ({members.size} ops, first {graph.op_names[members[0]]!r}) needs {need:.4g} "
                f"bytes; {device_names[int(common.argmax())]!r}, the largest device that can run all of it, has "
                f"{common.max():.4g}"
            )
    if held.sum() > device_memory_bytes.sum():
        return (
            f"the ops together hold {held.sum():.4g} bytes throughout; the devices together have "
            f"{device_memory_bytes.sum():.4g}" + _largest_ops(graph, held)
        )
    return None


def _largest_ops(graph: OpGraph, need: FloatArray) -> str:
    named = [f"{graph.op_names[i]!r} {need[i]:.4g}" for i in np.argsort(-need, kind="stable")[:N_NAMED]]
    return f" (largest ops: {', '.join(named)})"


def memory_arrays(
    rule: MemoryRule, graph: OpGraph, op_memory_bytes: FloatArray, device_memory_bytes: FloatArray
) -> MemoryArrays:
    """The arrays of a problem; see `MemoryArrays`."""
    live = rule == "live"
    # Every output and every copy at once, all on the smallest device.
    most = op_memory_bytes.sum() + (graph.op_output_bytes.sum() + graph.edge_bytes.sum() if live else 0.0)
    return MemoryArrays(
        live,
        bool(most > device_memory_bytes.min()),
        np.array(op_memory_bytes),
        np.array(graph.op_output_bytes),
        np.array(device_memory_bytes),
    )


@njit(cache=True, error_model="numpy", nogil=True)
def write_live_rows(
    transfers: int,
    output: np.ndarray,
    out_start: np.ndarray,
    dst: np.ndarray,
    size: np.ndarray,
    tensor: np.ndarray,
    op_device: np.ndarray,
    op_start: np.ndarray,
    op_finish: np.ndarray,
    transfer_start: np.ndarray,
    transfer_arrival: np.ndarray,
    rows: LiveRows,
) -> int:
    """Writes the live intervals of a run, see the module; returns how many rows there are.

    Args:
        transfers: 0 if every edge is a transfer of its own, 1 if a tensor goes once to a device, 2 if one transfer
            goes to all devices (the order of `rule.CHOICES`).
        output: float64 [n_ops], bytes.
        out_start: int32 [n_ops + 1], out-edges of each op in walking order (`trace.walk_order`).
        dst: int32 [n_edges], and so on, in walking order.
        size: float64 [n_edges], bytes.
        tensor: int32 [n_edges].
        op_device: int32 [n_ops].
        op_start: float64 [n_ops], any unit of time.
        op_finish: float64 [n_ops].
        transfer_start: float64 [n_edges], at the first edge that the transfer delivers.
        transfer_arrival: float64 [n_edges].
        rows: Is written.
    """
    n = op_device.size
    row = n
    for v in range(n):
        home = op_device[v]
        rows.device[v], rows.start[v], rows.until[v], rows.size[v] = home, op_start[v], op_finish[v], output[v]
        first = out_start[v]
        while first < out_start[v + 1]:
            last = first + 1
            while transfers != 0 and last < out_start[v + 1] and tensor[last] == tensor[first]:
                last += 1
            rows.copy[:] = -1
            head = -1
            for e in range(first, last):
                there = op_device[dst[e]]
                if there == home:
                    rows.until[v] = max(rows.until[v], op_finish[dst[e]])
                elif rows.copy[there] >= 0:
                    known = rows.copy[there]
                    rows.until[known] = max(rows.until[known], op_finish[dst[e]])
                else:
                    if transfers != 2 or head < 0:
                        head = e
                    rows.copy[there] = row
                    rows.device[row], rows.start[row], rows.until[row] = there, transfer_start[head], op_finish[dst[e]]
                    rows.size[row] = size[e]
                    rows.until[v] = max(rows.until[v], transfer_arrival[head])
                    row += 1
            first = last
    return row


@njit(cache=True, error_model="numpy", nogil=True)
def write_peaks(held: np.ndarray, op_device: np.ndarray, n_rows: int, rows: LiveRows) -> None:
    """Writes `rows.peak`: what each device holds at its worst instant; frees come before takes."""
    n_lasting = 0
    for r in range(n_rows):
        if rows.until[r] > rows.start[r]:
            rows.device[n_lasting], rows.start[n_lasting] = rows.device[r], rows.start[r]
            rows.until[n_lasting], rows.size[n_lasting] = rows.until[r], rows.size[r]
            n_lasting += 1
    time = np.empty(2 * n_lasting)
    time[:n_lasting] = rows.until[:n_lasting]
    time[n_lasting:] = rows.start[:n_lasting]
    now = np.zeros(rows.peak.size)
    for v in range(op_device.size):
        now[op_device[v]] += held[v]
    rows.peak[:] = now
    # A stable sort keeps frees, which come first in `time`, before takes of the same instant.
    for event in np.argsort(time, kind="mergesort"):
        if event < n_lasting:
            now[rows.device[event]] -= rows.size[event]
        else:
            device = rows.device[event - n_lasting]
            now[device] += rows.size[event - n_lasting]
            rows.peak[device] = max(rows.peak[device], now[device])


@njit(cache=True, error_model="numpy", nogil=True)
def most_excess(
    m: MemoryArrays,
    out_start: np.ndarray,
    dst: np.ndarray,
    size: np.ndarray,
    op_device: np.ndarray,
    used: np.ndarray,
) -> float:
    """Bytes over capacity, all devices together, if nothing that is live were ever freed; exact under "claims".

    `used`, float64 [n_devices], is scratch. What fits so needs no look at the run.
    """
    used[:] = 0.0
    for v in range(op_device.size):
        used[op_device[v]] += m.held[v]
        if m.live:
            used[op_device[v]] += m.output[v]
            for e in range(out_start[v], out_start[v + 1]):
                if op_device[dst[e]] != op_device[v]:
                    used[op_device[dst[e]]] += size[e]
    return float(excess(used, m.capacity))


@njit(cache=True, error_model="numpy", nogil=True)
def excess(used: np.ndarray, capacity: np.ndarray) -> float:
    """Bytes over capacity, all devices together."""
    over = 0.0
    for d in range(capacity.size):
        over += max(0.0, used[d] - capacity[d])
    return over
