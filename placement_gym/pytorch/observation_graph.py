"""ObservationGraph: an observation as a graph of PyTorch Geometric; `placement_gym.envs.to_pyg` makes it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

# What the rows of a field are, or the columns of an index: a graph has as many of them as `counts` says.
ROWS = {
    "ops": ("x", "op_kind", "op_graph"),
    "edges": ("edge_index", "edge_attr"),
    "devices": ("device_x", "device_kind", "device_graph"),
    "times": ("op_time", "op_time_index"),
    "links": ("link_attr", "link_index"),
    "placed": ("placed_op", "placed_device"),
    "graphs": ("op", "has_op", "phase", "context"),
    "actions": (
        "action_number",
        "action_mask",
        "action_x",
        "action_op",
        "action_has_op",
        "action_device",
        "action_has_device",
        "action_graph",
    ),
}
# What a field's numbers are numbers of; a batch adds how many of them the graphs before it have.
NUMBERS = {
    "ops": ("edge_index", "op", "placed_op", "action_op"),
    "devices": ("link_index", "placed_device", "action_device"),
    "graphs": ("op_graph", "device_graph", "action_graph"),
}
INDICES = ("edge_index", "link_index", "op_time_index")
ROWS_OF = {name: rows for rows, names in ROWS.items() for name in names}
NUMBERS_OF = {name: things for things, names in NUMBERS.items() for name in names}


class ObservationGraph(Data):  # type: ignore[misc]
    """One observation, without padding: n ops, m edges, d devices, A actions.

    These are the actions that the problem has, allowed or not; one without op and device is there where it is allowed.
    Features are those of `placement_gym.envs.observation`. In a batch all fields are joined along their first axis (the
    index fields along their second), and numbers of ops, devices and graphs go on from graph to graph. No field holds
    -1 for "none": where an op or a device is missing, a mask says so, and the number is that of the graph's first.

    Attributes:
        x: float32 [n, OP_FEATURES].
        op_kind: int64 [n].
        edge_index: int64 [2, m].
        edge_attr: float32 [m, EDGE_FEATURES].
        device_x: float32 [d, DEVICE_FEATURES].
        device_kind: int64 [d].
        op_time: float32 [n * d], over the mean op time, -1 where the device cannot run the op. Of one graph,
            `op_time.view(n, d)` is the table.
        op_time_index: int64 [2, n * d], op and device of each time.
        link_attr: float32 [d * d, LINK_FEATURES], of each pair of devices, 0 for a device and itself.
        link_index: int64 [2, d * d], source and destination of each pair.
        placed_op: int64 [any], the ops that have a device.
        placed_device: int64 [any], their devices.
        op: int64 [1], the op that is placed next.
        has_op: bool [1], whether there is such an op.
        phase: int64 [1], SELECT, PLACE or PAIR.
        context: float32 [1, CONTEXT].
        action_number: int64 [A], what `env.step` takes.
        action_mask: bool [A], whether it is allowed.
        action_x: float32 [A, ACTION_FEATURES], 0 for an action that is not described.
        action_op: int64 [A], the op that the action is about.
        action_has_op: bool [A], whether there is one.
        action_device: int64 [A], the device that the action is about.
        action_has_device: bool [A], whether there is one.
        op_graph: int64 [n], number of the graph in the batch, as PyG's `batch`; there in a single graph too (0).
        device_graph: int64 [d], as `op_graph`.
        action_graph: int64 [A], as `op_graph`.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """What a batch adds to a field of the next graph."""
        n, d = len(self.x), len(self.device_x)
        if key in NUMBERS_OF:
            return {"ops": n, "devices": d, "graphs": 1}[NUMBERS_OF[key]]
        if key == "op_time_index":
            return torch.tensor([[n], [d]])
        return 0 if key in ROWS_OF else super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """The axis along which a batch joins a field."""
        if key in INDICES:
            return 1
        return 0 if key in ROWS_OF else super().__cat_dim__(key, value, *args, **kwargs)


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Tensors of fields, of the types that `ObservationGraph` promises, and which graph a row belongs to: the first."""
    tensors = {}
    for name, array in arrays.items():
        dtype = array.dtype if array.dtype == np.bool_ else np.int64 if array.dtype.kind in "iu" else np.float32
        tensors[name] = torch.from_numpy(np.ascontiguousarray(array, dtype))
    for name, rows in (("op_graph", "x"), ("device_graph", "device_x"), ("action_graph", "action_x")):
        tensors[name] = torch.zeros(len(tensors[rows]), dtype=torch.int64)
    return tensors


def single(arrays: Mapping[str, NDArray[Any]], counts: Mapping[str, NDArray[np.int64]]) -> ObservationGraph:  # noqa: ARG001
    """The only graph of `placement_gym.envs.observation_graph.unpadded`."""
    return ObservationGraph(**_tensors(arrays))


def batch(arrays: Mapping[str, NDArray[Any]], counts: Mapping[str, NDArray[np.int64]]) -> Batch:
    """The graphs of `placement_gym.envs.observation_graph.unpadded`: what `Batch.from_data_list` makes, in one go.

    `from_data_list` takes milliseconds a graph. Its three private attributes are what takes a batch apart again.
    """
    sizes = {name: torch.from_numpy(count) for name, count in counts.items()}
    ends = {name: torch.cat([size.new_zeros(1), size.cumsum(0)]) for name, size in sizes.items()}
    joined = Batch(_base_cls=ObservationGraph)
    joined._slice_dict, joined._inc_dict, joined._num_graphs = {}, {}, len(sizes["graphs"])
    for name, tensor in _tensors(arrays).items():
        rows, first = ROWS_OF[name], torch.zeros(len(sizes["graphs"]), dtype=torch.int64)
        if name in NUMBERS_OF:
            first = ends[NUMBERS_OF[name]][:-1]
            tensor += first.repeat_interleave(sizes[rows])
        elif name == "op_time_index":
            first = torch.stack([ends["ops"][:-1], ends["devices"][:-1]])
            tensor += first.repeat_interleave(sizes[rows], dim=1)
            first = first.T[:, :, None]
        joined[name], joined._slice_dict[name], joined._inc_dict[name] = tensor, ends[rows], first
    joined.batch, joined.ptr = joined.op_graph.clone(), ends["ops"]
    return joined
