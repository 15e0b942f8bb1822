"""The estimate that sequential placers go by: when could an op start on a device, given the ops placed before it?

Ops are taken in the order in which they are placed. A tensor is copied once to a device (each edge on its own under
rule `edge`); with contention at the devices a transfer waits for its sender and its receiver. The simulator, which
sees the whole placement, has the last word.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.simulator.compiled import CompiledProblem


class ClockProblem(NamedTuple):
    """What the clock reads."""

    op_time: np.ndarray
    in_start: np.ndarray
    in_edges: np.ndarray
    src: np.ndarray
    size: np.ndarray
    tensor: np.ndarray
    latency: np.ndarray
    bytes_per_s: np.ndarray
    contended: bool
    per_edge: bool

    @classmethod
    def of(cls, compiled: CompiledProblem) -> "ClockProblem":
        """The clock's arrays, in seconds and bytes."""
        problem, graph, rule = compiled.problem, compiled.problem.graph, compiled.rule
        return cls(
            np.array(problem.op_time_s),
            np.array(graph.in_start),
            np.array(graph.in_edges),
            np.array(graph.edge_src),
            np.array(graph.edge_bytes),
            np.array(graph.edge_tensor),
            np.array(problem.link_latency_s),
            np.array(problem.link_bytes_per_s),
            rule.contention in ("port", "half_duplex"),
            rule.transfers == "edge",
        )


@njit(cache=True)
def arrival(
    c: ClockProblem, e: int, home: int, device: int, done: float, sending: np.ndarray, receiving: np.ndarray
) -> float:
    """When the tensor of edge e, done on device `home`, can be on `device` by a transfer of its own."""
    if c.contended:
        done = max(done, max(sending[home], receiving[device]))
    return float(done + c.latency[home, device] + c.size[e] / c.bytes_per_s[home, device])


@njit(cache=True)
def inputs_ready(
    c: ClockProblem,
    op: int,
    device: int,
    op_device: np.ndarray,
    finish: np.ndarray,
    copied: np.ndarray,
    sending: np.ndarray,
    receiving: np.ndarray,
) -> float:
    """When all inputs of `op` could be on `device`.

    Args:
        c: The problem.
        op: Op whose inputs are all placed.
        device: Where it might go.
        op_device: int32 [n_ops].
        finish: float64 [n_ops], of placed ops.
        copied: float64 [n_tensors, n_devices], arrival of copies made, -1 for none.
        sending: float64 [n_devices], when each sender is free.
        receiving: float64 [n_devices], when each receiver is free.
    """
    ready = 0.0
    for k in range(c.in_start[op], c.in_start[op + 1]):
        e = c.in_edges[k]
        a = c.src[e]
        if op_device[a] == device:
            ready = max(ready, finish[a])
        elif not c.per_edge and copied[c.tensor[e], device] >= 0.0:
            ready = max(ready, copied[c.tensor[e], device])
        else:
            ready = max(ready, arrival(c, e, op_device[a], device, finish[a], sending, receiving))
    return ready


@njit(cache=True)
def move_inputs(
    c: ClockProblem,
    op: int,
    device: int,
    op_device: np.ndarray,
    finish: np.ndarray,
    copied: np.ndarray,
    sending: np.ndarray,
    receiving: np.ndarray,
) -> float:
    """Moves the inputs of `op` to `device`, one after the other; returns when the last is there. Args as above."""
    ready = 0.0
    for k in range(c.in_start[op], c.in_start[op + 1]):
        e = c.in_edges[k]
        home = op_device[c.src[e]]
        if home == device:
            there = finish[c.src[e]]
        elif not c.per_edge and copied[c.tensor[e], device] >= 0.0:
            there = copied[c.tensor[e], device]
        else:
            there = arrival(c, e, home, device, finish[c.src[e]], sending, receiving)
            if c.contended:
                sending[home] = there
                receiving[device] = there
            if not c.per_edge:
                copied[c.tensor[e], device] = there
        ready = max(ready, there)
    return ready
