"""Numbers of a schedule, by name."""

import numpy as np

from placement_gym.schedule import Schedule


def metrics(schedule: Schedule) -> dict[str, float]:
    """What tables and tracking show of a schedule.

    Returns:
        `makespan_s`; `utilisation`: mean share of the makespan that device slots spend on ops; `balance`: mean
        device load over the largest; `transfers`: how many; `transfer_bytes`: sent in all (a multicast once);
        `transfer_s`: seconds of all transfers added up; `waiting_s`: seconds that ready ops waited, added up;
        `peak_memory_bytes`: of the fullest device; `peak_memory_share`: largest share of a device's capacity.
    """
    problem, trace = schedule.problem, schedule.trace
    slots = problem.device_slots.astype(float)
    load = np.zeros(problem.n_devices)
    np.add.at(load, schedule.op_device, trace.op_finish_s - trace.op_start_s)
    made = schedule.transfers()
    makespan = schedule.makespan_s
    fullest = float((load / slots).max())
    return {
        "makespan_s": makespan,
        "utilisation": float((load / slots).mean() / makespan) if makespan > 0 else 1.0,
        "balance": float((load / slots).mean() / fullest) if fullest > 0 else 1.0,
        "transfers": float(len(made)),
        "transfer_bytes": float(problem.graph.edge_bytes[made].sum()),
        "transfer_s": float((trace.transfer_arrival_s[made] - trace.transfer_start_s[made]).sum()),
        "waiting_s": float((trace.op_start_s - trace.op_ready_s).sum()),
        "peak_memory_bytes": float(schedule.peak_memory_bytes.max()),
        "peak_memory_share": float((schedule.peak_memory_bytes / problem.device_memory_bytes).max()),
    }
