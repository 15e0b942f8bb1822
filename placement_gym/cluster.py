"""Device, Link, Node, Cluster: the machines that a network is placed on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from placement_gym.arrays import FloatArray, IntArray, read_only, span
from placement_gym.errors import InvalidCluster, unknown_name

DeviceKind = Literal["accelerator", "cpu"]


@dataclass(frozen=True, slots=True)
class Device:
    """One device: what it computes per second, what it holds, how many ops run on it at once.

    Attributes:
        name: Unique in its cluster.
        peak_flops_per_s: Peak FLOP/s per dtype name ("float32", "float16", ...).
        memory_bytes_per_s: Memory bandwidth, bytes per second.
        memory_bytes: Memory capacity, bytes (`inf` where unlimited).
        launch_overhead_s: Seconds to start one op.
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
            raise InvalidCluster(
                f"device {self.name!r}: launch_overhead_s is {self.launch_overhead_s}; expected seconds >= 0"
            )


@dataclass(frozen=True, slots=True)
class Link:
    """Latency and bandwidth between devices.

    Attributes:
        latency_s: Seconds before the first byte arrives.
        bytes_per_s: Bandwidth, bytes per second.
        pairs: Ordered pairs (source name, destination name) that it joins; empty for the default of a cluster or
            node. Where devices were copied, the name without its number means all copies: ("gpu", "gpu") is every
            ordered pair of gpu-0, gpu-1, ...

    Raises:
        InvalidCluster: A latency that is negative or infinite, a bandwidth that is not positive.
    """

    latency_s: float
    bytes_per_s: float
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple((str(a), str(b)) for a, b in self.pairs))
        if not (0 <= self.latency_s < float("inf")):
            raise InvalidCluster(f"link {self.pairs}: latency_s is {self.latency_s}; expected finite seconds >= 0")
        if not self.bytes_per_s > 0:
            raise InvalidCluster(f"link {self.pairs}: bytes_per_s is {self.bytes_per_s}; expected bytes per second > 0")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine, or several equal ones: devices that an inner link joins, and perhaps a network card.

    Attributes:
        devices: Each is copied `counts` times; copies are named name-0, name-1, ...
        counts: One per device; empty: one copy of each.
        inner: Joins every pair of the node's devices that no link names; needed from two devices on.
        links: Each overrides the ordered pairs that it names, in the node's own names; later ones win.
        card_bytes_per_s: Bandwidth of the network card that the devices share: what leaves or enters the node is
            no faster. `inf` where the outer link alone decides.
        count: How many such machines.

    Raises:
        InvalidCluster: No device, a count that is no whole number, two devices or more without an inner link, a card of
            no speed.
    """

    devices: Sequence[Device]
    counts: Sequence[int] = ()
    inner: Link | None = None
    links: Sequence[Link] = ()
    card_bytes_per_s: float = float("inf")
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("devices", "counts", "links"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_whole("count of the node", self.count, least=1)
        if not self.card_bytes_per_s > 0:
            raise InvalidCluster(f"card_bytes_per_s is {self.card_bytes_per_s}; expected bytes per second > 0")
        n = len(_copies(self.devices, self.counts))
        if n == 0:
            raise InvalidCluster("the node has no devices; expected at least one")
        if n > 1 and self.inner is None:
            raise InvalidCluster(f"a node of {n} devices has no inner link; expected one")

    def cluster(self) -> "Cluster":
        """A cluster of one such machine.

        Raises:
            InvalidCluster: A link that names an unknown device.
        """
        copies = _copies(self.devices, self.counts)
        latency, speed = _joined(copies, self.inner or Link(0.0, float("inf")), self.links, self.devices)
        return Cluster(tuple(copies), latency, speed, np.zeros(len(copies), dtype=np.int32))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cluster:
    """Devices and, for every ordered pair of them, a latency and a bandwidth.

    Attributes:
        devices: The devices.
        latency_s: float64 [n_devices, n_devices], 0 on the diagonal.
        bytes_per_s: float64 [n_devices, n_devices], `inf` on the diagonal.
        device_node: int32 [n_devices], the number of the node that a device is part of; empty: each device is a
            node of its own.

    Raises:
        InvalidCluster: No device, a name twice, a wrong shape, a link of no speed, a negative node number.
    """

    devices: tuple[Device, ...]
    latency_s: FloatArray
    bytes_per_s: FloatArray
    device_node: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int32))

    def __repr__(self) -> str:
        names, pairs = [d.name for d in self.devices], ~np.eye(len(self.devices), dtype=bool)
        memory = span(np.array([d.memory_bytes for d in self.devices]))
        return (
            f"Cluster of {len(names)} devices in {len(set(self.device_node.tolist()))} nodes: {', '.join(names[:8])}"
            f"{', ...' if len(names) > 8 else ''}\n"
            f"  memory of a device: {memory} bytes\n"
            f"  links: {span(self.latency_s[pairs])} s, {span(self.bytes_per_s[pairs])} bytes/s"
        )

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
        for name, right, expected in (
            ("latency_s", np.isfinite(self.latency_s) & (self.latency_s >= 0), "finite seconds >= 0"),
            ("bytes_per_s", self.bytes_per_s > 0, "bytes per second > 0"),
        ):
            for a, b in np.argwhere(~right):
                got = f"{name} from {names[a]!r} to {names[b]!r} is {getattr(self, name)[a, b]}"
                raise InvalidCluster(f"{got}; expected {expected}")
        node = np.asarray(self.device_node)
        node = node if node.size else np.arange(n, dtype=np.int32)
        if node.shape != (n,) or node.dtype.kind not in "iu":
            raise InvalidCluster(f"device_node is {node.dtype} {list(node.shape)}; expected int32 [{n}]")
        if node.min() < 0 or node.max() > np.iinfo(np.int32).max:
            raise InvalidCluster(f"device_node holds {node.min()} to {node.max()}; expected numbers from 0 on")
        object.__setattr__(self, "device_node", read_only(node, np.int32))

    @property
    def n_devices(self) -> int:
        """Number of devices."""
        return len(self.devices)

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(np.unique(self.device_node))

    @classmethod
    def build(cls, devices: Sequence[Device], default_link: Link, links: Sequence[Link] = ()) -> "Cluster":
        """A cluster whose pairs take `default_link` unless a later link names them; each device is its own node.

        Args:
            devices: The devices.
            default_link: For every ordered pair that no link names.
            links: Each overrides the ordered pairs it names; later ones win.

        Raises:
            InvalidCluster: A link that names an unknown device.
        """
        return cls(tuple(devices), *_joined(devices, default_link, links, ()))

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
        copies = _copies(devices, counts)
        return cls(tuple(copies), *_joined(copies, default_link, links, devices))

    @classmethod
    def uniform(cls, device: Device, n_devices: int, *, latency_s: float, bytes_per_s: float) -> "Cluster":
        """`n_devices` copies of one device (named name-0, name-1, ...), all pairs joined alike."""
        return cls.replicated([device], [n_devices], Link(latency_s, bytes_per_s))

    @classmethod
    def of_nodes(cls, nodes: Sequence[Node], outer: Link | None = None) -> "Cluster":
        """A cluster of machines: an inner link inside each, an outer link between them.

        Copies of a device are numbered through all nodes: two nodes of four gpu hold gpu-0 to gpu-7. The bandwidth
        between two nodes is the least of the outer link's and both network cards'.

        Args:
            nodes: The machines; one entry may stand for several (`Node.count`).
            outer: Joins every pair of devices of different nodes; needed from two nodes on.

        Raises:
            InvalidCluster: There is no node, two nodes or more have no outer link, or a link names an unknown device.
        """
        machines = [(part, node.card_bytes_per_s) for node in nodes for part in [node.cluster()] * node.count]
        if not machines:
            raise InvalidCluster("the cluster has no nodes; expected at least one")
        if len(machines) > 1 and outer is None:
            raise InvalidCluster(f"a cluster of {len(machines)} nodes has no outer link; expected one")
        outer = outer or Link(0.0, float("inf"))
        sizes = [part.n_devices for part, _ in machines]
        device_node = np.repeat(np.arange(len(machines), dtype=np.int32), sizes)
        card = np.array([card for _, card in machines])[device_node]
        latency = np.full((len(card), len(card)), outer.latency_s)
        speed = np.minimum(outer.bytes_per_s, np.minimum(card[:, None], card[None, :]))
        end = np.cumsum(sizes)
        for (part, _), a, b in zip(machines, end - sizes, end, strict=True):
            latency[a:b, a:b], speed[a:b, a:b] = part.latency_s, part.bytes_per_s
        originals = [d for node in nodes for _ in range(node.count) for d in _each(node.devices, node.counts)]
        return cls(tuple(_numbered(originals)), latency, speed, device_node)


def _each(devices: Sequence[Device], counts: Sequence[int]) -> list[Device]:
    """Every device as often as its count says; once, where no counts are given."""
    counts = tuple(counts) or (1,) * len(devices)
    if len(counts) != len(devices):
        raise InvalidCluster(f"{len(counts)} counts for {len(devices)} devices; expected one each")
    for device, count in zip(devices, counts, strict=True):
        _check_whole(f"count of device {device.name!r}", count, least=0)
    return [device for device, count in zip(devices, counts, strict=True) for _ in range(count)]


def _check_whole(what: str, got: object, *, least: int) -> None:
    if isinstance(got, bool) or not isinstance(got, (int, np.integer)) or got < least:
        raise InvalidCluster(f"{what} is {got!r}; expected a whole number >= {least}")


def _numbered(devices: Iterable[Device]) -> list[Device]:
    """The devices with names that end in the number of their kind: name-0, name-1, ..."""
    seen: Counter[str] = Counter()
    named = []
    for device in devices:
        named.append(replace(device, name=f"{device.name}-{seen[device.name]}"))
        seen[device.name] += 1
    return named


def _copies(devices: Sequence[Device], counts: Sequence[int]) -> list[Device]:
    return _numbered(_each(devices, counts))


def _joined(
    devices: Sequence[Device], default: Link, links: Sequence[Link], originals: Sequence[Device]
) -> tuple[FloatArray, FloatArray]:
    """Latency and bandwidth of every pair; the name of an original stands for all its copies."""
    members = {
        original.name: [i for i, d in enumerate(devices) if d.name.rpartition("-")[0] == original.name]
        for original in originals
    }
    members |= {d.name: [i] for i, d in enumerate(devices)}
    latency = np.full((len(devices), len(devices)), default.latency_s)
    speed = np.full((len(devices), len(devices)), default.bytes_per_s)
    for link in links:
        for pair in link.pairs:
            for name in pair:
                if name not in members:
                    raise InvalidCluster(
                        f"link {tuple(pair)}: " + unknown_name("device", name, [d.name for d in devices])
                    )
            chosen = np.ix_(*(members[name] for name in pair))
            latency[chosen], speed[chosen] = link.latency_s, link.bytes_per_s
    return latency, speed
