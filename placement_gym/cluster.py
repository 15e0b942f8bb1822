"""Device, Link, Cluster: the machines that a network is placed on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from placement_gym.arrays import FloatArray, read_only
from placement_gym.errors import InvalidCluster, unknown_name

DeviceKind = Literal["accelerator", "cpu"]


@dataclass(frozen=True, slots=True)
class Device:
    """One device: what it computes per second, what it holds, how many ops run on it at once.

    Attributes:
        name: Unique in its cluster.
        peak_flops_per_s: Peak FLOP/s per dtype name ("float32", "float16", ...).
        memory_bytes_per_s: Memory bandwidth.
        memory_bytes: Memory capacity (`inf` where unlimited).
        launch_overhead_s: Time of starting one op.
        kind: "accelerator" or "cpu" (the host, which pays no transfer in the max-load objective).
        slots: How many ops run at the same time, each at full speed.

    Raises:
        InvalidCluster: On a number that is not positive.
    """

    name: str
    peak_flops_per_s: Mapping[str, float]
    memory_bytes_per_s: float
    memory_bytes: float = float("inf")
    launch_overhead_s: float = 0.0
    kind: DeviceKind = "accelerator"
    slots: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("accelerator", "cpu"):
            raise InvalidCluster(f"device {self.name!r}: " + unknown_name("kind", self.kind, ("accelerator", "cpu")))
        positive = {
            "memory_bytes_per_s": self.memory_bytes_per_s,
            "memory_bytes": self.memory_bytes,
            "slots": self.slots,
            **{f"peak_flops_per_s[{dtype}]": peak for dtype, peak in self.peak_flops_per_s.items()},
        }
        for what, value in positive.items():
            if not value > 0:
                raise InvalidCluster(f"device {self.name!r}: {what} is {value}; expected a number > 0")
        if not (0 <= self.launch_overhead_s < float("inf")):
            raise InvalidCluster(f"device {self.name!r}: launch_overhead_s is {self.launch_overhead_s}; expected >= 0")


@dataclass(frozen=True, slots=True)
class Link:
    """Latency and bandwidth of a way from one device to another.

    Attributes:
        latency_s: Seconds before the first byte arrives.
        bytes_per_s: Bandwidth.
        pairs: Ordered pairs (source name, destination name) that it joins; empty for a cluster's default.
    """

    latency_s: float
    bytes_per_s: float
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple((str(a), str(b)) for a, b in self.pairs))
        if not (0 <= self.latency_s < float("inf")):
            raise InvalidCluster(f"link {self.pairs}: latency_s is {self.latency_s}; expected a finite number >= 0")
        if not self.bytes_per_s > 0:
            raise InvalidCluster(f"link {self.pairs}: bytes_per_s is {self.bytes_per_s}; expected > 0")


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Devices and, for every ordered pair of them, a latency and a bandwidth.

    Attributes:
        devices: The devices.
        latency_s: float64 [n_devices, n_devices], 0 on the diagonal.
        bytes_per_s: float64 [n_devices, n_devices], `inf` on the diagonal.

    Raises:
        InvalidCluster: No device, a name twice, a wrong shape, a link of no speed.
    """

    devices: tuple[Device, ...]
    latency_s: FloatArray = field(repr=False)
    bytes_per_s: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        n = len(self.devices)
        if n == 0:
            raise InvalidCluster("the cluster has no devices; expected at least one")
        names = [d.name for d in self.devices]
        if len(set(names)) != n:
            raise InvalidCluster(f"device names are {names}; expected unique names")
        for name, off in (("latency_s", 0.0), ("bytes_per_s", np.inf)):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (n, n):
                raise InvalidCluster(f"{name} has shape {array.shape}; expected ({n}, {n})")
            np.fill_diagonal(array, off)
            object.__setattr__(self, name, read_only(array, np.float64))
        if not bool(np.all(np.isfinite(self.latency_s) & (self.latency_s >= 0))):
            raise InvalidCluster("latency_s holds a negative or non-finite number; expected seconds >= 0")
        if not bool(np.all(self.bytes_per_s > 0)):
            raise InvalidCluster("bytes_per_s holds a number that is not > 0")

    @property
    def n_devices(self) -> int:
        """Number of devices."""
        return len(self.devices)

    @classmethod
    def build(cls, devices: Sequence[Device], default_link: Link, links: Sequence[Link] = ()) -> "Cluster":
        """A cluster whose pairs take `default_link` unless a later link names them.

        Args:
            devices: The devices.
            default_link: For every ordered pair that no link names.
            links: Each overrides the ordered pairs it names; later ones win.

        Raises:
            InvalidCluster: A link that names an unknown device.
        """
        number = {d.name: i for i, d in enumerate(devices)}
        shape = (len(devices), len(devices))
        latency = np.full(shape, default_link.latency_s)
        speed = np.full(shape, default_link.bytes_per_s)
        for link in links:
            for pair in link.pairs:
                for name in pair:
                    if name not in number:
                        raise InvalidCluster(f"link {tuple(pair)}: " + unknown_name("device", name, number))
                a, b = (number[name] for name in pair)
                latency[a, b], speed[a, b] = link.latency_s, link.bytes_per_s
        return cls(tuple(devices), latency, speed)

    @classmethod
    def replicated(
        cls, devices: Sequence[Device], counts: Sequence[int], default_link: Link, links: Sequence[Link] = ()
    ) -> "Cluster":
        """`counts[i]` copies of each device (named name-0, name-1, ...), joined as in `build`.

        Raises:
            InvalidCluster: As `build`; also where counts and devices differ in number.
        """
        if len(devices) != len(counts):
            raise InvalidCluster(f"{len(counts)} counts for {len(devices)} devices; expected one each")
        copies = [
            replace(device, name=f"{device.name}-{i}")
            for device, count in zip(devices, counts, strict=True)
            for i in range(count)
        ]
        return cls.build(copies, default_link, links)

    @classmethod
    def uniform(cls, device: Device, n_devices: int, *, latency_s: float, bytes_per_s: float) -> "Cluster":
        """`n_devices` copies of one device (named name-0, name-1, ...), all pairs joined alike."""
        return cls.replicated([device], [n_devices], Link(latency_s, bytes_per_s))
