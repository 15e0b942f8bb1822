"""Descent on the largest load by moves of one group: a Numba kernel that follows the tensors each move touches."""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.groups import Groups
from placement_gym.objectives import pays_for_transfers
from placement_gym.problem import Problem


class LoadArrays(NamedTuple):
    """What the loads of groups on devices depend on (`objectives.device_loads_s`).

    Only tensors that some other group reads are here; within a group nothing is ever sent.

    Attributes:
        group_time_s: float64 [n_groups, n_devices].
        allowed: bool [n_groups, n_devices], whether the device can run the group.
        group_memory_bytes: float64 [n_groups].
        device_memory_bytes: float64 [n_devices].
        pays: bool [n_devices], whether transfers take the device's time.
        link_latency_s: float64 [n_devices, n_devices].
        link_bytes_per_s: float64 [n_devices, n_devices].
        tensor_bytes: float64 [n_tensors].
        tensor_group: int32 [n_tensors], group that makes it.
        reader_start: int32 [n_tensors + 1], `reader[reader_start[t]:reader_start[t + 1]]` are the other groups that
            read tensor t, once each.
        reader: int32.
        touched_start: int32 [n_groups + 1], as above: the tensors that a group makes or reads.
        touched: int32.
    """

    group_time_s: FloatArray
    allowed: BoolArray
    group_memory_bytes: FloatArray
    device_memory_bytes: FloatArray
    pays: BoolArray
    link_latency_s: FloatArray
    link_bytes_per_s: FloatArray
    tensor_bytes: FloatArray
    tensor_group: IntArray
    reader_start: IntArray
    reader: IntArray
    touched_start: IntArray
    touched: IntArray

    @classmethod
    def of(cls, problem: Problem, groups: Groups) -> "LoadArrays":
        """The arrays of a problem."""
        graph = problem.graph
        maker, reader = groups.op_group[graph.edge_src], groups.op_group[graph.edge_dst]
        sent = np.flatnonzero(maker != reader)
        _, first, tensor = np.unique(graph.edge_tensor[sent], return_index=True, return_inverse=True)
        n_tensors, edges = len(first), sent[first]
        reads = np.unique(np.stack([tensor.reshape(-1), reader[sent]], axis=1), axis=0)
        makes = np.stack([np.arange(n_tensors), maker[edges]], axis=1)
        touches = np.concatenate([makes, reads])
        touches = touches[np.argsort(touches[:, 1], kind="stable")]
        time_s = np.zeros((groups.n_groups, problem.n_devices))
        np.add.at(time_s, groups.op_group, problem.op_time_s)
        return cls(
            time_s,
            groups.allowed,
            groups.memory_bytes,
            problem.device_memory_bytes,
            pays_for_transfers(problem),
            problem.link_latency_s,
            problem.link_bytes_per_s,
            graph.edge_bytes[edges],
            maker[edges],
            _starts(reads[:, 0], n_tensors),
            reads[:, 1].astype(np.int32),
            _starts(touches[:, 1], groups.n_groups),
            touches[:, 0].astype(np.int32),
        )


def _starts(key: IntArray, n: int) -> IntArray:
    return np.concatenate([[0], np.cumsum(np.bincount(key, minlength=n))]).astype(np.int32)


@njit(cache=True)
def _add_tensor(
    arrays: LoadArrays, tensor: int, maker: int, n_readers: np.ndarray, sign: float, load_s: np.ndarray
) -> None:
    """Adds `sign` times the transfers of a tensor made on device `maker` to the loads."""
    slowest = 0.0
    for d in range(load_s.size):
        if d != maker and n_readers[tensor, d] > 0:
            seconds = arrays.link_latency_s[maker, d] + arrays.tensor_bytes[tensor] / arrays.link_bytes_per_s[maker, d]
            slowest = max(slowest, seconds)
            if arrays.pays[d]:
                load_s[d] += sign * seconds
    if arrays.pays[maker]:
        load_s[maker] += sign * slowest


@njit(cache=True)
def _add_touched(
    arrays: LoadArrays, group: int, group_device: np.ndarray, n_readers: np.ndarray, sign: float, load_s: np.ndarray
) -> None:
    """Adds `sign` times everything that a group on its device has to do with to the loads: work and transfers."""
    load_s[group_device[group]] += sign * arrays.group_time_s[group, group_device[group]]
    for i in range(arrays.touched_start[group], arrays.touched_start[group + 1]):
        tensor = arrays.touched[i]
        _add_tensor(arrays, tensor, group_device[arrays.tensor_group[tensor]], n_readers, sign, load_s)


@njit(cache=True)
def _put(arrays: LoadArrays, group: int, device: int, group_device: np.ndarray, n_readers: np.ndarray) -> None:
    """Moves a group, with its place among the readers of tensors."""
    for i in range(arrays.touched_start[group], arrays.touched_start[group + 1]):
        tensor = arrays.touched[i]
        if arrays.tensor_group[tensor] != group:
            n_readers[tensor, group_device[group]] -= 1
            n_readers[tensor, device] += 1
    group_device[group] = device


@njit(cache=True)
def _concerns(arrays: LoadArrays, group: int, device: int, group_device: np.ndarray, n_readers: np.ndarray) -> bool:
    """Whether a move of the group can lower the device's load: it is there, or a tensor of it comes or goes there."""
    if group_device[group] == device:
        return True
    for i in range(arrays.touched_start[group], arrays.touched_start[group + 1]):
        tensor = arrays.touched[i]
        if group_device[arrays.tensor_group[tensor]] == device or n_readers[tensor, device] > 0:
            return True
    return False


@njit(cache=True)
def _survey(
    arrays: LoadArrays, group_device: np.ndarray, n_readers: np.ndarray, load_s: np.ndarray, used_bytes: np.ndarray
) -> None:
    """Fills in the loads and the memory from the start: sums that are only ever updated would drift."""
    for d in range(load_s.size):
        load_s[d] = 0.0
        used_bytes[d] = 0.0
    for group in range(group_device.size):
        load_s[group_device[group]] += arrays.group_time_s[group, group_device[group]]
        used_bytes[group_device[group]] += arrays.group_memory_bytes[group]
    for tensor in range(arrays.tensor_group.size):
        _add_tensor(arrays, tensor, group_device[arrays.tensor_group[tensor]], n_readers, 1.0, load_s)


@njit(cache=True)
def _best_move(
    arrays: LoadArrays, group_device: np.ndarray, n_readers: np.ndarray, load_s: np.ndarray, used_bytes: np.ndarray
) -> tuple[float, int, int]:
    """(largest load after it, group, device) of the best move of one group that memory allows; the first of equals."""
    busiest = np.argmax(load_s)
    best, best_group, best_device = np.inf, -1, -1
    without, after = np.empty_like(load_s), np.empty_like(load_s)
    for group in range(group_device.size):
        if not _concerns(arrays, group, busiest, group_device, n_readers):
            continue
        home = group_device[group]
        for d in range(load_s.size):
            without[d] = load_s[d]
        _add_touched(arrays, group, group_device, n_readers, -1.0, without)
        for device in range(load_s.size):
            if device == home or not arrays.allowed[group, device]:
                continue
            if used_bytes[device] + arrays.group_memory_bytes[group] > arrays.device_memory_bytes[device]:
                continue
            _put(arrays, group, device, group_device, n_readers)
            for d in range(load_s.size):
                after[d] = without[d]
            _add_touched(arrays, group, group_device, n_readers, 1.0, after)
            if after.max() < best:
                best, best_group, best_device = after.max(), group, device
        _put(arrays, group, home, group_device, n_readers)
    return best, best_group, best_device


@njit(cache=True)
def descend(arrays: LoadArrays, group_device: np.ndarray, least_gain: float) -> float:
    """Makes the best move of one group for as long as the largest load falls by a share of `least_gain` or more.

    Args:
        arrays: What loads depend on.
        group_device: int32 [n_groups], a feasible start; becomes the local optimum.
        least_gain: Share of the largest load.

    Returns:
        The largest load, in seconds.
    """
    n_devices = arrays.pays.size
    n_readers = np.zeros((arrays.tensor_group.size, n_devices), dtype=np.int32)
    for tensor in range(arrays.tensor_group.size):
        for i in range(arrays.reader_start[tensor], arrays.reader_start[tensor + 1]):
            n_readers[tensor, group_device[arrays.reader[i]]] += 1
    load_s, used_bytes = np.empty(n_devices), np.empty(n_devices)
    while True:
        _survey(arrays, group_device, n_readers, load_s, used_bytes)
        largest = float(load_s.max())
        best, group, device = _best_move(arrays, group_device, n_readers, load_s, used_bytes)
        if not best < largest * (1 - least_gain):
            return largest
        _put(arrays, group, device, group_device, n_readers)
