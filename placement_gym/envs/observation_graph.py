"""Observations as graphs without padding: NumPy arrays here, PyTorch Geometric objects in `placement_gym.pytorch`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from placement_gym.envs.observation import ACTION_FEATURES, DYNAMIC, PLACE, SELECT, STATIC, table
from placement_gym.errors import InvalidOption, MissingDependency

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

Arrays = dict[str, NDArray[Any]]
# Keys of whole numbers; learners' libraries may hand them on as floats.
WHOLE = ("op_kind", "device_kind", "edge_index", "n_ops", "n_edges", "n_devices", "phase", "op", "op_device")


def _ends(number: NDArray[np.int64], seen: Arrays, max_ops: int, max_devices: int) -> tuple[Any, Any]:
    """(op, device) int64 [B, n_actions] of actions by their numbers; -1 where an action has none.

    Numbers behind the last op, device or pair have neither.
    """
    phase, chosen = seen["phase"], seen["op"]
    pair = number < max_ops * max_devices
    op, device = np.where(pair, number // max_devices, -1), np.where(pair, number % max_devices, -1)
    on_device = number < max_devices
    op = np.where(phase == PLACE, np.where(on_device, chosen, -1), op)
    device = np.where(phase == PLACE, np.where(on_device, number, -1), device)
    op = np.where(phase == SELECT, np.where(number < max_ops, number, -1), op)
    return op, np.where(phase == SELECT, -1, device)


def _actions(seen: Arrays, n: NDArray[Any], d: NDArray[Any]) -> tuple[Arrays, NDArray[np.int64]]:
    """(what there is to say of the actions that a problem has, how many each row has)."""
    mask, described = seen["action_mask"].astype(np.bool_), table("action_features", seen["action_features"])
    number = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
    op, device = _ends(number, seen, seen["op_kind"].shape[1], seen["device_kind"].shape[1])
    real = (op < n) & (device < d) & ((op >= 0) | (device >= 0) | mask)
    features = np.zeros((*mask.shape, len(ACTION_FEATURES)), np.float32)
    features[:, : described.shape[1]] = described
    return {
        "action_number": number[real],
        "action_mask": mask[real],
        "action_x": features[real],
        "action_op": np.maximum(op, 0)[real],
        "action_has_op": op[real] >= 0,
        "action_device": np.maximum(device, 0)[real],
        "action_has_device": device[real] >= 0,
    }, real.sum(axis=1)


def unpadded(seen: Arrays) -> tuple[Arrays, Arrays]:
    """(arrays, counts) of observations in dict form, all keys with a leading axis B, those of WHOLE int64.

    Returns:
        The fields of `placement_gym.pytorch.observation_graph.ObservationGraph`, those of all rows joined, numbers
        counted from each row's own first; and how many ops, edges, ... each row has, int64 [B].
    """
    b, max_n, max_d = *seen["op_kind"].shape, seen["device_kind"].shape[1]
    n, m, d = (seen[key].reshape(b, 1) for key in ("n_ops", "n_edges", "n_devices"))
    edges = table("edge_index", seen["edge_index"])
    is_op, is_edge, is_device = np.arange(max_n) < n, np.arange(edges.shape[2]) < m, np.arange(max_d) < d
    is_time, is_link = is_op[:, :, None] & is_device[:, None], is_device[:, :, None] & is_device[:, None]
    placed = is_op & (seen["op_device"] >= 0)
    links = table("link_features", seen["link_features"]).reshape(b, max_d, max_d, -1)
    op = seen["op"].reshape(b)
    actions, n_actions = _actions(seen, n, d)
    arrays = {
        "x": table("op_features", seen["op_features"])[is_op],
        "op_kind": seen["op_kind"][is_op],
        "edge_index": edges.transpose(1, 0, 2)[:, is_edge],
        "edge_attr": table("edge_features", seen["edge_features"])[is_edge],
        "device_x": table("device_features", seen["device_features"])[is_device],
        "device_kind": seen["device_kind"][is_device],
        "op_time": seen["op_time"].reshape(b, max_n, max_d)[is_time],
        "op_time_index": np.stack(np.nonzero(is_time)[1:]),
        "link_attr": links[is_link],
        "link_index": np.stack(np.nonzero(is_link)[1:]),
        "placed_op": np.nonzero(placed)[1],
        "placed_device": seen["op_device"][placed],
        "op": np.maximum(op, 0),
        "has_op": op >= 0,
        "phase": seen["phase"].reshape(b),
        "context": seen["context"].copy(),
        **actions,
    }
    counts = {"ops": n, "edges": m, "devices": d, "times": n * d, "links": d * d, "graphs": np.ones(b)}
    counts |= {"placed": placed.sum(axis=1), "actions": n_actions}
    return arrays, {name: count.reshape(b).astype(np.int64) for name, count in counts.items()}


def to_pyg(observation: Mapping[str, Any]) -> Data | Batch:
    """The observation as a graph of PyTorch Geometric, without padding.

    Args:
        observation: In dict form: of a scalar form, or of a vector form (all keys with a leading axis). Torch tensors
            on the CPU will do, and floats for whole numbers, as Stable-Baselines3 has them.

    Returns:
        `placement_gym.pytorch.observation_graph.ObservationGraph`, or a `Batch` of them, one for each row. Its
        docstring lists the fields.

    Raises:
        InvalidOption: An observation in another form.
        MissingDependency: torch-geometric is not installed.
    """
    missing = [key for key in (*STATIC, *DYNAMIC) if not isinstance(observation, Mapping) or key not in observation]
    if missing:
        raise InvalidOption(f"the observation has no {', '.join(missing)}; expected one with observation='dict'")
    try:  # torch takes seconds to import
        from placement_gym.pytorch.observation_graph import batch, single
    except ImportError as error:
        raise MissingDependency(f"to_pyg needs torch-geometric ({error}); pip install torch-geometric") from error
    seen = {key: np.asarray(observation[key]) for key in (*STATIC, *DYNAMIC)}
    seen |= {key: seen[key].astype(np.int64) for key in WHOLE}
    if seen["op"].ndim == 1:
        return single(*unpadded({key: value[None] for key, value in seen.items()}))
    return batch(*unpadded(seen))
