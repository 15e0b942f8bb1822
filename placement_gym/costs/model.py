"""CostModel: seconds of every op on every device."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from placement_gym.arrays import FloatArray
from placement_gym.cluster import Cluster
from placement_gym.costs.profile import COMMAND, Profile, default_path
from placement_gym.costs.timing import Load
from placement_gym.errors import InvalidProblem, unknown_name
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import Kernels


class CostModel(Protocol):
    """What turns a graph and a cluster into seconds."""

    def op_time_s(self, graph: OpGraph, cluster: Cluster) -> FloatArray:
        """float64 [n_ops, n_devices]: seconds of op i on device d, `inf` where d cannot run it."""
        ...


@dataclass(frozen=True, slots=True)
class RooflineCost:
    """Roofline model (Williams, Waterman, Patterson, CACM 2009): the slower of arithmetic and memory traffic.

    time = launch_overhead_s + max(flops / (compute_efficiency * peak), traffic / (memory_efficiency * bandwidth));
    an op with neither FLOPs nor traffic is free. A device that has no peak for the op's dtype cannot run the
    op if the op has FLOPs.

    Attributes:
        compute_efficiency: Share of peak FLOP/s that ops reach, in (0, 1].
        memory_efficiency: Share of memory bandwidth that ops reach, in (0, 1].

    Raises:
        InvalidProblem: An efficiency outside (0, 1].
    """

    compute_efficiency: float = 1.0
    memory_efficiency: float = 1.0

    def __post_init__(self) -> None:
        for name in ("compute_efficiency", "memory_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidProblem(f"RooflineCost: {name} is {getattr(self, name)}; expected a number in (0, 1]")

    def op_time_s(self, graph: OpGraph, cluster: Cluster) -> FloatArray:
        """See `CostModel.op_time_s`."""
        columns = []
        for device in cluster.devices:
            peak = np.array([device.peak_flops_per_s.get(dtype, 0.0) for dtype in graph.op_dtypes])
            with np.errstate(divide="ignore", invalid="ignore"):
                arithmetic = np.where(graph.op_flops > 0, graph.op_flops / (self.compute_efficiency * peak), 0.0)
            traffic = graph.op_traffic_bytes / (self.memory_efficiency * device.memory_bytes_per_s)
            busy = np.maximum(arithmetic, traffic)
            columns.append(np.where(busy > 0, busy + device.launch_overhead_s, 0.0))
        return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True)
class TableCost:
    """Measured seconds per op name and device name.

    Attributes:
        seconds: `seconds[op name][device name]`; a device that a row leaves out cannot run the op. Rows of ops that
            the graph does not have are not used, so that one table serves several graphs.

    Raises:
        InvalidProblem: (from `op_time_s`) an op that the table does not hold, a device that no row holds, or a row
            that leaves out a device of the cluster and holds one that the cluster does not have.
    """

    seconds: Mapping[str, Mapping[str, float]]

    def op_time_s(self, graph: OpGraph, cluster: Cluster) -> FloatArray:
        """See `CostModel.op_time_s`."""
        missing = [name for name in graph.op_names if name not in self.seconds]
        if missing:
            alike = difflib.get_close_matches(missing[0], list(map(str, self.seconds)), n=3)
            raise InvalidProblem(
                f"the cost table has no row for {len(missing)} of {graph.n_ops} ops: {_some(missing)}; "
                f"its rows are {_some(alike or self.seconds)}"
            )
        devices = [device.name for device in cluster.devices]
        for name in graph.op_names:
            row = self.seconds[name]
            strange = [device for device in row if device not in devices]
            if strange and not all(device in row for device in devices):
                raise InvalidProblem(
                    f"the cost table's row of op {name!r}: {unknown_name('device', strange[0], devices)}. Where a "
                    "device cannot run the op, give its time as inf"
                )
        timed = {device for name in graph.op_names for device in self.seconds[name]}
        untimed = [device for device in devices if device not in timed]
        if untimed:
            raise InvalidProblem(
                f"the cost table has no times for the devices {_some(untimed)}; it has times for "
                f"{_some(sorted(timed))}. Where a device can run no op, give its times as inf"
            )
        return np.array([[self.seconds[name].get(device, np.inf) for device in devices] for name in graph.op_names])


def _some(names: Iterable[str]) -> str:
    """The first five names, for a message."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:5]) + (f", ... ({len(listed)} in all)" if len(listed) > 5 else "")


@dataclass(frozen=True, slots=True)
class ProfiledCost:
    """Seconds of the ops' kernels as measured on this machine (`placement_gym.costs.profile`).

    time = the kernel's median + overhead. It holds for graphs whose ops have kernels, on devices of the profile.

    Attributes:
        profile: What was measured.
        load: Kernels as fast as with the other workers idle ("alone"), as with all of them running the same kernel
            ("loaded"), or halfway ("mean").
        overhead_s: Seconds that an engine adds to every op; the profile's own estimate where None.

    Raises:
        InvalidProblem: (from `op_time_s`) a graph without kernels, a kernel that was not measured, or a device that
            the profile does not hold.
    """

    profile: Profile
    load: Load = "loaded"
    overhead_s: float | None = None

    @classmethod
    def of_file(
        cls, path: str | None = None, *, load: Load = "loaded", overhead_s: float | None = None
    ) -> ProfiledCost:
        """The costs of a saved profile: that at `path`, or this machine's (`profile.default_path`).

        Raises:
            InvalidFile: As `Profile.load`.
        """
        return cls(Profile.load(path or default_path()), load, overhead_s)

    def op_time_s(self, graph: OpGraph, cluster: Cluster) -> FloatArray:
        """See `CostModel.op_time_s`."""
        if graph.kernels is None:
            raise InvalidProblem(
                "the graph has no kernels, so its ops cannot be measured; profiled costs are for workloads that can be "
                "run, such as a split program or a captured module"
            )
        devices = [self.profile.device(device.name) for device in cluster.devices]
        model_seconds = {}
        for device in devices:
            if device.model not in model_seconds:
                overhead = self.profile.model(device).overhead_s if self.overhead_s is None else self.overhead_s
                model_seconds[device.model] = self._kernels_s(graph.op_names, graph.kernels, device.model) + overhead
        return np.stack([model_seconds[device.model] for device in devices], axis=1)

    def _kernels_s(self, op_names: Sequence[str], kernels: Kernels, model: str) -> FloatArray:
        times = self.profile.kernel_times.get(model, {})
        for name, kernel in zip(op_names, kernels.op_kernels, strict=True):
            if kernel.signature not in times:
                raise InvalidProblem(
                    f"op {name!r}: its kernel {kernel.signature} was not measured on {model!r}; "
                    f"measure it with `{COMMAND}`"
                )
        return np.array([times[kernel.signature].seconds(self.load) for kernel in kernels.op_kernels])
