"""Readers of published instances: DOPPLER, DNN partitioning, DAPPLE, neutral JSON. All return a Problem in SI units."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from placement_gym.errors import InvalidFile, InvalidGraph, InvalidProblem
from placement_gym.graph import OpGraph
from placement_gym.problem import Problem

PathLike = str | os.PathLike[str]

# No published instance has more than 16. A damaged count must not fill the memory.
MOST_DEVICES = 1024


@contextmanager
def _reading(path: PathLike, expected: str) -> Iterator[str]:
    """The text of a file; whatever is wrong with it becomes an InvalidFile that names the file."""
    try:
        yield Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidFile(f"{path}: no such file; expected {expected}") from error
    except KeyError as error:
        raise InvalidFile(f"{path}: field {error} is missing; expected {expected}") from error
    except (
        *(OSError, ValueError, TypeError, IndexError, AttributeError, InvalidGraph, InvalidProblem),
        *(OverflowError, MemoryError, RecursionError),
    ) as error:
        raise InvalidFile(f"{path}: {error}; expected {expected}") from error


def _numbers(line: str, where: str, kind: type[int] | type[float]) -> list[Any]:
    try:
        return [kind(part) for part in line.split(",") if part.strip()]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _whole(value: Any, what: str) -> int:  # noqa: ANN401  (whatever a JSON file holds)
    """The whole number that a file gives, as a number or as text."""
    try:
        number = int(value)
        if isinstance(value, str) or number == value:
            return number
    except (OverflowError, ValueError, TypeError):
        pass
    raise ValueError(f"{what} is {str(value)[:40]!r}; a whole number is needed")


def _numbered(ids: Iterable[Any]) -> dict[Any, int]:
    """The position of each id; refuses an id that two nodes have."""
    number: dict[Any, int] = {}
    for i, one in enumerate(ids):
        if number.setdefault(one, i) != i:
            raise ValueError(f"two nodes have the id {one!r}")
    return number


def _unique(names: Sequence[str]) -> list[str]:
    """The same names, those that repeat with their position appended, and again where that is a name already."""
    count = Counter(names)
    taken = set(count)
    unique = []
    for i, name in enumerate(names):
        if count[name] > 1:
            while name in taken:
                name = f"{name}#{i}"
            taken.add(name)
        unique.append(name)
    return unique


def read_doppler(path: PathLike, *, n_devices: int = 4) -> Problem:
    """A graph file of DOPPLER (arXiv 2505.23131): makespan_s is the published value, whose unit is arbitrary.

    Op time and transfer time of an edge are compute and communication (of the edge's tail) / 1e10. The published
    simulator adds whole numbers, so the problem's tick is 1e-10 s: what it sees at one instant stays at one.

    Args:
        path: The file (lines: number of nodes, input ids, edge tails, edge heads, then one op per line).
        n_devices: Devices, all alike.

    Raises:
        InvalidFile: The file is missing, truncated or malformed; the message says where.
    """
    with _reading(path, "a DOPPLER graph file") as text:
        lines = text.splitlines()
        if len(lines) < 5:
            raise ValueError(f"the file has {len(lines)} lines (at least 5 are needed)")
        n_nodes = _numbers(lines[0], "line 1", int)[0]
        inputs, tails, heads = (_numbers(lines[i], f"line {i + 1}", int) for i in (1, 2, 3))
        if len(tails) != len(heads):
            raise ValueError(f"line 3 has {len(tails)} edge tails and line 4 {len(heads)} edge heads")
        rows = [(i + 5, line.split(",")) for i, line in enumerate(lines[4:]) if line.strip()]
        if len(rows) != n_nodes - len(inputs):
            raise ValueError(f"{len(rows)} op lines for {n_nodes} nodes of which {len(inputs)} are inputs")
        for number, row in rows:
            if len(row) < 3:
                raise ValueError(f"line {number} has {len(row)} fields ('compute, communication, kind')")
        compute = np.array([float(row[0]) for _, row in rows])
        communication = [float(row[1]) for _, row in rows]
        for e, (a, b) in enumerate(zip(tails, heads, strict=True)):
            if not (0 <= a < len(rows) and 0 <= b < len(rows)):
                raise ValueError(f"edge {e} joins ops {a} and {b}; op ids are 0..{len(rows) - 1}")
        graph = OpGraph.build(
            [str(i) for i in range(len(rows))],
            [(a, b, communication[a]) for a, b in zip(tails, heads, strict=True)],
            kinds=[row[2].strip() for _, row in rows],
        )
        return Problem.from_times(
            graph,
            np.repeat(compute[:, None] / 1e10, n_devices, axis=1),
            link_bytes_per_s=1e10,
            op_memory_bytes=np.zeros(len(rows)),
            tick_s=1e-10,
            name=Path(path).stem,
        )


def read_dnn_partitioning(path: PathLike) -> Problem:
    """An instance of "Efficient Algorithms for Device Placement" (arXiv 2006.16423).

    Devices are `maxFPGAs` accelerators, then `maxCPUs` CPUs without memory limit; file times are milliseconds.
    The cost of an op's edges is its transfer time, given as bytes on links of 1 byte/s; CPU to CPU is free, as
    in the paper. Nodes of one colorClass are colocated; an op claims its `size`.

    Raises:
        InvalidFile: The file is missing or malformed, or the edges out of one op have unequal costs.
    """
    with _reading(path, "a dnn-partitioning instance") as text:
        data = json.loads(text)
        nodes = data["nodes"]
        n_fpgas, n_cpus = (_whole(data[name], name) for name in ("maxFPGAs", "maxCPUs"))
        if min(n_fpgas, n_cpus) < 0 or n_fpgas + n_cpus > MOST_DEVICES:
            raise ValueError(f"maxFPGAs is {n_fpgas} and maxCPUs {n_cpus} (together at most {MOST_DEVICES})")
        number = _numbered(_whole(node["id"], "the id of a node") for node in nodes)
        cost_s: dict[int, float] = {}
        edges = []
        for edge in data["edges"]:
            a, b = (number[_whole(edge[end], end)] for end in ("sourceId", "destId"))
            cost = float(edge["cost"]) * 1e-3
            if abs(cost_s.setdefault(a, cost) - cost) > 1e-9:
                raise ValueError(f"edges out of op {nodes[a].get('name', a)!r} cost {cost_s[a]} s and {cost} s")
            edges.append((a, b, cost_s[a]))
        classes: dict[int, list[int]] = {}
        for i, node in enumerate(nodes):
            if "colorClass" in node:
                classes.setdefault(_whole(node["colorClass"], "a colorClass"), []).append(i)
        colocation = np.full(len(nodes), -1)
        for group, members in enumerate(m for m in classes.values() if len(m) > 1):
            colocation[members] = group
        size = np.array([float(node.get("size", 0.0)) for node in nodes])
        graph = OpGraph.build(
            _unique([str(node.get("name", node["id"])) for node in nodes]),
            edges,
            parameter_bytes=size,
            output_bytes=0.0,
            is_backward=[bool(node.get("isBackwardNode", 0)) for node in nodes],
            colocation=colocation,
        )
        on_fpga = [float(n["fpgaLatency"]) * 1e-3 if n.get("supportedOnFpga", 1) else np.inf for n in nodes]
        on_cpu = [float(n["cpuLatency"]) * 1e-3 for n in nodes]
        speed = np.ones((n_fpgas + n_cpus, n_fpgas + n_cpus))
        speed[n_fpgas:, n_fpgas:] = np.inf
        return Problem.from_times(
            graph,
            np.array([on_fpga] * n_fpgas + [on_cpu] * n_cpus).T,
            link_bytes_per_s=speed,
            device_names=[f"accelerator{i}" for i in range(n_fpgas)] + [f"cpu{i}" for i in range(n_cpus)],
            device_kinds=["accelerator"] * n_fpgas + ["cpu"] * n_cpus,
            device_memory_bytes=[float(data["maxSizePerFPGA"])] * n_fpgas + [np.inf] * n_cpus,
            op_memory_bytes=size,
            name=Path(path).stem,
        )


_DAPPLE_NODE = re.compile(
    r"^\s*(\w+) -- (.*) -- forward_compute_time=([^,]+), backward_compute_time=([^,]+), "
    r"activation_size=([^,]+), parameter_size=([^,\s]+)\s*$"
)
_DAPPLE_EDGE = re.compile(r"^\s*(\w+) -- (\w+)\s*$")


def _total(text: str) -> float:
    """The number, or the sum of a list "[a; b]" (a layer with several outputs)."""
    return sum(float(part) for part in text.strip("[] ").split(";"))


def read_dapple(
    path: PathLike,
    *,
    n_devices: int = 8,
    devices_per_machine: int = 8,
    training: bool = False,
    memory_bytes: float = 16e9,
    nvlink_bytes_per_s: float = 25e9,
    ethernet_bytes_per_s: float = 1e9,
) -> Problem:
    """A layer profile of DAPPLE measured on V100; defaults are its planner's constants.

    An input (a layer named "input..." that reads no other) takes no time: the file's is that of loading data.

    Args:
        path: The profile (times in milliseconds, sizes in bytes).
        n_devices: Devices, all alike.
        devices_per_machine: Devices i and j share a machine (NVLink) if i // this == j // this.
        training: Adds the mirrored backward ops, each colocated with its layer.
        memory_bytes: Capacity per device; a layer claims its weights and activations throughout.
        nvlink_bytes_per_s: Within a machine.
        ethernet_bytes_per_s: Between machines.

    Raises:
        InvalidFile: The file is missing or malformed; the message says which line.
    """
    with _reading(path, "a DAPPLE layer profile") as text:
        rows: list[tuple[str, float, float, float, float]] = []
        number: dict[str, int] = {}
        pairs: list[tuple[int, int]] = []
        for i, line in enumerate(text.splitlines(), start=1):
            node, edge = _DAPPLE_NODE.match(line), _DAPPLE_EDGE.match(line)
            if node:
                if node[1] in number:
                    raise ValueError(f"line {i}: two layers have the id {node[1]!r}")
                number[node[1]] = len(rows)
                forward_ms, backward_ms, activation_bytes, weight_bytes = (_total(x) for x in node.groups()[2:])
                rows.append((f"{node[1]} {node[2].strip()}", forward_ms, backward_ms, activation_bytes, weight_bytes))
            elif edge and edge[1] in number and edge[2] in number:
                pairs.append((number[edge[1]], number[edge[2]]))
            elif line.strip():
                raise ValueError(f"line {i} is neither a layer nor an edge between layers: {line.strip()[:80]!r}")
        if not rows:
            raise ValueError("no layers")
        readers = {b for _, b in pairs}
        for k, (name, _, _, activation_bytes, weight_bytes) in enumerate(rows):
            if k not in readers and name.partition(" ")[2].lower().startswith("input"):
                rows[k] = (name, 0.0, 0.0, activation_bytes, weight_bytes)
        names, forward, backward, activation, parameters = zip(*rows, strict=True)
        graph, time_s = _layers(
            list(names),
            pairs,
            np.array(activation),
            np.array(parameters),
            np.array(forward) * 1e-3,
            np.array(backward) * 1e-3 if training else None,
        )
        machine = np.arange(n_devices) // devices_per_machine
        return Problem.from_times(
            graph,
            np.repeat(time_s[:, None], n_devices, axis=1),
            link_bytes_per_s=np.where(machine[:, None] == machine, nvlink_bytes_per_s, ethernet_bytes_per_s),
            device_memory_bytes=memory_bytes,
            op_memory_bytes=graph.op_parameter_bytes + graph.op_output_bytes,
            name=Path(path).stem,
        )


def read_graph(
    path: PathLike,
    *,
    n_devices: int,
    bytes_per_s: float,
    latency_s: float,
    training: bool = False,
    memory_bytes: float = float("inf"),
) -> Problem:
    """A graph in neutral JSON (nodes with time, output and parameter bytes; edges with bytes).

    Args:
        path: The file; `time_unit` in it is "us", "ms" or "s".
        n_devices: Devices, all alike.
        bytes_per_s: Bandwidth of every ordered pair.
        latency_s: Latency of every ordered pair.
        training: Adds the mirrored backward ops (`bwd_time`), each colocated with its forward op.
        memory_bytes: Capacity per device.

    Raises:
        InvalidFile: The file is missing or malformed.
    """
    with _reading(path, "a graph in neutral JSON") as text:
        data = json.loads(text)
        units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
        if data["time_unit"] not in units:
            raise ValueError(f"time_unit is {data['time_unit']!r} (known: {', '.join(units)})")
        unit, nodes = units[data["time_unit"]], data["nodes"]
        number = _numbered(node["id"] for node in nodes)
        names = _unique([str(node.get("name", node["id"])) for node in nodes])
        graph, time_s = _layers(
            names,
            [(number[e["src"]], number[e["dst"]]) for e in data["edges"]],
            np.array([float(node["output_bytes"]) for node in nodes]),
            np.array([float(node.get("param_bytes", 0.0)) for node in nodes]),
            np.array([float(node["time"]) for node in nodes]) * unit,
            np.array([float(node["bwd_time"]) for node in nodes]) * unit if training else None,
            kinds=[str(node.get("op", "op")) for node in nodes],
            edge_bytes=[float(e["bytes"]) for e in data["edges"]],
        )
        return Problem.from_times(
            graph,
            np.repeat(time_s[:, None], n_devices, axis=1),
            link_latency_s=latency_s,
            link_bytes_per_s=bytes_per_s,
            device_memory_bytes=memory_bytes,
            name=str(data.get("name", Path(path).stem)),
        )


def _layers(
    names: list[str],
    pairs: list[tuple[int, int]],
    output_bytes: np.ndarray[Any, Any],
    parameter_bytes: np.ndarray[Any, Any],
    forward_s: np.ndarray[Any, Any],
    backward_s: np.ndarray[Any, Any] | None,
    *,
    kinds: list[str] | None = None,
    edge_bytes: list[float] | None = None,
) -> tuple[OpGraph, np.ndarray[Any, Any]]:
    """(graph, seconds per op) of a layer graph; with `backward_s`, of its training step.

    The backward op of a layer reads the layer's output and, from each reader of the layer, a gradient as large
    as that output; the parameters' gradients are held beside the parameters.
    """
    n = len(names)
    edges = [(a, b, float(output_bytes[a]) if edge_bytes is None else edge_bytes[i]) for i, (a, b) in enumerate(pairs)]
    if backward_s is None:
        return OpGraph.build(
            names, edges, kinds=kinds, parameter_bytes=parameter_bytes, output_bytes=output_bytes
        ), forward_s
    back = [(n + b, n + a, size) for a, b, size in edges]
    keep = [(i, n + i, float(output_bytes[i])) for i in range(n)]
    graph = OpGraph.build(
        _unique([*names, *(f"{name} (backward)" for name in names)]),
        [*edges, *keep, *back],
        kinds=[*(kinds or ["op"] * n), *(f"{kind}_backward" for kind in kinds or ["op"] * n)],
        parameter_bytes=np.concatenate([parameter_bytes, parameter_bytes]),
        output_bytes=np.concatenate([output_bytes, output_bytes]),
        is_backward=[False] * n + [True] * n,
        colocation=np.concatenate([np.arange(n), np.arange(n)]),
    )
    return graph, np.concatenate([forward_s, backward_s])
