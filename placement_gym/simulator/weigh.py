"""Makespans and memory of many placements: what a search asks of each."""

import numpy as np
from numba import njit

from placement_gym.memory import LiveRows, MemoryArrays, excess, most_excess, write_live_rows, write_peaks
from placement_gym.simulator.arrays import Arrays, Options, Workspace
from placement_gym.simulator.kernel import run_many


@njit(cache=True, error_model="numpy", nogil=True)
def excess_of_run(
    options: Options,
    arrays: Arrays,
    memory: MemoryArrays,
    op_device: np.ndarray,
    op_times: np.ndarray,
    transfer_times: np.ndarray,
    rows: LiveRows,
) -> float:
    """Bytes over capacity, all devices together, of the run that `run_many` recorded; 0 if the placement fits."""
    if not memory.binds:
        return 0.0
    most = float(most_excess(memory, arrays.out_start, arrays.dst, arrays.size, op_device, rows.peak))
    if not memory.live or most == 0.0:
        return most
    n_rows = write_live_rows(
        options.transfers,
        memory.output,
        arrays.out_start,
        arrays.dst,
        arrays.size,
        arrays.tensor,
        op_device,
        op_times[1],
        op_times[2],
        transfer_times[1],
        transfer_times[2],
        rows,
    )
    write_peaks(memory.held, op_device, n_rows, rows)
    return float(excess(rows.peak, memory.capacity))


@njit(cache=True, error_model="numpy", nogil=True)
def run_and_weigh(
    options: Options,
    recording: Options,
    arrays: Arrays,
    memory: MemoryArrays,
    op_devices: np.ndarray,
    ends: np.ndarray,
    excess_bytes: np.ndarray,
    work: Workspace,
    rows: LiveRows,
) -> None:
    """`run_many`, and for each placement the bytes over capacity, float64 [B]; `recording` are options that record."""
    untold = np.empty((4, 0))
    op_times, transfer_times = np.empty((4, op_devices.shape[1])), np.empty((4, arrays.dst.size))
    for b in range(len(op_devices)):
        one, end = op_devices[b : b + 1], ends[b : b + 1]
        most = most_excess(memory, arrays.out_start, arrays.dst, arrays.size, one[0], rows.peak)
        if memory.live and most > 0.0:
            run_many(recording, arrays, one, end, op_times, transfer_times, work)
            excess_bytes[b] = excess_of_run(recording, arrays, memory, one[0], op_times, transfer_times, rows)
        else:
            run_many(options, arrays, one, end, untold, untold, work)
            excess_bytes[b] = most
