"""profile: measures a workload's kernels and the copies between devices on this machine, once for all workloads.

python -m experiments.profile workload=<program>
python -m experiments.solve workload=<program> cluster=profiled costs=profiled baseline=heft

The measurements are added to profiles/<host name>.json (or $PLACEMENT_GYM_PROFILE, or `path=`), which `costs=profiled`
and `cluster=profiled` read. The file is written after every measurement, and what it holds is not measured again: an
interrupted run goes on where it was. A picture is drawn beside it.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from experiments.build import build_executable
from experiments.command import command
from experiments.curves import save_png
from experiments.table import number, terminal, wide_console
from placement_gym.costs.model import ProfiledCost, RooflineCost
from placement_gym.costs.profile import Profile, default_path
from placement_gym.costs.timing import Load
from placement_gym.errors import InvalidFile
from placement_gym.graph import OpGraph
from placement_gym.problem import Problem

KERNEL_COLUMNS = ("kernel", "device", "ops", "alone (ms)", "loaded (ms)", "spread", "GFLOP/s")
COPY_COLUMNS = ("copy", "load", "latency (µs)", "GB/s", "worst error")
SHORT = 44


def kernel_lines(profile: Profile, graph: OpGraph) -> list[tuple[str, ...]]:
    """One line per kernel of the graph and model of device, those with most time in the graph first."""
    assert graph.kernels is not None
    signatures = [kernel.signature for kernel in graph.kernels.op_kernels]
    count, flops = Counter(signatures), dict(zip(signatures, graph.op_flops.tolist(), strict=True))
    found = []
    for model in dict.fromkeys(device.model for device in profile.devices):
        for signature, n_ops in count.items():
            time = profile.kernel_times.get(model, {}).get(signature)
            if time is None:
                continue
            loaded_s = time.loaded.median_s
            name = signature if len(signature) <= SHORT else signature[: SHORT - 1] + "…"
            speed = number(flops[signature] / loaded_s / 1e9) if flops[signature] else ""
            spread = f"{100 * max(time.alone.spread, time.loaded.spread):.0f} %"
            times = f"{time.alone.median_s * 1e3:,.4f}", f"{loaded_s * 1e3:,.4f}"
            found.append((n_ops * loaded_s, (name, model, str(n_ops), *times, spread, speed)))
    return [line for _, line in sorted(found, key=lambda item: -item[0])]


def copy_lines(profile: Profile) -> list[tuple[str, ...]]:
    """The fitted line of each ordered pair of models, under each load."""
    lines: list[tuple[str, ...]] = []
    for (src, dst), times in profile.copies.items():
        loads: tuple[Load, ...] = ("alone", "loaded")
        for load in loads:
            line = times.line(load)
            numbers = f"{line.latency_s * 1e6:.1f}", f"{line.bytes_per_s / 1e9:.2f}", f"{100 * line.worst_error:.0f} %"
            lines.append((f"{src} -> {dst}", load, *numbers))
    return lines


def draw(profile: Profile, graph: OpGraph, title: str) -> Figure:
    """Measured times of ops against a roofline of the measured peaks; copies and the lines fitted to them."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(title)
    FigureCanvasAgg(figure)
    ops, copies = figure.subplots(1, 2)
    cluster = profile.cluster()
    roofline_s, measured_s = (cost.op_time_s(graph, cluster) * 1e3 for cost in (RooflineCost(), ProfiledCost(profile)))
    drawn: set[str] = set()
    for d, device in enumerate(profile.devices):
        if device.model not in drawn:
            known = np.isfinite(roofline_s[:, d]) & (roofline_s[:, d] > 0)
            ops.plot(roofline_s[known, d], measured_s[known, d], "o", alpha=0.5, label=device.model)
        drawn.add(device.model)
    ops.axline((1, 1), slope=1, color="black", linewidth=1, linestyle=":", label="equal")
    ops.set(xscale="log", yscale="log", xlabel="roofline (ms)", ylabel="measured, loaded (ms)", title="ops")
    for i, ((src, dst), times) in enumerate(profile.copies.items()):
        size = np.array([point.n_bytes for point in times.points])
        line = times.line("loaded")
        copies.plot(size, [p.loaded.median_s * 1e3 for p in times.points], "o", color=f"C{i}", label=f"{src} -> {dst}")
        copies.plot(size, (line.latency_s + size / line.bytes_per_s) * 1e3, color=f"C{i}")
    copies.set(xscale="log", yscale="log", xlabel="bytes", ylabel="measured, loaded (ms)", title="copies")
    for axes in (ops, copies):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small")
        axes.grid(linewidth=0.4, alpha=0.5)
    return figure


def measured(graphs: Sequence[OpGraph], config: DictConfig, console: Console) -> Profile:
    """The profile at `config.path`, after what it lacks of these graphs was measured and added.

    Raises:
        InvalidFile: The profile cannot be read or written.
        PlacementGymError: As `placement_gym.pytorch.profiler.profile`.
    """
    from placement_gym.pytorch.profiler import profile as measure

    path = profile_path(config)
    known = Profile.load(path) if path.exists() else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidFile(f"cannot write {path}: {error}") from error
    columns = (SpinnerColumn(), TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)

        def keep(found: Profile, done: int, total: int) -> None:
            found.save(path)
            bar.update(task, completed=done, total=total)

        found = measure(
            graphs,
            list(config.torch_devices),
            seconds_per_kernel=config.seconds_per_kernel,
            known=known,
            again=config.again,
            progress=keep,
        )
    found.save(path)
    return found


def profiled_problems(graphs: Mapping[str, OpGraph], config: DictConfig, console: Console) -> dict[str, Problem]:
    """Each graph as a problem on `config.torch_devices`, with costs and copies as measured on this machine.

    Raises:
        PlacementGymError: As `measured`.
    """
    from placement_gym.pytorch.profiler import describe

    profile = measured(list(graphs.values()), config, console)
    cluster = profile.cluster([device.name for device in describe(list(config.torch_devices))], load=config.load)
    costs = ProfiledCost(profile, load=config.load, overhead_s=config.overhead_s)
    return {name: Problem.build(graph, cluster, costs=costs, name=name) for name, graph in graphs.items()}


def profile_path(config: DictConfig) -> Path:
    """The file of `config.path`, or this machine's."""
    return Path(config.path or default_path())


def run(config: DictConfig) -> int:
    """Measures what the profile lacks; writes the profile, a table and a picture.

    Raises:
        PlacementGymError: As `measured`.
    """
    console, path = wide_console(), profile_path(config)
    graph = build_executable(config.workload, config.workload_name)
    found = measured([graph], config, console)
    lines = kernel_lines(found, graph)
    # A signature's brackets are no markup.
    shown = [tuple(escape(cell) for cell in line) for line in lines[: config.rows]]
    console.print(terminal(f"{config.workload_name}: kernels", KERNEL_COLUMNS, shown))
    if len(lines) > config.rows:
        console.print(f"and {len(lines) - config.rows} more (rows={len(lines)} shows all)", highlight=False)
    console.print(terminal("copies", COPY_COLUMNS, copy_lines(found)))
    picture = save_png(draw(found, graph, f"{config.workload_name} on {found.machine}"), path.with_suffix(".png"))
    console.print(f"wrote {path} and {picture}; use it with cluster=profiled costs=profiled", highlight=False)
    return 0


main = command("profile")(run)

if __name__ == "__main__":
    sys.exit(main(None))
