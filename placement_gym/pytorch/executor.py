"""execute: a graph with kernels under a placement, on real devices, measured."""

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from placement_gym.arrays import read_only
from placement_gym.errors import ExecutionError, InvalidOption, InvalidRule
from placement_gym.graph import OpGraph
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.pytorch.allocator import kept_memory
from placement_gym.pytorch.devices import TorchDevice
from placement_gym.pytorch.engine import Engine
from placement_gym.pytorch.executable import Executable, Sources, kernels_of
from placement_gym.pytorch.measured import MeasuredSchedule
from placement_gym.pytorch.programs import random_sources
from placement_gym.pytorch.workers import Crew
from placement_gym.rule import Rule, resolve_rule
from placement_gym.simulator.engine import ranks_of

# A thread that waits for the interpreter's lock asks for it after this long; the usual 5 ms outlast many kernels.
SWITCH_INTERVAL_S = 1e-4


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a graph is run.

    Attributes:
        values: A tensor per source, by name; random where not given.
        seed: Of the random values.
        warmup: Runs before the first that counts.
        timeout_s: How long one run may take.

    Raises:
        InvalidOption: A number that is not allowed.
    """

    values: Mapping[str, Tensor] | None = None
    seed: int = 0
    warmup: int = 1
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise InvalidOption(f"warmup is {self.warmup}; expected >= 0")
        if not 0 < self.timeout_s < float("inf"):
            raise InvalidOption(f"timeout_s is {self.timeout_s}; expected finite seconds > 0")


def execute(
    graph: OpGraph | Problem,
    op_device: ArrayLike | Placement,
    *,
    torch_devices: Sequence[str],
    repeats: int = 5,
    rule: str | Rule = "physical",
    priority: ArrayLike | None = None,
    options: RunOptions | None = None,
) -> MeasuredSchedule:
    """Runs a graph with kernels under a placement on real devices, in the simulator's order, and measures it.

    Each device has a worker of its own: a thread pinned to its core with one intra-op thread ("cpu:0" is the first core
    that this process may use), or a stream of a GPU ("cuda:0", which may be named several times). Transfers are
    copies into new buffers, made beside the computing (between cores, by a thread on the receiver's core). Sources lie
    on their devices before the clock starts, and memory is freed when its last reader is done. Linux only.

    Args:
        graph: The graph; or a problem, whose memory, colocation, slots, times and names then hold.
        op_device: int [n_ops], device of each op, or a `Placement`.
        torch_devices: What device 0, 1, ... are.
        repeats: Runs that count.
        rule: A preset's name or a `Rule`: any queue and contention, transfers `edge` or `tensor`, without holds.
        priority: float [n_ops], ranks for the `priority` queue, largest first.
        options: Values of the sources, warm-up and timeout; the defaults of `RunOptions` where not given.

    Raises:
        InfeasiblePlacement: The placement breaks support, memory or colocation.
        InvalidRule: The rule is unknown, or has what real devices have not.
        InvalidOption: A device that is not there, or wrong repeats, priority or values.
        ExecutionError: The graph has no kernels; or an op failed, ran out of memory or timed out. All threads have
            ended then, but for one whose kernel does not return, which the message names.
    """
    options = options or RunOptions()
    if repeats < 1:
        raise InvalidOption(f"repeats is {repeats}; expected >= 1")
    resolved = real_rule(rule)
    devices = TorchDevice.parse(torch_devices)
    problem = graph if isinstance(graph, Problem) else _problem_of(graph, devices)
    if problem.n_devices != len(devices):
        raise InvalidOption(f"torch_devices are {list(torch_devices)}; the problem has {problem.n_devices} devices")
    kernels = kernels_of(problem)
    placement = op_device if isinstance(op_device, Placement) else Placement(np.asarray(op_device))
    placement.check(problem)
    ranks = ranks_of(problem, resolved, priority)
    values = random_sources(kernels.sources, options.seed) if options.values is None else options.values
    memories = [device.memory for device in devices]
    sources = Sources.of(kernels, values)
    executable = Executable.build(problem, placement, resolved, ranks, sources, memories)
    for memory in memories:
        if memory.type == "cuda":
            torch.cuda.synchronize(memory)
    with kept_memory(), quiet_interpreter():
        return _measured(executable, devices, repeats, options)


def _measured(
    executable: Executable, devices: Sequence[TorchDevice], repeats: int, options: RunOptions
) -> MeasuredSchedule:
    problem = executable.problem
    crew = Crew(devices, problem.device_slots.tolist(), executable.pairs)
    runs: list[Engine] = []
    results: dict[str, Tensor] = {}
    try:
        crew.start()
        for k in range(options.warmup + repeats):
            run = Engine(executable, crew, options.timeout_s)
            run.run()
            results = run.results() if k == options.warmup + repeats - 1 else {}
            run.kept.clear()
            runs += [run] if k >= options.warmup else []
    except ExecutionError as error:
        left = crew.end()
        if not left:
            raise
        threads = ", ".join(map(repr, left))
        raise ExecutionError(f"{error}; left behind in a kernel, which cannot be ended: {threads}") from error.__cause__
    finally:
        crew.end()
    makespans_s = np.array([run.trace.last_event_s for run in runs])
    run = runs[int(np.argsort(makespans_s, kind="stable")[(repeats - 1) // 2])]
    peak_bytes = np.array(run.peak_bytes, dtype=np.float64)
    np.add.at(peak_bytes, executable.placement.op_device, problem.graph.op_parameter_bytes)
    return MeasuredSchedule(
        problem,
        executable.placement,
        executable.rule,
        run.trace,
        executable.priority,
        exact=False,
        makespans_s=read_only(makespans_s, np.float64),
        op_kernel_s=read_only(run.op_kernel_s, np.float64),
        measured_peak_bytes=read_only(peak_bytes, np.float64),
        results=results,
    )


def real_rule(rule: str | Rule) -> Rule:
    """The rule, if real devices can keep it.

    Raises:
        InvalidRule: It is unknown, or has what real devices have not.
    """
    resolved = resolve_rule(rule)
    if resolved.transfers == "multicast" or resolved.latency == "holds" or resolved.device_hold_s > 0:
        raise InvalidRule(
            f"{resolved} cannot be executed: real devices copy to one device at a time and hold nothing afterwards; "
            "expected transfers 'edge' or 'tensor', latency 'delays' and device_hold_s 0"
        )
    return resolved


def _problem_of(graph: OpGraph, devices: Sequence[TorchDevice]) -> Problem:
    """The graph on these devices, of which no times are known."""
    names = [device.name for device in devices]
    return Problem.from_times(
        graph,
        np.zeros((graph.n_ops, len(devices))),
        device_names=[f"{name} [{d}]" if names.count(name) > 1 else name for d, name in enumerate(names)],
        device_kinds=["cpu" if device.core >= 0 else "accelerator" for device in devices],
        name="executed",
    )


@contextmanager
def quiet_interpreter() -> Iterator[None]:
    """No garbage collection, quick hand-over of the interpreter's lock, one intra-op thread; restored afterwards."""
    collecting, interval_s, n_threads = gc.isenabled(), sys.getswitchinterval(), torch.get_num_threads()
    gc.disable()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        sys.setswitchinterval(interval_s)
        if collecting:
            gc.enable()
