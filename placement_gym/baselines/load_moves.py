"""Descent on the largest load by moves of one unit: a Numba kernel that follows the tensors each move touches."""

from typing import NamedTuple

import numpy as np
from numba import njit

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.groups import Groups
from placement_gym.objectives import pays_for_transfers
from placement_gym.problem import Problem


class LoadArrays(NamedTuple):
    """What the loads of units on devices depend on (`objectives.device_loads_s`).

    Only tensors that some other unit reads are here; within a unit nothing is ever sent.

    Attributes:
        unit_time_s: float64 [n_units, n_devices].
        allowed: bool [n_units, n_devices], whether the device can run the unit.
        unit_memory_bytes: float64 [n_units].
        device_memory_bytes: float64 [n_devices].
        pays: bool [n_devices], whether transfers take the device's time.
        link_latency_s: float64 [n_devices, n_devices].
        link_bytes_per_s: float64 [n_devices, n_devices].
        tensor_bytes: float64 [n_tensors].
        tensor_unit: int32 [n_tensors], unit that makes it.
        reader_start: int32 [n_tensors + 1], `reader[reader_start[t]:reader_start[t + 1]]` are the other units that
            read tensor t, once each.
        reader: int32.
        touched_start: int32 [n_units + 1], as above: the tensors that a unit makes or reads.
        touched: int32.
    """

    unit_time_s: FloatArray
    allowed: BoolArray
    unit_memory_bytes: FloatArray
    device_memory_bytes: FloatArray
    pays: BoolArray
    link_latency_s: FloatArray
    link_bytes_per_s: FloatArray
    tensor_bytes: FloatArray
    tensor_unit: IntArray
    reader_start: IntArray
    reader: IntArray
    touched_start: IntArray
    touched: IntArray

    @classmethod
    def of(cls, problem: Problem, units: Groups) -> "LoadArrays":
        """The arrays of a problem."""
        graph = problem.graph
        maker, reader = units.op_unit[graph.edge_src], units.op_unit[graph.edge_dst]
        sent = np.flatnonzero(maker != reader)
        _, first, tensor = np.unique(graph.edge_tensor[sent], return_index=True, return_inverse=True)
        n_tensors, edges = len(first), sent[first]
        reads = np.unique(np.stack([tensor.reshape(-1), reader[sent]], axis=1), axis=0)
        makes = np.stack([np.arange(n_tensors), maker[edges]], axis=1)
        touches = np.concatenate([makes, reads])
        touches = touches[np.argsort(touches[:, 1], kind="stable")]
        time_s = np.zeros((units.n_units, problem.n_devices))
        np.add.at(time_s, units.op_unit, problem.op_time_s)
        return cls(
            time_s,
            units.allowed,
            units.memory_bytes,
            problem.device_memory_bytes,
            pays_for_transfers(problem),
            problem.link_latency_s,
            problem.link_bytes_per_s,
            graph.edge_bytes[edges],
            maker[edges],
            _starts(reads[:, 0], n_tensors),
            reads[:, 1].astype(np.int32),
            _starts(touches[:, 1], units.n_units),
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
    arrays: LoadArrays, unit: int, unit_device: np.ndarray, n_readers: np.ndarray, sign: float, load_s: np.ndarray
) -> None:
    """Adds `sign` times everything that a unit on its device has to do with to the loads: work and transfers."""
    load_s[unit_device[unit]] += sign * arrays.unit_time_s[unit, unit_device[unit]]
    for i in range(arrays.touched_start[unit], arrays.touched_start[unit + 1]):
        tensor = arrays.touched[i]
        _add_tensor(arrays, tensor, unit_device[arrays.tensor_unit[tensor]], n_readers, sign, load_s)


@njit(cache=True)
def _put(arrays: LoadArrays, unit: int, device: int, unit_device: np.ndarray, n_readers: np.ndarray) -> None:
    """Moves a unit, with its place among the readers of tensors."""
    for i in range(arrays.touched_start[unit], arrays.touched_start[unit + 1]):
        tensor = arrays.touched[i]
        if arrays.tensor_unit[tensor] != unit:
            n_readers[tensor, unit_device[unit]] -= 1
            n_readers[tensor, device] += 1
    unit_device[unit] = device


@njit(cache=True)
def _concerns(arrays: LoadArrays, unit: int, device: int, unit_device: np.ndarray, n_readers: np.ndarray) -> bool:
    """Whether a move of the unit can lower the device's load: it is there, or a tensor of it comes or goes there."""
    if unit_device[unit] == device:
        return True
    for i in range(arrays.touched_start[unit], arrays.touched_start[unit + 1]):
        tensor = arrays.touched[i]
        if unit_device[arrays.tensor_unit[tensor]] == device or n_readers[tensor, device] > 0:
            return True
    return False


@njit(cache=True)
def _survey(
    arrays: LoadArrays, unit_device: np.ndarray, n_readers: np.ndarray, load_s: np.ndarray, used_bytes: np.ndarray
) -> None:
    """Fills in the loads and the memory from the start: sums that are only ever updated would drift."""
    for d in range(load_s.size):
        load_s[d] = 0.0
        used_bytes[d] = 0.0
    for unit in range(unit_device.size):
        load_s[unit_device[unit]] += arrays.unit_time_s[unit, unit_device[unit]]
        used_bytes[unit_device[unit]] += arrays.unit_memory_bytes[unit]
    for tensor in range(arrays.tensor_unit.size):
        _add_tensor(arrays, tensor, unit_device[arrays.tensor_unit[tensor]], n_readers, 1.0, load_s)


@njit(cache=True)
def _best_move(
    arrays: LoadArrays, unit_device: np.ndarray, n_readers: np.ndarray, load_s: np.ndarray, used_bytes: np.ndarray
) -> tuple[float, int, int]:
    """(largest load after it, unit, device) of the best move of one unit that memory allows; the first of equals."""
    busiest = np.argmax(load_s)
    best, best_unit, best_device = np.inf, -1, -1
    without, after = np.empty_like(load_s), np.empty_like(load_s)
    for unit in range(unit_device.size):
        if not _concerns(arrays, unit, busiest, unit_device, n_readers):
            continue
        home = unit_device[unit]
        for d in range(load_s.size):
            without[d] = load_s[d]
        _add_touched(arrays, unit, unit_device, n_readers, -1.0, without)
        for device in range(load_s.size):
            if device == home or not arrays.allowed[unit, device]:
                continue
            if used_bytes[device] + arrays.unit_memory_bytes[unit] > arrays.device_memory_bytes[device]:
                continue
            _put(arrays, unit, device, unit_device, n_readers)
            for d in range(load_s.size):
                after[d] = without[d]
            _add_touched(arrays, unit, unit_device, n_readers, 1.0, after)
            if after.max() < best:
                best, best_unit, best_device = after.max(), unit, device
        _put(arrays, unit, home, unit_device, n_readers)
    return best, best_unit, best_device


@njit(cache=True)
def descend(arrays: LoadArrays, unit_device: np.ndarray, least_gain: float) -> float:
    """Makes the best move of one unit for as long as the largest load falls by a share of `least_gain` or more.

    Args:
        arrays: What loads depend on.
        unit_device: int32 [n_units], a feasible start; becomes the local optimum.
        least_gain: Share of the largest load.

    Returns:
        The largest load, in seconds.
    """
    n_devices = arrays.pays.size
    n_readers = np.zeros((arrays.tensor_unit.size, n_devices), dtype=np.int32)
    for tensor in range(arrays.tensor_unit.size):
        for i in range(arrays.reader_start[tensor], arrays.reader_start[tensor + 1]):
            n_readers[tensor, unit_device[arrays.reader[i]]] += 1
    load_s, used_bytes = np.empty(n_devices), np.empty(n_devices)
    while True:
        _survey(arrays, unit_device, n_readers, load_s, used_bytes)
        largest = float(load_s.max())
        best, unit, device = _best_move(arrays, unit_device, n_readers, load_s, used_bytes)
        if not best < largest * (1 - least_gain):
            return largest
        _put(arrays, unit, device, unit_device, n_readers)
