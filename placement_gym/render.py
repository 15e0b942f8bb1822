"""Pictures of a schedule: Gantt chart (matplotlib) and Chrome trace (open it at ui.perfetto.dev)."""

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.errors import InvalidOption
from placement_gym.files import replacing, write_text
from placement_gym.problem import Problem
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
    trace = schedule.trace
    return _chart(schedule.problem, schedule.op_device, trace.op_start_s, trace.op_finish_s, schedule, title)


def gantt_of_ops(
    problem: Problem, op_device: IntArray, op_start_s: FloatArray, op_finish_s: FloatArray, *, title: str | None = None
) -> Figure:
    """The chart of a placement under construction: no transfers, and no ops that are not placed.

    Args:
        problem: The problem.
        op_device: int32 [n_ops], -1 for an op that is not placed.
        op_start_s: float64 [n_ops], of placed ops.
        op_finish_s: float64 [n_ops], of placed ops.
        title: Instead of the problem's name, how many ops are placed, and until when.
    """
    placed = op_device >= 0
    until = float(op_finish_s[placed].max(initial=0.0))
    unit, unit_name = _time_unit(until)
    said = f"{problem.name}: {placed.sum()} of {problem.n_ops} ops placed, until {until / unit:.4g} {unit_name}"
    return _chart(problem, op_device, op_start_s, op_finish_s, None, title or said)


def _chart(
    problem: Problem,
    op_device: IntArray,
    start_s: FloatArray,
    finish_s: FloatArray,
    schedule: Schedule | None,
    title: str | None,
) -> Figure:
    """The chart of the ops that have a device; with their transfers, if there is a schedule."""
    shown = op_device >= 0
    end_s = float(finish_s[shown].max(initial=0.0)) if schedule is None else schedule.makespan_s
    unit, unit_name = _time_unit(end_s)
    figure = Figure(figsize=(12, 1.6 + 0.9 * problem.n_devices), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    load = dict.fromkeys(problem.graph.op_kinds, 0.0)
    for kind, seconds in zip(problem.graph.op_kinds, np.where(shown, finish_s - start_s, 0.0), strict=True):
        load[kind] += float(seconds)
    kinds = sorted(load, key=lambda kind: -load[kind])[:MOST_KINDS]
    palette = colormaps["tab10"]
    colour = {kind: palette(i) for i, kind in enumerate(kinds if schedule else sorted(load)[:MOST_KINDS])}
    for d in range(problem.n_devices):
        ops = np.flatnonzero(op_device == d)
        lanes = _lanes(start_s[ops], finish_s[ops])
        height = 0.55 / (lanes.max(initial=0) + 1)
        boxes = [
            Rectangle((start_s[i] / unit, d - 0.4 + height * lane), (finish_s[i] - start_s[i]) / unit, height)
            for i, lane in zip(ops, lanes, strict=True)
        ]
        faces = [colour.get(problem.graph.op_kinds[i], palette(9)) for i in ops]
        axes.add_collection(PatchCollection(boxes, facecolors=faces, edgecolors="white", linewidths=0.3))
        if schedule is not None:
            _draw_transfers(axes, schedule, d, unit)
    axes.set_xlim(0, end_s / unit * 1.005 or 1.0)
    axes.set_ylim(problem.n_devices - 0.45, -0.55)
    axes.set_yticks(range(problem.n_devices), problem.device_names)
    axes.set_xlabel(f"time [{unit_name}]")
    axes.set_title(title or f"{problem.name}: makespan {end_s / unit:.4g} {unit_name}")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    handles = [Patch(color=colour[kind], label=kind) for kind in colour]
    if len(load) > len(colour):
        handles.append(Patch(color=palette(9), label="other ops"))
    if schedule is not None and len(schedule.transfers()):
        handles.append(Patch(color="0.35", alpha=0.7, label="transfers sent"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _draw_transfers(axes: Axes, schedule: Schedule, device: int, unit: float) -> None:
    """What a device sends, below its ops."""
    trace, src = schedule.trace, schedule.problem.graph.edge_src
    lines = [
        Rectangle(
            (trace.transfer_start_s[e] / unit, device + 0.2),
            (trace.transfer_release_s[e] - trace.transfer_start_s[e]) / unit,
            0.16,
        )
        for e in schedule.transfers()
        if schedule.op_device[src[e]] == device
    ]
    axes.add_collection(PatchCollection(lines, facecolors="0.35", edgecolors="white", linewidths=0.3, alpha=0.7))


def rgb(figure: Figure) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: a chart as an image."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()


def gantt_rgb(schedule: Schedule, *, title: str | None = None) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]: the chart as an image."""
    return rgb(gantt(schedule, title=title))


def save_gif(frames: Sequence[NDArray[np.uint8]], path: str | os.PathLike[str], *, frames_per_s: float = 4.0) -> None:
    """Writes images, uint8 [height, width, 3] each, as an animated GIF, such as the frames of an episode.

    Raises:
        InvalidOption: No frames, or frames of other shapes than the first.
        InvalidFile: The folder does not exist or cannot be written.
    """
    if not frames or any(np.shape(frame) != np.shape(frames[0]) or np.ndim(frame) != 3 for frame in frames):
        shapes = sorted({np.shape(frame) for frame in frames})
        raise InvalidOption(f"frames have the shapes {shapes}; expected at least one, all [height, width, 3]")
    images = [Image.fromarray(np.asarray(frame, dtype=np.uint8)) for frame in frames]
    with replacing(path) as temporary:
        first, rest = images[0], images[1:]
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=1000 / frames_per_s, loop=0)


class Window:
    """A window that shows one image after the other. Without a display it says so once, and shows nothing."""

    def __init__(self) -> None:
        from matplotlib import pyplot
        from matplotlib.backends.registry import BackendFilter, backend_registry

        backend = pyplot.get_backend()
        self.is_shown = backend.lower() not in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
        if not self.is_shown:
            logging.getLogger(__name__).warning(
                "render_mode='human' shows nothing: matplotlib's backend is %r (no display, or MPLBACKEND is set); "
                "render_mode='rgb_array' and placement_gym.render.save_gif need no display",
                backend,
            )
        self._pyplot = pyplot
        self._figure: Figure | None = None
        self._image: Any = None

    def show(self, image: NDArray[np.uint8]) -> None:
        """Shows uint8 [height, width, 3] instead of what was shown before."""
        if self._figure is None or self._image.get_array().shape != image.shape:
            self.close()
            self._pyplot.ion()
            self._figure = self._pyplot.figure(figsize=(image.shape[1] / 100, image.shape[0] / 100))
            axes = self._figure.add_axes((0, 0, 1, 1))
            axes.axis("off")
            self._image = axes.imshow(image)
        self._image.set_data(image)
        self._pyplot.pause(1e-3)

    def close(self) -> None:
        """Closes it."""
        if self._figure is not None:
            self._pyplot.close(self._figure)
            self._figure = None


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
