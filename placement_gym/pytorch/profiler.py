"""profile: measures the kernels of op graphs, and copies between devices, on this machine."""

import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from placement_gym.costs.profile import DeviceModel, Profile, ProfiledDevice
from placement_gym.costs.timing import CopyPoint, CopyTimes, KernelTime, Timing
from placement_gym.errors import ExecutionError, InvalidOption, InvalidProblem, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import Kernel, Operand, Source
from placement_gym.pytorch.allocator import kept_memory
from placement_gym.pytorch.devices import known_torch_devices
from placement_gym.pytorch.functions import code_of, dtype_of, source_value
from placement_gym.pytorch.stopwatch import Actor, Call, TimingWorker, one_intra_op_thread, repeated_s

Progress = Callable[[Profile, int, int], None]

# A kernel goes through several sets of operands that do not all fit into a cache.
ROTATED_BYTES = 128 << 20
MOST_SETS = 16
COPIED_BYTES = tuple(4096 << 2 * i for i in range(7))  # 4 KiB to 16 MiB
ROW = 1024  # elements of a copied region's row
# Sizes of the matrix product and of the vector that give a model's peaks.
PEAK_SIZE = {"cpu": 512, "cuda": 4096}
STREAM_SIZE = {"cpu": 1 << 20, "cuda": 1 << 26}


@dataclass(frozen=True, slots=True)
class _Job:
    """A kernel to be measured, the sources of its operands (None: another op) and an op that runs it."""

    kernel: Kernel
    sources: tuple[Source | None, ...]
    op_name: str


def profile(
    graphs: Sequence[OpGraph],
    torch_devices: Sequence[str] = ("cpu:0", "cpu:1"),
    *,
    seconds_per_kernel: float = 0.3,
    known: Profile | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Profile:
    """Measures each distinct kernel of the graphs on each model of device, and copies between the devices.

    CPU workers are threads pinned to one core each, with one intra-op thread. A kernel runs on one worker alone and on
    all workers of its model at once, on several sets of random operands in turn, outputs newly allocated; medians of
    what fits into the time. A copy clones a strided region in a thread of its own, with workers idle and computing;
    between host and GPU it goes by pinned memory.

    Args:
        graphs: Their ops must have kernels; equal signatures are measured once.
        torch_devices: "cpu:k" (the k-th core that the process may use) or "cuda:k"; a GPU that is named n times is n
            devices, each with a stream of its own.
        seconds_per_kernel: Computing time per kernel and model (half alone, half loaded), and per size of copy.
        known: What was measured before; only what it lacks is measured.
        again: Measures what is known, too.
        progress: Called after each measurement with the profile so far, how many are done and how many there are: who
            keeps that profile loses nothing to an interrupt.

    Returns:
        `known` and what was measured.

    Raises:
        InvalidProblem: A graph without kernels, or `known` is of another machine.
        InvalidOption: An unknown device, a core named twice, or no time.
        ExecutionError: A kernel that failed; the message names it and its op.
    """
    if not seconds_per_kernel > 0:
        raise InvalidOption(f"seconds_per_kernel is {seconds_per_kernel}; expected > 0")
    jobs = _jobs(graphs)
    devices = describe(torch_devices)
    base = Profile(_cpu_model(), str(torch.__version__), devices, {}, {}, {})
    found = base if known is None else known.merged(base)
    with kept_memory(), one_intra_op_thread(), ExitStack() as stack:
        workers = []
        for device in devices:
            workers.append(TimingWorker(device.torch_device))
            stack.callback(workers[-1].close)
        bench = _Bench(base, tuple(workers), seconds_per_kernel / 2)
        dtypes = {dtype for job in jobs for dtype in job.kernel.output_dtypes if dtype_of(dtype).is_floating_point}
        missing = [
            measure for measure, is_known in bench.measures(jobs, sorted(dtypes), found) if again or not is_known
        ]
        for done, measure in enumerate(missing, start=1):
            found = found.merged(measure())
            if progress is not None:
                progress(found, done, len(missing))
    return found


def describe(torch_devices: Sequence[str]) -> tuple[ProfiledDevice, ...]:
    """The devices of that name in torch: model and memory of each.

    Raises:
        InvalidOption: An unknown device, a core named twice, or none.
    """
    known = known_torch_devices()
    if not torch_devices:
        raise InvalidOption(f"torch_devices is empty; expected some of {', '.join(known)}")
    n_cpus = sum(name.startswith("cpu") for name in torch_devices)
    devices = []
    for i, name in enumerate(torch_devices):
        if name not in known:
            raise InvalidOption(unknown_name("torch device", name, known))
        before = torch_devices[:i].count(name)
        if name.startswith("cpu"):
            if before:
                raise InvalidOption(f"torch_devices names {name} twice; expected one worker per core")
            devices.append(ProfiledDevice(name, name, "cpu", _memory_bytes() / n_cpus))
        else:
            memory = torch.cuda.get_device_properties(name).total_memory / torch_devices.count(name)
            model = torch.cuda.get_device_name(name)
            devices.append(ProfiledDevice(f"{name}/{before}" if before else name, name, model, memory))
    return tuple(devices)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _memory_bytes() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _jobs(graphs: Sequence[OpGraph]) -> list[_Job]:
    """Each distinct kernel once."""
    jobs: dict[str, _Job] = {}
    for graph in graphs:
        if graph.kernels is None:
            raise InvalidProblem(
                f"the graph of {graph.n_ops} ops (first {graph.op_names[0]!r}) has no kernels, so nothing of it can be "
                "run; expected a split program or a captured module"
            )
        for name, kernel in zip(graph.op_names, graph.kernels.op_kernels, strict=True):
            sources = tuple(graph.kernels.sources[o.source] if o.op < 0 else None for o in kernel.operands)
            jobs.setdefault(kernel.signature, _Job(kernel, sources, name))
    return list(jobs.values())


def operand_value(operand: Operand, source: Source | None, generator: torch.Generator) -> Tensor:
    """A random tensor for an operand, on the generator's device.

    Whole numbers from a source are in its range; those that an op makes are 0, which is in any range.
    """
    dtype, device = dtype_of(operand.dtype), generator.device
    if dtype.is_floating_point:
        kind = source.kind if source is not None else "input"
        return source_value(Source(kind, operand.shape, operand.dtype), generator)
    n_values = 2 if dtype == torch.bool else source.n_values if source is not None else 0
    if n_values:
        return torch.randint(n_values, operand.shape, generator=generator, device=device).to(dtype)
    return torch.zeros(operand.shape, dtype=dtype, device=device)


def _kernel_call(job: _Job, device: torch.device) -> Call:
    """The kernel on several sets of operands in turn."""
    generator = torch.Generator(device).manual_seed(0)
    pairs = zip(job.kernel.operands, job.sources, strict=True)
    first = [operand_value(operand, source, generator) for operand, source in pairs]
    n_bytes = sum(tensor.nbytes for tensor in first)
    n_sets = min(max(1, math.ceil(ROTATED_BYTES / max(n_bytes, 1))), MOST_SETS)
    sets = cycle([first, *([tensor.clone() for tensor in first] for _ in range(n_sets - 1))])
    code = code_of(job.kernel)
    return lambda: code(next(sets))


def _copy_call(source: torch.device, target: torch.device, n_bytes: int) -> Call:
    """A copy of a region, rows of `ROW` elements in rows twice as long, or of pinned host memory."""
    n_sets = min(max(1, math.ceil(ROTATED_BYTES / n_bytes)), MOST_SETS)
    shape = (n_bytes // (4 * ROW), ROW)
    if source.type == target.type == "cpu":
        regions = cycle([torch.ones(shape[0], 2 * ROW)[:, :ROW] for _ in range(n_sets)])
        return lambda: next(regions).clone(memory_format=torch.contiguous_format)
    pinned = source.type == "cpu"
    tensors = cycle([torch.ones(shape, device=source, pin_memory=pinned) for _ in range(n_sets)])
    if target.type == "cpu":
        return lambda: torch.empty(shape, pin_memory=True).copy_(next(tensors), non_blocking=True)
    return lambda: next(tensors).to(target, non_blocking=True, copy=True)


def _asked_copy(copier: TimingWorker, source: torch.device, target: torch.device, n_bytes: int) -> Call:
    """A copy made by another thread, complete on return: the time of both hand-overs is part of it."""
    call = _copy_call(source, target, n_bytes)

    def complete() -> object:
        made = call()
        if copier.torch_device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        return made

    return lambda: copier.pool.submit(complete).result()


def _einsum(size: int, dtype: str) -> _Job:
    source = Source("input", (size, size), dtype)
    operands = tuple(Operand(-1, (size, size), dtype, name) for name in "ab")
    return _Job(Kernel("einsum", operands, ((size, size),), (dtype,), "ab,bc->ac"), (source, source), "peak")


def _relu(size: int) -> _Job:
    operand, source = Operand(-1, (size,), source="a"), Source("input", (size,))
    return _Job(Kernel("relu", (operand,), ((size,),), ("float32",), "a->a"), (source,), "stream")


@dataclass(frozen=True, slots=True)
class _Bench:
    """The workers of one profiling.

    Attributes:
        base: A profile of the devices that holds no measurement.
        workers: One per device.
        seconds: Time of one measurement.
    """

    base: Profile
    workers: tuple[TimingWorker, ...]
    seconds: float

    def measures(
        self, jobs: Sequence[_Job], dtypes: Sequence[str], known: Profile
    ) -> Iterator[tuple[Callable[[], Profile], bool]]:
        """All measurements, each with whether `known` has it already; each gives a profile of one entry."""
        model_workers: dict[str, list[TimingWorker]] = {}
        for device, worker in zip(self.base.devices, self.workers, strict=True):
            model_workers.setdefault(device.model, []).append(worker)
        for model, workers in model_workers.items():
            peaks = {**(known.models[model].peak_flops_per_s if model in known.models else {}), "float32": 0.0}
            wanted = sorted({*peaks, *dtypes})
            is_known = model in known.models and all(dtype in known.models[model].peak_flops_per_s for dtype in wanted)
            yield partial(self._model, model, workers[0], wanted), is_known
        for pair, ends in self._pairs().items():
            yield partial(self._copies, pair, *ends), pair in known.copies
        for model, workers in model_workers.items():
            for job in jobs:
                yield (
                    partial(self._kernel, model, workers, job),
                    job.kernel.signature in known.kernel_times.get(model, {}),
                )

    def _pairs(self) -> dict[tuple[str, str], tuple[TimingWorker, TimingWorker]]:
        """The first two devices of each ordered pair of models."""
        pairs: dict[tuple[str, str], tuple[TimingWorker, TimingWorker]] = {}
        for a, source in zip(self.base.devices, self.workers, strict=True):
            for b, target in zip(self.base.devices, self.workers, strict=True):
                if a.name != b.name:
                    pairs.setdefault((a.model, b.model), (source, target))
        return pairs

    def _timing(self, what: str, actors: Sequence[Actor]) -> Timing:
        try:
            return Timing.of(repeated_s(actors, self.seconds))
        except Exception as error:
            raise ExecutionError(
                f"{what} failed on {actors[0].worker.torch_device}: {type(error).__name__}: {error}"
            ) from error

    def _actor(self, worker: TimingWorker, job: _Job, *, is_timed: bool = True) -> Actor:
        return Actor(worker, partial(_kernel_call, job, worker.torch_device), is_timed)

    def _model(self, model: str, worker: TimingWorker, dtypes: Sequence[str]) -> Profile:
        kind = worker.torch_device.type
        size, stream = PEAK_SIZE[kind], _relu(STREAM_SIZE[kind])
        flops = {}
        for dtype in dtypes:
            product = self._timing(f"a {dtype} matrix product", [self._actor(worker, _einsum(size, dtype))])
            flops[dtype] = 2 * size**3 / product.median_s
        stream_s = self._timing("an elementwise op", [self._actor(worker, stream)]).median_s
        overhead_s = Timing.of(worker.hand_over_s()).median_s
        stream_bytes = 2.0 * stream.kernel.operands[0].n_bytes
        entry = DeviceModel(
            "cpu" if kind == "cpu" else "accelerator", flops, stream_bytes / stream_s, overhead_s, _now()
        )
        return replace(self.base, models={model: entry})

    def _kernel(self, model: str, workers: Sequence[TimingWorker], job: _Job) -> Profile:
        actors = [self._actor(worker, job) for worker in workers]
        what = f"op {job.op_name!r}: kernel {job.kernel.signature}"
        alone = self._timing(what, actors[:1])
        loaded = self._timing(what, actors) if len(actors) > 1 else alone
        return replace(self.base, kernel_times={model: {job.kernel.signature: KernelTime(alone, loaded, _now())}})

    def _copies(self, pair: tuple[str, str], source: TimingWorker, target: TimingWorker) -> Profile:
        ends = (source.torch_device, target.torch_device)
        on_gpu = [worker.torch_device for worker in (target, source) if worker.torch_device.type == "cuda"]
        busy = [
            self._actor(worker, _einsum(PEAK_SIZE["cpu"], "float32"), is_timed=False)
            for worker in self.workers
            if worker.torch_device.type == "cpu"
        ]
        # As in a run: whoever ends an op asks the copier, which works on the receiving core or on the GPU.
        asker, copier = TimingWorker("cpu"), TimingWorker(str(on_gpu[0]) if on_gpu else target.name)
        try:
            points = []
            for n_bytes in COPIED_BYTES:
                actor = Actor(asker, partial(_asked_copy, copier, *ends, n_bytes), rests=True)
                what = f"a copy of {n_bytes} bytes from {ends[0]} to {ends[1]}"
                points.append(CopyPoint(n_bytes, self._timing(what, [actor]), self._timing(what, [actor, *busy])))
        finally:
            asker.close()
            copier.close()
        return replace(self.base, copies={pair: CopyTimes(tuple(points), _now())})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
