"""What a run of the simulator kernel reads and writes: flat arrays, and no objects."""

from typing import NamedTuple

import numpy as np


class Options(NamedTuple):
    """A `Rule` in numbers."""

    queue: int
    transfers: int
    whole: bool
    device_hold: float
    latency_holds: bool
    noisy: bool
    recording: bool


class Arrays(NamedTuple):
    """What a run reads: problem and rule, times in ticks. Edges in walking order.

    `channels` int32 [d * d, k] are the channels of each ordered pair of devices, -1 for none;
    `channel_pairs[channel_start[c]:channel_start[c + 1]]` the pairs (src * d + dst) that channel c is one of.
    """

    op_time: np.ndarray
    slots: np.ndarray
    n_inputs: np.ndarray
    out_start: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    size: np.ndarray
    tensor: np.ndarray
    latency: np.ndarray
    bytes_per_tick: np.ndarray
    channels: np.ndarray
    channel_start: np.ndarray
    channel_pairs: np.ndarray
    priority: np.ndarray
    op_factor: np.ndarray
    edge_factor: np.ndarray


class Workspace(NamedTuple):
    """What a run writes as it goes; the kernel cuts it into arrays at its top. A thread of a GPU gets a row of each."""

    floats: np.ndarray
    longs: np.ndarray
    ints: np.ndarray

    @classmethod
    def for_run(cls, arrays: Arrays) -> "Workspace":
        """A workspace for any number of placements, one after the other."""
        n, m, d = arrays.n_inputs.size, arrays.dst.size, arrays.slots.size
        n_channels = arrays.channel_start.size - 1
        n_queues, n_items = d + d * d, n + m
        return cls(
            np.empty((n + m + d + 1) + n_items + n, np.float64),
            np.empty((n + m + d + 1) + (n + m) + n_items + n, np.int64),
            np.empty(n + 2 * d + 2 * n_queues + 2 * n_items + n_channels + 2 * d * d + m, np.int32),
        )
