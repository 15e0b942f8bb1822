"""The estimate that sequential placers go by: when could an op start on a device, given the ops placed before it?

Ops are taken in the order in which they are placed, and so are transfers: a tensor is copied once to a device (each
edge on its own under rule `edge`), and a transfer waits for the channels that the rule makes it share with those
before it. Without contention this is what the simulator says of the placed ops when each device takes them in that
order (a multicast apart, whose other receivers are not known yet). The simulator, which sees the whole placement and
never idles beside ready work, has the last word.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.contention import channels_of
from placement_gym.simulator.compiled import CompiledProblem


class ClockProblem(NamedTuple):
    """What the clock reads.

    Edges are in the order in which they enter ops: those into op v are `in_start[v]` to `in_start[v + 1]`.

    Attributes:
        op_time: float64 [n_ops, n_devices], seconds.
        in_start: int32 [n_ops + 1].
        src: int32 [n_edges], op that the edge leaves.
        size: float64 [n_edges], bytes.
        tensor: int32 [n_edges].
        delay: float64 [n_devices, n_devices], seconds from start to arrival beside bytes / bandwidth; 0 at home.
        bytes_per_s: float64 [n_devices, n_devices]; inf at home.
        hold: float64 [n_devices, n_devices], seconds that the channels stay taken after arrival.
        channels: int32 [n_devices, n_devices, k], the channels that a transfer takes, -1 for none.
        contended: Whether transfers share channels.
        copies: Whether copies are remembered: a tensor goes to a device once, and when depends on channels.
        device_hold: Seconds that a slot stays taken after an op.
    """

    op_time: np.ndarray
    in_start: np.ndarray
    src: np.ndarray
    size: np.ndarray
    tensor: np.ndarray
    delay: np.ndarray
    bytes_per_s: np.ndarray
    hold: np.ndarray
    channels: np.ndarray
    contended: bool
    copies: bool
    device_hold: float

    @classmethod
    def of(cls, compiled: CompiledProblem) -> "ClockProblem":
        """The clock's arrays, in seconds and bytes."""
        problem, graph, rule = compiled.problem, compiled.problem.graph, compiled.rule
        d = problem.n_devices
        home = np.eye(d, dtype=bool)
        latency, free = np.where(home, 0.0, problem.link_latency_s), np.zeros((d, d))
        channels = channels_of(rule.contention, problem.device_node)
        contended = bool((channels >= 0).any())
        return cls(
            np.array(problem.op_time_s),
            np.array(graph.in_start),
            graph.edge_src[graph.in_edges],
            graph.edge_bytes[graph.in_edges],
            graph.edge_tensor[graph.in_edges],
            latency if rule.latency == "delays" else free,
            np.where(home, np.inf, problem.link_bytes_per_s),
            latency if rule.latency == "holds" else free,
            channels,
            contended,
            contended and rule.transfers != "edge",
            rule.device_hold_s,
        )


class ClockState(NamedTuple):
    """Where a batch of episodes stands; axis 0 is the episode.

    Attributes:
        op_device: int32 [B, n_ops], -1 for an op not placed.
        finish: float64 [B, n_ops], seconds, of placed ops.
        copied: float64 [B, n_tensors, n_devices], arrival of copies made, -1 for none; empty where not needed.
        channel_free: float64 [B, n_channels], seconds, when each channel is free.
    """

    op_device: np.ndarray
    finish: np.ndarray
    copied: np.ndarray
    channel_free: np.ndarray


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def _arrival(c: ClockProblem, s: ClockState, b: int, edge: int, device: int) -> float:
    """When what an edge carries could be on `device`: its copy there, or a transfer that the channels wait for."""
    home = s.op_device[b, c.src[edge]]
    begin = s.finish[b, c.src[edge]]
    if home != device:
        if c.copies and s.copied[b, c.tensor[edge], device] >= 0.0:
            return float(s.copied[b, c.tensor[edge], device])
        if c.contended:
            for i in range(c.channels.shape[2]):
                if c.channels[home, device, i] >= 0:
                    begin = max(begin, s.channel_free[b, c.channels[home, device, i]])
    return float(begin + (c.delay[home, device] + c.size[edge] / c.bytes_per_s[home, device]))


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def inputs_ready(c: ClockProblem, s: ClockState, b: int, op: int, device: int) -> float:
    """When all inputs of `op`, which are placed, could be on `device` in episode b."""
    ready = 0.0
    for k in range(c.in_start[op], c.in_start[op + 1]):
        ready = max(ready, _arrival(c, s, b, k, device))
    return ready


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def move_inputs(c: ClockProblem, s: ClockState, b: int, op: int, device: int) -> float:
    """Moves the inputs of `op` to `device`, one after the other; returns when the last is there."""
    ready = 0.0
    for k in range(c.in_start[op], c.in_start[op + 1]):
        there = _arrival(c, s, b, k, device)
        home = s.op_device[b, c.src[k]]
        if c.contended and home != device and not (c.copies and s.copied[b, c.tensor[k], device] >= 0.0):
            for i in range(c.channels.shape[2]):
                if c.channels[home, device, i] >= 0:
                    s.channel_free[b, c.channels[home, device, i]] = there + c.hold[home, device]
            if c.copies:
                s.copied[b, c.tensor[k], device] = there
        ready = max(ready, there)
    return ready
