"""Profile: seconds of kernels and of copies between devices, measured on one machine."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from placement_gym.cluster import Cluster, Device, DeviceKind
from placement_gym.costs.timing import CopyPoint, CopyTimes, KernelTime, Load, Timing
from placement_gym.errors import InvalidFile, InvalidProblem, PlacementGymError, unknown_name
from placement_gym.files import write_text

FORMAT = "placement_gym.profile.v1"
COMMAND = "python -m experiments.profile workload=..."


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """What was measured of one model of device.

    Attributes:
        kind: "accelerator" or "cpu".
        peak_flops_per_s: FLOP/s of a large matrix product, per dtype.
        memory_bytes_per_s: Bytes read and written per second by a large elementwise op.
        overhead_s: Seconds from the end of an op to the start of the next, which another thread starts.
        measured_at: As in `KernelTime`.
    """

    kind: DeviceKind
    peak_flops_per_s: Mapping[str, float]
    memory_bytes_per_s: float
    overhead_s: float
    measured_at: str


@dataclass(frozen=True, slots=True)
class ProfiledDevice:
    """One device of the machine.

    Attributes:
        name: Its name in clusters.
        torch_device: "cpu:k" (the k-th core that the process may use) or "cuda:k"; streams of one GPU share it.
        model: Devices of one model are equally fast: "cpu", or the GPU's name.
        memory_bytes: Its share of the memory.
    """

    name: str
    torch_device: str
    model: str
    memory_bytes: float


class _Dated(Protocol):
    @property
    def measured_at(self) -> str: ...


_Key = TypeVar("_Key")
_Measured = TypeVar("_Measured", bound=_Dated)


def _latest(known: Mapping[_Key, _Measured], new: Mapping[_Key, _Measured]) -> dict[_Key, _Measured]:
    """Both; of what both hold, the one measured later, `new` where that is not told apart."""
    kept = {key: value for key, value in new.items() if key not in known or value.measured_at >= known[key].measured_at}
    return {**known, **kept}


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured on one machine.

    Attributes:
        machine: Model of its CPU.
        torch_version: That of the latest measurement.
        devices: What a cluster can be made of.
        models: Per model of device.
        kernel_times: `kernel_times[model][Kernel.signature]`.
        copies: Per ordered pair of models; the first pair of devices of these models stands for all.
    """

    machine: str
    torch_version: str
    devices: tuple[ProfiledDevice, ...]
    models: Mapping[str, DeviceModel]
    kernel_times: Mapping[str, Mapping[str, KernelTime]]
    copies: Mapping[tuple[str, str], CopyTimes]

    def merged(self, new: "Profile") -> "Profile":
        """Both profiles in one; of what both measured, the later measurement counts.

        Raises:
            InvalidProblem: They are of different machines.
        """
        if self.machine != new.machine:
            raise InvalidProblem(
                f"the profile is of a machine with {self.machine!r}, not {new.machine!r}; expected one machine"
            )
        times = {
            model: _latest(self.kernel_times.get(model, {}), new.kernel_times.get(model, {}))
            for model in {**self.kernel_times, **new.kernel_times}
        }
        return Profile(
            self.machine,
            new.torch_version,
            tuple({device.name: device for device in (*self.devices, *new.devices)}.values()),
            _latest(self.models, new.models),
            times,
            _latest(self.copies, new.copies),
        )

    def device(self, name: str) -> ProfiledDevice:
        """The device of that name.

        Raises:
            InvalidProblem: There is none.
        """
        for device in self.devices:
            if device.name == name:
                return device
        raise InvalidProblem(
            f"the profile of {self.machine}: {unknown_name('device', name, [d.name for d in self.devices])}; "
            "profiled costs go with cluster=profiled"
        )

    def model(self, device: ProfiledDevice) -> DeviceModel:
        """What was measured of the device's model.

        Raises:
            InvalidProblem: Nothing was measured, as the profiling was interrupted before.
        """
        if device.model not in self.models:
            raise InvalidProblem(f"device {device.name!r} was not measured to the end; run `{COMMAND}` again")
        return self.models[device.model]

    def cluster(self, device_names: Sequence[str] | None = None, *, load: Load = "loaded") -> Cluster:
        """The machine's devices, joined by the measured copies.

        Args:
            device_names: Which of them, in that order; all where not given.
            load: Whether copies are as fast as beside idle workers ("alone"), beside computing ones ("loaded") or
                between the two ("mean").

        Raises:
            InvalidProblem: An unknown device, or models between which no copy was measured.
        """
        names = [d.name for d in self.devices] if device_names is None else device_names
        chosen = [self.device(name) for name in names]
        latency, speed = np.zeros((len(chosen),) * 2), np.zeros((len(chosen),) * 2)
        for a, source in enumerate(chosen):
            for b, target in enumerate(chosen):
                if a != b:
                    line = self._copy_times(source, target).line(load)
                    latency[a, b], speed[a, b] = line.latency_s, line.bytes_per_s
        return Cluster(tuple(self._cluster_device(device) for device in chosen), latency, speed)

    def _copy_times(self, source: ProfiledDevice, target: ProfiledDevice) -> CopyTimes:
        pair = (source.model, target.model)
        if pair not in self.copies:
            raise InvalidProblem(
                f"no copy from {source.name!r} to {target.name!r} was measured; "
                f"run `{COMMAND} torch_devices=[{source.torch_device},{target.torch_device}]`"
            )
        return self.copies[pair]

    def _cluster_device(self, device: ProfiledDevice) -> Device:
        model = self.model(device)
        return Device(
            device.name,
            model.peak_flops_per_s,
            model.memory_bytes_per_s,
            device.memory_bytes,
            model.overhead_s,
            model.kind,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the profile as JSON; an existing file is replaced only when complete.

        Raises:
            InvalidFile: The folder does not exist or cannot be written.
        """
        content = {name: getattr(self, name) for name in ("machine", "torch_version")}
        content["devices"] = [asdict(device) for device in self.devices]
        content["models"] = {name: asdict(model) for name, model in self.models.items()}
        content["copies"] = [{"src": src, "dst": dst, **asdict(c)} for (src, dst), c in self.copies.items()]
        content["kernel_times"] = {
            model: {signature: asdict(time) for signature, time in times.items()}
            for model, times in self.kernel_times.items()
        }
        write_text(path, json.dumps({"format": FORMAT, **content}, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Profile":
        """Reads what `save` wrote.

        Raises:
            InvalidFile: There is no such file (the message says what makes one), or it is damaged or of another format.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InvalidFile(f"{path}: no such profile; measure one with `{COMMAND}`") from error
        except (OSError, ValueError) as error:
            raise InvalidFile(f"{path}: not a profile, or truncated ({error})") from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise InvalidFile(f"{path}: format is {found!r}; expected {FORMAT!r}")
        try:
            return _parsed(content)
        except (KeyError, TypeError, AttributeError, PlacementGymError) as error:
            raise InvalidFile(f"{path}: damaged profile ({type(error).__name__}: {error})") from error


def _parsed(content: dict[str, Any]) -> Profile:
    def timed(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "alone": Timing(**entry["alone"]), "loaded": Timing(**entry["loaded"])}

    return Profile(
        machine=content["machine"],
        torch_version=content["torch_version"],
        devices=tuple(ProfiledDevice(**device) for device in content["devices"]),
        models={name: DeviceModel(**model) for name, model in content["models"].items()},
        kernel_times={
            model: {signature: KernelTime(**timed(time)) for signature, time in times.items()}
            for model, times in content["kernel_times"].items()
        },
        copies={
            (c["src"], c["dst"]): CopyTimes(tuple(CopyPoint(**timed(p)) for p in c["points"]), c["measured_at"])
            for c in content["copies"]
        },
    )


def default_path() -> Path:
    """Where this machine's profile is kept: $PLACEMENT_GYM_PROFILE, or profiles/<host name>.json."""
    return Path(os.environ.get("PLACEMENT_GYM_PROFILE") or f"profiles/{platform.node() or 'localhost'}.json")


def profiled_cluster(
    path: str | None = None, device_names: Sequence[str] | None = None, *, load: Load = "loaded"
) -> Cluster:
    """`Profile.cluster` of the profile at `path` (`default_path()` where not given).

    Raises:
        InvalidFile: As `Profile.load`.
        InvalidProblem: As `Profile.cluster`.
    """
    return Profile.load(path or default_path()).cluster(device_names, load=load)
