"""Reads a cluster from a TOML file: a table of devices, a table of nodes, the outer link between nodes.

```toml
outer = { latency_s = 30e-6, bytes_per_s = 3e9 }  # between nodes; only where there are two or more

[devices.gpu]                                     # the fields of Device; its name is the table's
peak_flops_per_s = { float32 = 67e12 }
memory_bytes_per_s = 3e12

[nodes.server]                                    # the fields of Node; its name is for error messages
count = 2
devices = { gpu = 4 }
inner = { latency_s = 5e-6, bytes_per_s = 450e9 }
```
"""

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

from placement_gym.cluster import Cluster, Device, DeviceKind, Link, Node
from placement_gym.errors import InvalidCluster, InvalidFile, unknown_name

T = TypeVar("T")
# A cluster has matrices over pairs of devices: more devices than this are a slip of the keyboard, not a machine.
MOST_DEVICES = 4096
LARGEST_COUNT = 2**31 - 1


def names() -> tuple[str, ...]:
    """The names of the presets."""
    folder = resources.files("placement_gym.presets")
    return tuple(sorted(file.name[: -len(".toml")] for file in folder.iterdir() if file.name.endswith(".toml")))


def cluster(name: str, changes: Mapping[str, Any] | None = None) -> Cluster:
    """The preset of that name.

    Args:
        name: One of `names()`.
        changes: Replaces values of the file, in its own form: {"devices": {"h100": {"memory_bytes": 40e9}}}.

    Raises:
        InvalidCluster: An unknown name.
        InvalidFile: Changes that do not fit, as `read_cluster`.
    """
    if name not in names():
        raise InvalidCluster(unknown_name("cluster", name, names()))
    text = resources.files("placement_gym.presets").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return _cluster(text, f"cluster {name}", changes or {})


def read_cluster(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Cluster:
    """The cluster that a TOML file describes; the module's first lines show its form.

    Args:
        path: The file.
        changes: Replaces values of the file, in its own form, as in `cluster`.

    Raises:
        InvalidFile: A file that is missing or no TOML, an unknown key, a value of a wrong type or out of range; the
            message names the key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidFile(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InvalidFile(f"{path}: cannot be read as text ({error})") from error
    return _cluster(text, str(path), changes or {})


def _cluster(text: str, file: str, changes: Mapping[str, Any]) -> Cluster:
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{file}: no TOML ({error})") from error
    if not isinstance(changes, Mapping):
        raise InvalidFile(f"{file}: changes is {changes!r}; expected a table")
    top = _Table(_changed(values, changes), file, "")
    top.allow("devices", "nodes", "outer")
    devices = {name: _device(name, table) for name, table in top.table("devices").tables()}
    nodes = [_node(table, devices) for _, table in top.table("nodes").tables()]
    n_devices = sum(node.count * sum(node.counts) for node in nodes)
    if n_devices > MOST_DEVICES:
        raise InvalidFile(f"{file}: {n_devices} devices; expected at most {MOST_DEVICES}")
    outer = _link(top.table("outer")) if "outer" in top.values else None
    return top.made(lambda: Cluster.of_nodes(nodes, outer))


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(values)
    for key, new in changes.items():
        old = changed.get(key)
        both = isinstance(old, Mapping) and isinstance(new, Mapping)
        changed[str(key)] = _changed(cast(Mapping[str, Any], old), new) if both else new
    return changed


def _device(name: str, table: "_Table") -> Device:
    keys = ("memory_bytes_per_s", "memory_bytes", "launch_overhead_s")
    table.allow("peak_flops_per_s", "kind", "slots", *keys)
    peaks = table.table("peak_flops_per_s")
    return table.made(
        lambda: Device(
            name,
            {dtype: peaks.number(dtype) for dtype in peaks.values},
            table.number("memory_bytes_per_s"),
            memory_bytes=table.number("memory_bytes", float("inf")),
            launch_overhead_s=table.number("launch_overhead_s", 0.0),
            kind=cast(DeviceKind, table.text("kind", "accelerator")),
            slots=table.whole("slots", 1),
        )
    )


def _node(table: "_Table", devices: Mapping[str, Device]) -> Node:
    table.allow("devices", "inner", "links", "card_bytes_per_s", "count")
    chosen = table.table("devices")
    for name in chosen.values:
        if name not in devices:
            raise chosen.wrong("", unknown_name("device", name, devices))
    counts = [chosen.whole(name) for name in chosen.values]
    count = table.whole("count", 1)
    if count * sum(counts) > MOST_DEVICES:
        raise table.wrong("", f"{count * sum(counts)} devices; expected at most {MOST_DEVICES}")

    def make() -> Node:
        node = Node(
            [devices[name] for name in chosen.values],
            counts,
            _link(table.table("inner")) if "inner" in table.values else None,
            [_link(link) for link in table.list_of_tables("links")],
            table.number("card_bytes_per_s", float("inf")),
            count,
        )
        node.cluster()  # so that an error in its links names this node
        return node

    return table.made(make)


def _link(table: "_Table") -> Link:
    table.allow("latency_s", "bytes_per_s", "pairs")
    return table.made(lambda: Link(table.number("latency_s"), table.number("bytes_per_s"), table.pairs("pairs")))


class _Table:
    """One table of a file; every getter checks a value's type and names the value's place where it is wrong."""

    def __init__(self, values: Mapping[str, Any], file: str, place: str) -> None:
        self.values = values
        self._file = file
        self._place = place

    def wrong(self, key: str, message: str) -> InvalidFile:
        place = self._at(key)
        return InvalidFile(f"{self._file}: {place + ': ' if place else ''}{message}")

    def _at(self, key: str) -> str:
        return ".".join(part for part in (self._place, key) if part)

    def made(self, make: Callable[[], T]) -> T:
        """What `make` returns; an impossible device, link or node is an error of this table."""
        try:
            return make()
        except InvalidCluster as error:
            raise self.wrong("", str(error)) from error

    def allow(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                raise self.wrong("", unknown_name("key", key, known))

    def _get(self, key: str, default: Any, expected: str) -> Any:  # noqa: ANN401  (any TOML value)
        value = self.values.get(key, default)
        if value is None:
            raise self.wrong("", f"{key!r} is missing; expected {expected}")
        return value

    def _typed(self, key: str, got: object, expected: str) -> InvalidFile:
        shown = repr(got)
        return self.wrong(key, f"got {shown if len(shown) <= 60 else shown[:57] + '...'}; expected {expected}")

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._typed(key, value, "a number")
        try:
            return float(value)
        except OverflowError as error:
            raise self.wrong(key, "the number is too large for float64") from error

    def whole(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_COUNT:
            raise self._typed(key, value, f"a whole number in 0..{LARGEST_COUNT}")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._get(key, default, "a text")
        if not isinstance(value, str):
            raise self._typed(key, value, "a text")
        return value

    def table(self, key: str) -> "_Table":
        value = self._get(key, None, "a table")
        if not isinstance(value, Mapping):
            raise self._typed(key, value, "a table")
        return _Table(value, self._file, self._at(key))

    def tables(self) -> Iterable[tuple[str, "_Table"]]:
        return [(key, self.table(key)) for key in self.values]

    def list_of_tables(self, key: str) -> list["_Table"]:
        value = self._get(key, [], "a list of tables")
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise self._typed(key, value, "a list of tables")
        return [_Table(entry, self._file, f"{self._at(key)}[{i}]") for i, entry in enumerate(value)]

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        value = self._get(key, [], "a list of pairs of names")
        if not isinstance(value, list):
            raise self._typed(key, value, "a list of pairs of names")
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
                raise self._typed(key, pair, "a pair of names")
        return tuple((a, b) for a, b in value)
