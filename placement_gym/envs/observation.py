"""Observation: the only place that names what a learner sees, and that parts it into STATIC and DYNAMIC keys.

STATIC keys hold for a whole problem, DYNAMIC ones change with every step. All are padded to the sizes of the
environment; padding is 0 (-1 where 0 is a number of something). Every Box is flat, because learners' libraries take
other shapes for pictures; `table` gives a key its rows and columns back.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s, t_level_s

Observation = dict[str, NDArray[Any]]

STATIC = ("op_features", "edge_index", "edge_features", "n_ops", "n_edges")
# Of Assign-v0; of SelectPlace-v0 with phased and with joint actions.
DYNAMIC = ("op", "device_features", "op_device", "action_mask")
DYNAMIC_PHASED = ("phase", "ready", *DYNAMIC)
DYNAMIC_JOINT = ("ready", "pair_features", "pair_mask", "op_device", "action_mask")
# Values of `phase`.
SELECT, PLACE = 0, 1

# Features are cut off here, far beyond what they are, because a Box wants bounds.
BOUND = 1e6
# DOPPLER's X_V (arXiv 2505.23131) is time, b_level, t_level, in_time, out_time, and its X_D is load, input_load,
# input_start, input_finish, start. Nothing is z-scored here: over which rows is the learner's business.
#
# They say what the critical-path teacher would do: it selects, among `ready` ops, those with the largest b_level, and
# places where finish_behind (or start_behind) is 0 and the mask allows it. Allow both 1e-6: these are float32.

# Columns of `op_features`; times over the mean op time unless said otherwise.
OP_FEATURES = (
    "log_time",  # log(1 + mean time over devices)
    "time",
    "b_level",  # over the longest path
    "t_level",  # over the longest path
    "in_time",  # transfer time of all inputs
    "out_time",  # transfer time of all outputs
    "memory",  # what the op needs at least over the mean capacity (0 without a limit)
    "is_backward",
)
# Columns of `device_features`, for the op that is placed next; times over the reference. What lies ahead is by the
# clock of `simulator.clock`.
DEVICE_FEATURES = (
    "time",  # of the op on this device
    "start",  # earliest start, communication and waiting counted
    "finish",  # earliest finish
    "start_behind",  # start minus the earliest start on any allowed device
    "finish_behind",  # finish minus the earliest finish on any allowed device
    "load",  # work placed on the device
    "input_load",  # work of the op's inputs there
    "input_start",  # earliest start of the op's inputs there (0 for none)
    "input_finish",  # latest finish of the op's inputs there (0 for none)
    "free",  # when the device is free
    "memory_left",  # share of capacity (1 without a limit)
    "allowed",  # the action mask
)


class _Array(Protocol):
    """What numpy arrays and torch tensors have in common here."""

    @property
    def shape(self) -> Any: ...  # noqa: ANN401

    def reshape(self, shape: tuple[int, ...], /) -> Any: ...  # noqa: ANN401


Flat = TypeVar("Flat", bound=_Array)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What observations are padded to: number of ops, edges and devices."""

    n_ops: int
    n_edges: int
    n_devices: int


def table(key: str, flat: Flat) -> Flat:
    """Rows and columns of a flat key; leading axes (batches) stay.

    `op_features` [..., max_ops, len(OP_FEATURES)], `edge_index` [..., 2, max_edges], `edge_features`
    [..., max_edges, 1], `device_features` [..., max_devices, len(DEVICE_FEATURES)], `pair_features`
    [..., max_ops * max_devices, len(DEVICE_FEATURES)], row op * max_devices + device.

    Args:
        key: The key.
        flat: Its value, an array or a torch tensor.
    """
    rows, columns = {
        "op_features": (-1, len(OP_FEATURES)),
        "edge_index": (2, -1),
        "edge_features": (-1, 1),
        "device_features": (-1, len(DEVICE_FEATURES)),
        "pair_features": (-1, len(DEVICE_FEATURES)),
    }[key]
    shaped: Flat = flat.reshape((*flat.shape[:-1], rows, columns))
    return shaped


def observation_space(sizes: Sizes, dynamic: tuple[str, ...] = DYNAMIC) -> "spaces.Space[Observation]":
    """The Dict of Boxes of one environment.

    Args:
        sizes: What it is padded to.
        dynamic: DYNAMIC, DYNAMIC_PHASED or DYNAMIC_JOINT.
    """

    def reals(length: int) -> spaces.Box:
        return spaces.Box(-BOUND, BOUND, (length,), np.float32)

    def whole(low: int, high: int, length: int, dtype: type = np.int64) -> spaces.Box:
        return spaces.Box(low, high, (length,), dtype)

    n, m, d = sizes.n_ops, max(1, sizes.n_edges), sizes.n_devices
    n_actions = {DYNAMIC: d, DYNAMIC_PHASED: max(n, d), DYNAMIC_JOINT: n + d}[dynamic]
    boxes = {
        "op_features": reals(n * len(OP_FEATURES)),
        "edge_index": whole(0, n - 1, 2 * m),
        "edge_features": reals(m),
        "n_ops": whole(0, n, 1),
        "n_edges": whole(0, m, 1),
        "phase": whole(SELECT, PLACE, 1, np.int8),
        "ready": whole(0, 1, n, np.int8),
        "op": whole(-1 if dynamic == DYNAMIC_PHASED else 0, n - 1, 1, np.int32),
        "device_features": reals(d * len(DEVICE_FEATURES)),
        "pair_features": reals(n * d * len(DEVICE_FEATURES)),
        "pair_mask": whole(0, 1, n * d, np.int8),
        "op_device": whole(-1, d - 1, n, np.int32),
        "action_mask": whole(0, 1, n_actions, np.int8),
    }
    space: spaces.Space[Observation] = spaces.Dict(  # type: ignore[assignment]
        {key: boxes[key] for key in (*STATIC, *dynamic)}
    )
    return space


def static_observation(problem: Problem, sizes: Sizes) -> Observation:
    """The STATIC keys of a problem, padded."""
    graph = problem.graph
    time, edge_time = mean_op_time_s(problem), mean_edge_time_s(problem)
    unit = time.mean() or 1.0
    down, up = b_level_s(problem, time, edge_time), t_level_s(problem, time, edge_time)
    longest = down.max() or 1.0
    into, out = np.zeros(problem.n_ops), np.zeros(problem.n_ops)
    np.add.at(into, graph.edge_dst, edge_time)
    np.add.at(out, graph.edge_src, edge_time)
    limited = np.isfinite(problem.device_memory_bytes)
    capacity = problem.device_memory_bytes[limited].mean() if limited.any() else np.inf
    columns = {
        "log_time": np.log1p(time / unit),
        "time": time / unit,
        "b_level": down / longest,
        "t_level": up / longest,
        "in_time": into / unit,
        "out_time": out / unit,
        "memory": (problem.op_memory_bytes + problem.op_working_bytes) / capacity,
        "is_backward": graph.op_is_backward,
    }
    op_features = np.zeros((sizes.n_ops, len(OP_FEATURES)), np.float32)
    op_features[: problem.n_ops] = np.stack([columns[name] for name in OP_FEATURES], axis=1)
    np.clip(op_features, -BOUND, BOUND, out=op_features)
    edge_index = np.zeros((2, max(1, sizes.n_edges)), np.int64)
    edge_features = np.zeros(max(1, sizes.n_edges), np.float32)
    edge_index[:, : graph.n_edges] = graph.edge_src, graph.edge_dst
    edge_features[: graph.n_edges] = np.clip(edge_time / unit, 0.0, BOUND)
    return {
        "op_features": op_features.ravel(),
        "edge_index": edge_index.ravel(),
        "edge_features": edge_features,
        "n_ops": np.array([problem.n_ops]),
        "n_edges": np.array([graph.n_edges]),
    }
