"""Observation: the only place that names what a learner sees, one schema for all environments.

STATIC keys hold for a whole problem; in the native vector form they are read-only. (Torch does not heed that: copy a
tensor before you change it in place.) DYNAMIC keys change with every step. All are padded to the sizes of the
environment. Padding is 0, or -1 in keys that hold numbers of ops or devices. Every Box has one axis, because learners'
libraries take other shapes for pictures; `placement_gym.envs.observation.table` gives a key its rows and columns back.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray
from placement_gym.errors import InvalidOption, unknown_name
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s, t_level_s

Observation = dict[str, NDArray[Any]]
Form = Literal["dict", "flat"]

STATIC = (
    "op_features",  # float32 [max_ops, OP_FEATURES]
    "op_kind",  # int64 [max_ops], see `kind_numbers`, 0 behind the last op
    "op_time",  # float32 [max_ops, max_devices], over the mean op time; -1 where the device cannot run the op
    "edge_index",  # int64 [2, max_edges], source and destination of each edge, -1 behind the last edge
    "edge_features",  # float32 [max_edges, EDGE_FEATURES]
    "device_features",  # float32 [max_devices, DEVICE_FEATURES]
    "device_kind",  # int64 [max_devices], see `kind_numbers`, 0 behind the last device
    "link_features",  # float32 [max_devices * max_devices, LINK_FEATURES], row source * max_devices + destination
    "n_ops",  # int64 [1]
    "n_edges",  # int64 [1]
    "n_devices",  # int64 [1]
)
DYNAMIC = (
    "phase",  # int8 [1], what an action is: SELECT, PLACE or PAIR
    "op",  # int32 [1], the op that is placed next, -1 for none
    "op_device",  # int32 [max_ops], device of each op, -1 for none
    "action_features",  # float32 [described actions, ACTION_FEATURES]; actions behind the last row are not described
    "action_mask",  # int8 [n_actions], 1 for each action that is allowed; never all 0
    "context",  # float32 [CONTEXT]
)
# Values of `phase`. An action is an op; a device for `op`; or op * max_devices + device.
SELECT, PLACE, PAIR = 0, 1, 2

# Features are cut off here, far beyond what they are, because a Box wants bounds.
BOUND = 1e6
N_KINDS = 64
# DOPPLER's X_V (arXiv 2505.23131) is time, b_level, t_level, in_time, out_time, and its X_D is load, input_load,
# input_start, input_finish, start. Nothing is z-scored here: over which rows is the learner's business.
#
# They say what the critical-path teacher would do: it selects, among the allowed ops, those with the largest b_level,
# and places where finish_behind (or start_behind) is 0 and the mask allows it. Allow both 1e-6: these are float32.

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
    "output_bytes",  # over the mean of the ops
)
# Columns of `edge_features`.
EDGE_FEATURES = (
    "time",  # transfer time, mean over pairs of devices, over the mean op time
    "bytes",  # over the mean of the edges
)
# Columns of `device_features`.
DEVICE_FEATURES = (
    "relative_time",  # of the ops that it can run, over their mean time on all devices
    "share_supported",  # share of ops that it can run
    "memory",  # capacity over what all ops need at least (0 without a limit)
    "slots",  # ops that it runs at a time
)
# Columns of `link_features`; a device and itself: 0.
LINK_FEATURES = (
    "latency",  # over the mean op time
    "time",  # to send the mean edge's bytes, over the mean op time: proportional to 1 / bandwidth
)
# Columns of `action_features`: what it means to place an op on a device; times over the reference (the time of all
# ops one after the other, each on its fastest device). What lies ahead is by the clock of `simulator.clock`.
ACTION_FEATURES = (
    "time",  # of what the action places, on this device
    "start",  # earliest start, communication and waiting counted
    "finish",  # earliest finish
    "start_behind",  # start minus the earliest start on any allowed device
    "finish_behind",  # finish minus the earliest finish on any allowed device
    "load",  # work placed on the device
    "input_load",  # work of the op's inputs there, once for each edge
    "input_start",  # earliest start of the op's inputs there (0 for none)
    "input_finish",  # latest finish of the op's inputs there (0 for none)
    "free",  # when the device is free
    "memory_left",  # share of capacity (1 without a limit)
    "allowed",  # the action mask
)
# Columns of `context`.
CONTEXT = (
    "steps_done",  # share of the steps that the episode can have
    "value",  # objective of what is placed so far, over the reference
)


class _Array(Protocol):
    """What numpy arrays and torch tensors have in common here."""

    @property
    def shape(self) -> Any: ...  # noqa: ANN401

    def reshape(self, shape: tuple[int, ...], /) -> Any: ...  # noqa: ANN401


Flat = TypeVar("Flat", bound=_Array)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What observations are padded to: number of ops, edges and devices.

    Raises:
        InvalidOption: No whole number, or one that no problem could have.
    """

    n_ops: int
    n_edges: int
    n_devices: int

    def __post_init__(self) -> None:
        for what, least in (("n_ops", 1), ("n_edges", 0), ("n_devices", 1)):
            value = getattr(self, what)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
                raise InvalidOption(f"Sizes.{what} is {value!r}; expected a whole number >= {least}")

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> "Sizes":
        """The largest of each, over all problems."""
        return cls(
            max(problem.n_ops for problem in problems),
            max(problem.graph.n_edges for problem in problems),
            max(problem.n_devices for problem in problems),
        )


def table(key: str, flat: Flat) -> Flat:
    """Rows and columns of a key, as STATIC and DYNAMIC name them; leading axes (batches) stay.

    `op_time` has a column for each device of the padding: reshape it to [..., max_ops, max_devices].

    Args:
        key: "edge_index", or a key whose name ends with "_features".
        flat: Its value, an array or a torch tensor.

    Raises:
        InvalidOption: Another key.
    """
    columns = {
        "op_features": len(OP_FEATURES),
        "edge_features": len(EDGE_FEATURES),
        "device_features": len(DEVICE_FEATURES),
        "link_features": len(LINK_FEATURES),
        "action_features": len(ACTION_FEATURES),
    }
    if key not in (*columns, "edge_index"):
        raise InvalidOption(unknown_name("key with columns", str(key), ["edge_index", *columns]))
    shape = (2, -1) if key == "edge_index" else (-1, columns[key])
    shaped: Flat = flat.reshape((*flat.shape[:-1], *shape))
    return shaped


def observation_space(sizes: Sizes, n_actions: int, n_described: int) -> "spaces.Space[Observation]":
    """The Dict of Boxes of one environment.

    Args:
        sizes: What it is padded to.
        n_actions: Length of `action_mask`.
        n_described: Rows of `action_features`.
    """

    def reals(length: int) -> spaces.Box:
        return spaces.Box(-BOUND, BOUND, (length,), np.float32)

    def whole(low: int, high: int, length: int, dtype: type = np.int64) -> spaces.Box:
        return spaces.Box(low, high, (length,), dtype)

    n, m, d = sizes.n_ops, max(1, sizes.n_edges), sizes.n_devices
    boxes = {
        "op_features": reals(n * len(OP_FEATURES)),
        "op_kind": whole(0, N_KINDS - 1, n),
        "op_time": reals(n * d),
        "edge_index": whole(-1, n - 1, 2 * m),
        "edge_features": reals(m * len(EDGE_FEATURES)),
        "device_features": reals(d * len(DEVICE_FEATURES)),
        "device_kind": whole(0, N_KINDS - 1, d),
        "link_features": reals(d * d * len(LINK_FEATURES)),
        "n_ops": whole(0, n, 1),
        "n_edges": whole(0, m, 1),
        "n_devices": whole(0, d, 1),
        "phase": whole(SELECT, PAIR, 1, np.int8),
        "op": whole(-1, n - 1, 1, np.int32),
        "op_device": whole(-1, d - 1, n, np.int32),
        "action_features": reals(n_described * len(ACTION_FEATURES)),
        "action_mask": whole(0, 1, n_actions, np.int8),
        "context": reals(len(CONTEXT)),
    }
    space: spaces.Space[Observation] = spaces.Dict({key: boxes[key] for key in (*STATIC, *DYNAMIC)})  # type: ignore[assignment]
    return space


def kind_numbers(kinds: Sequence[str]) -> NDArray[np.int64]:
    """int64 [len(kinds)]: a number from 1 to N_KINDS - 1 for each name, the same in every problem (its CRC-32)."""
    return np.array([1 + zlib.crc32(kind.encode()) % (N_KINDS - 1) for kind in kinds], np.int64)


def _padded(values: NDArray[Any], shape: tuple[int, ...], dtype: type, fill: float = 0) -> NDArray[Any]:
    """The values in the first corner of a larger array, as one row."""
    array: NDArray[Any] = np.full(shape, fill, dtype)
    array[tuple(slice(length) for length in values.shape)] = values
    return array.ravel()


def _op_columns(problem: Problem, time: FloatArray, edge_time: FloatArray, unit: float) -> FloatArray:
    """float64 [n_ops, OP_FEATURES]."""
    graph, n = problem.graph, problem.n_ops
    down, up = b_level_s(problem, time, edge_time), t_level_s(problem, time, edge_time)
    longest = down.max() or 1.0
    into, out = (np.bincount(ends, edge_time, n) for ends in (graph.edge_dst, graph.edge_src))
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
        "is_backward": graph.op_is_backward.astype(np.float64),
        "output_bytes": graph.op_output_bytes / (graph.op_output_bytes.mean() or 1.0),
    }
    return np.stack([columns[name] for name in OP_FEATURES], axis=1)


def static_observation(problem: Problem, sizes: Sizes) -> Observation:
    """The STATIC keys of a problem, padded; the arrays are read-only."""
    graph = problem.graph
    n, m, d = sizes.n_ops, max(1, sizes.n_edges), sizes.n_devices
    time, edge_time = mean_op_time_s(problem), mean_edge_time_s(problem)
    unit, able = float(time.mean()) or 1.0, np.isfinite(problem.op_time_s)
    mean_bytes = float(graph.edge_bytes.mean()) if graph.n_edges else 0.0
    needed = float((problem.op_memory_bytes + problem.op_working_bytes).sum()) or 1.0
    here = np.where(able, time[:, None], 0.0).sum(axis=0)
    devices = {
        "relative_time": np.where(able, problem.op_time_s, 0.0).sum(axis=0) / np.where(here > 0, here, 1.0),
        "share_supported": able.mean(axis=0),
        "memory": np.where(np.isfinite(problem.device_memory_bytes), problem.device_memory_bytes, 0.0) / needed,
        "slots": problem.device_slots.astype(np.float64),
    }
    links = {
        "latency": problem.link_latency_s / unit,
        "time": mean_bytes / problem.link_bytes_per_s / unit,
    }
    apart = ~np.eye(problem.n_devices, dtype=np.bool_)
    edges = {"time": edge_time / unit, "bytes": graph.edge_bytes / (mean_bytes or 1.0)}
    link_features = np.stack([np.where(apart, links[name], 0.0) for name in LINK_FEATURES], axis=-1)
    features = {
        "op_features": (_op_columns(problem, time, edge_time, unit), (n, len(OP_FEATURES))),
        "op_time": (np.where(able, problem.op_time_s / unit, -1.0), (n, d)),
        "edge_features": (np.stack([edges[name] for name in EDGE_FEATURES], axis=1), (m, len(EDGE_FEATURES))),
        "device_features": (np.stack([devices[name] for name in DEVICE_FEATURES], 1), (d, len(DEVICE_FEATURES))),
        "link_features": (link_features, (d, d, len(LINK_FEATURES))),
    }
    seen: Observation = {
        key: _padded(np.clip(values, -BOUND, BOUND), shape, np.float32) for key, (values, shape) in features.items()
    }
    seen["op_kind"] = _padded(kind_numbers(graph.op_kinds), (n,), np.int64)
    seen["device_kind"] = _padded(kind_numbers(problem.device_kinds), (d,), np.int64)
    seen["edge_index"] = _padded(np.stack([graph.edge_src, graph.edge_dst]), (2, m), np.int64, fill=-1)
    counts = {"n_ops": problem.n_ops, "n_edges": graph.n_edges, "n_devices": problem.n_devices}
    seen |= {key: np.array([count]) for key, count in counts.items()}
    for array in seen.values():
        array.flags.writeable = False
    return {key: seen[key] for key in STATIC}


def flat_space(n_actions: int, n_described: int) -> spaces.Box:
    """The space of `flat_observation` for one environment."""
    length = len(OP_FEATURES) + len(CONTEXT) + 2 * n_described * len(ACTION_FEATURES) + n_actions
    return spaces.Box(-BOUND, BOUND, (length,), np.float32)


def flat_observation(seen: Observation) -> NDArray[np.float32]:
    """float32 [B, length] for learners without a graph network: the op, the context, described actions, the mask.

    Features of actions come twice: as they are, and less their mean over the allowed actions, over the deviation there.
    All are compressed, x to sign(x) log(1 + |x|).

    Args:
        seen: All keys with a leading axis B.
    """
    b = len(seen["op"])
    ops = table("op_features", seen["op_features"])
    op = np.where(seen["op"] >= 0, ops[np.arange(b), np.maximum(seen["op"][:, 0], 0)], 0.0)
    actions, mask = table("action_features", seen["action_features"]), seen["action_mask"]
    weight = mask[:, : actions.shape[1], None].astype(np.float32)
    if actions.shape[1] < mask.shape[1]:
        weight = weight * (seen["phase"] != SELECT)[:, :, None]
    count = np.maximum(weight.sum(axis=1, keepdims=True), 1.0)
    off = (actions - (actions * weight).sum(axis=1, keepdims=True) / count) * weight
    spread = np.sqrt((off**2).sum(axis=1, keepdims=True) / count)
    relative = np.clip(off / (spread + 1e-6), -5.0, 5.0)
    parts = (op, seen["context"], actions.reshape(b, -1), relative.reshape(b, -1))
    values = np.concatenate(parts, axis=1)
    return np.concatenate([np.sign(values) * np.log1p(np.abs(values)), mask], axis=1).astype(np.float32)
