"""calibrated: a problem with the times that its ops and transfers took in real runs of other placements."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.costs.timing import CopyLine
from placement_gym.errors import InvalidProblem
from placement_gym.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a real run of a placement took.

    Attributes:
        op_device: int32 [n_ops].
        op_s: float64 [n_ops], from the start of each op to its finish, the engine's part included.
        edge_s: float64 [n_edges], of the transfer written at each edge, NaN where none is.
    """

    op_device: IntArray
    op_s: FloatArray
    edge_s: FloatArray


def calibrated(problem: Problem, runs: Sequence[Run]) -> Problem:
    """The problem with measured times: medians per kernel and kind of device, lines per pair of kinds.

    Ops whose kernels have one signature take one time on all devices of a kind ("cpu", "accelerator"); a kernel that
    no run had on a kind of device keeps the problem's time, times the median ratio of measured to stated times there.
    Links between two kinds get the line fitted to the medians of their transfers by size, if these had two sizes.

    Args:
        problem: Of a graph with kernels.
        runs: Of some placements of it, other than those whose makespans are to be told.

    Raises:
        InvalidProblem: The graph has no kernels, or there is no run.
    """
    kernels = problem.graph.kernels
    if kernels is None or not runs:
        raise InvalidProblem(f"{problem.name}: {len(runs)} runs of a graph {'with' if kernels else 'without'} kernels")
    kinds = np.array(problem.device_kinds)
    signature_op = np.unique([kernel.signature for kernel in kernels.op_kernels], return_inverse=True)[1]
    op_time_s = np.array(problem.op_time_s)
    for kind in np.unique(kinds):
        devices = np.flatnonzero(kinds == kind)
        here = [np.isin(run.op_device, devices) for run in runs]
        measured_s = np.concatenate([run.op_s[on] for run, on in zip(runs, here, strict=True)])
        signature = np.concatenate([signature_op[on] for on in here])
        stated_s = problem.op_time_s[:, devices[0]]
        if not measured_s.size:
            continue
        ratio = np.median(measured_s / np.concatenate([stated_s[on] for on in here]))
        for s in range(signature_op.max() + 1):
            ops = np.flatnonzero(signature_op == s)
            found = measured_s[signature == s]
            op_time_s[np.ix_(ops, devices)] = np.median(found) if found.size else ratio * stated_s[ops, None]
    latency_s, bytes_per_s = np.array(problem.link_latency_s), np.array(problem.link_bytes_per_s)
    for source in np.unique(kinds):
        for target in np.unique(kinds):
            line = _line(problem, runs, kinds == source, kinds == target)
            if line is not None:
                pairs = np.outer(kinds == source, kinds == target) & ~np.eye(len(kinds), dtype=np.bool_)
                latency_s[pairs], bytes_per_s[pairs] = line.latency_s, line.bytes_per_s
    return replace(problem, op_time_s=op_time_s, link_latency_s=latency_s, link_bytes_per_s=bytes_per_s)


def _line(problem: Problem, runs: Sequence[Run], sources: np.ndarray, targets: np.ndarray) -> CopyLine | None:
    graph = problem.graph
    size: list[FloatArray] = []
    seconds: list[FloatArray] = []
    for run in runs:
        src, dst = run.op_device[graph.edge_src], run.op_device[graph.edge_dst]
        made = np.flatnonzero(np.isfinite(run.edge_s) & sources[src] & targets[dst] & (graph.edge_bytes > 0))
        size.append(graph.edge_bytes[made])
        seconds.append(run.edge_s[made])
    n_bytes, took_s = np.concatenate(size), np.concatenate(seconds)
    sizes = np.unique(n_bytes)
    if len(sizes) < 2:
        return None
    return CopyLine.fit(sizes, [np.median(took_s[n_bytes == one]) for one in sizes])
