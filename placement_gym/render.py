"""Pictures of a schedule: Gantt chart (matplotlib) and Chrome trace (open it at ui.perfetto.dev)."""

import json
import os
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from placement_gym.files import replacing, write_text
from placement_gym.schedule import Schedule
from placement_gym.trace import transfer_heads

MOST_KINDS = 9


def _lanes(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.int64]:
    """int64 [n]: the first lane that is free for each interval, so that none overlap in a lane."""
    lane_end: list[float] = []
    lanes = np.zeros(len(start), dtype=np.int64)
    for i in np.argsort(start, kind="stable"):
        lane = next((k for k, busy_until in enumerate(lane_end) if busy_until <= start[i]), len(lane_end))
        if lane == len(lane_end):
            lane_end.append(0.0)
        lane_end[lane] = end[i]
        lanes[i] = lane
    return lanes


def _time_unit(seconds: float) -> tuple[float, str]:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return size, unit
    return 1e-9, "ns"


def gantt(schedule: Schedule, *, title: str | None = None) -> Figure:
    """A chart of ops per device, coloured by kind, with each device's outgoing transfers in a thin row below.

    Args:
        schedule: What to draw.
        title: Instead of the problem's name and makespan.
    """
    problem, trace = schedule.problem, schedule.trace
    unit, unit_name = _time_unit(schedule.makespan_s)
    figure = Figure(figsize=(12, 1.6 + 0.9 * problem.n_devices), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    load: dict[str, float] = {}
    for kind, seconds in zip(problem.graph.op_kinds, trace.op_finish_s - trace.op_start_s, strict=True):
        load[kind] = load.get(kind, 0.0) + float(seconds)
    kinds = sorted(load, key=lambda kind: -load[kind])[:MOST_KINDS]
    palette = colormaps["tab10"]
    colour = {kind: palette(i) for i, kind in enumerate(kinds)}
    for d in range(problem.n_devices):
        ops = np.flatnonzero(schedule.op_device == d)
        lanes = _lanes(trace.op_start_s[ops], trace.op_finish_s[ops])
        height = 0.55 / (lanes.max(initial=0) + 1)
        boxes = [
            Rectangle(
                (trace.op_start_s[i] / unit, d - 0.4 + height * lane),
                (trace.op_finish_s[i] - trace.op_start_s[i]) / unit,
                height,
            )
            for i, lane in zip(ops, lanes, strict=True)
        ]
        faces = [colour.get(problem.graph.op_kinds[i], palette(9)) for i in ops]
        axes.add_collection(PatchCollection(boxes, facecolors=faces, edgecolors="white", linewidths=0.3))
        sent = [e for e in schedule.transfers() if schedule.op_device[problem.graph.edge_src[e]] == d]
        lines = [
            Rectangle(
                (trace.transfer_start_s[e] / unit, d + 0.2),
                (trace.transfer_release_s[e] - trace.transfer_start_s[e]) / unit,
                0.16,
            )
            for e in sent
        ]
        axes.add_collection(PatchCollection(lines, facecolors="0.35", edgecolors="white", linewidths=0.3, alpha=0.7))
    axes.set_xlim(0, schedule.makespan_s / unit * 1.005 or 1.0)
    axes.set_ylim(problem.n_devices - 0.45, -0.55)
    axes.set_yticks(range(problem.n_devices), problem.device_names)
    axes.set_xlabel(f"time [{unit_name}]")
    axes.set_title(title or f"{problem.name}: makespan {schedule.makespan_s / unit:.4g} {unit_name}")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    handles = [Patch(color=colour[kind], label=kind) for kind in kinds]
    if len(load) > len(kinds):
        handles.append(Patch(color=palette(9), label="other ops"))
    if len(schedule.transfers()):
        handles.append(Patch(color="0.35", alpha=0.7, label="transfers sent"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def gantt_rgb(schedule: Schedule, *, title: str | None = None) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: the chart as an image."""
    canvas = gantt(schedule, title=title).canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()


def save_gantt(schedule: Schedule, path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """Writes the chart as a PNG.

    Raises:
        InvalidFile: The folder does not exist or cannot be written.
    """
    with replacing(path) as temporary:
        gantt(schedule, title=title).savefig(temporary, format="png", dpi=130)


def chrome_trace(schedule: Schedule) -> dict[str, Any]:
    """The schedule in Chrome's trace event format: a process per device, one thread per slot, one for transfers."""
    problem, graph, trace = schedule.problem, schedule.problem.graph, schedule.trace
    events: list[dict[str, Any]] = []
    heads = transfer_heads(graph, schedule.op_device, schedule.rule)
    for d, name in enumerate(problem.device_names):
        events.append({"ph": "M", "name": "process_name", "pid": d, "args": {"name": name}})
        ops = np.flatnonzero(schedule.op_device == d)
        for i, lane in zip(ops, _lanes(trace.op_start_s[ops], trace.op_finish_s[ops]), strict=True):
            events.append(
                {
                    "ph": "X",
                    "name": graph.op_names[i],
                    "cat": graph.op_kinds[i],
                    "pid": d,
                    "tid": int(lane),
                    "ts": trace.op_start_s[i] * 1e6,
                    "dur": (trace.op_finish_s[i] - trace.op_start_s[i]) * 1e6,
                    "args": {"op": int(i), "kind": graph.op_kinds[i], "ready_us": trace.op_ready_s[i] * 1e6},
                }
            )
        sent = np.array([e for e in schedule.transfers() if schedule.op_device[graph.edge_src[e]] == d], dtype=int)
        for e, lane in zip(sent, _lanes(trace.transfer_start_s[sent], trace.transfer_arrival_s[sent]), strict=True):
            to = sorted(
                {problem.device_names[schedule.op_device[graph.edge_dst[k]]] for k in np.flatnonzero(heads == e)}
            )
            events.append(
                {
                    "ph": "X",
                    "name": f"{graph.op_names[graph.edge_src[e]]} -> {', '.join(to)}",
                    "cat": "transfer",
                    "pid": d,
                    "tid": 1000 + int(lane),
                    "ts": trace.transfer_start_s[e] * 1e6,
                    "dur": (trace.transfer_arrival_s[e] - trace.transfer_start_s[e]) * 1e6,
                    "args": {"bytes": float(graph.edge_bytes[e]), "ready_us": trace.transfer_ready_s[e] * 1e6},
                }
            )
        events.append({"ph": "M", "name": "thread_name", "pid": d, "tid": 1000, "args": {"name": "transfers sent"}})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def save_chrome_trace(schedule: Schedule, path: str | os.PathLike[str]) -> None:
    """Writes the trace as JSON.

    Raises:
        InvalidFile: The folder does not exist or cannot be written.
    """
    write_text(path, json.dumps(chrome_trace(schedule)))
