"""Problem: what every environment, baseline and simulator reads. Frozen arrays in SI units."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import FloatArray, IntArray, read_only, span
from placement_gym.cluster import Cluster
from placement_gym.costs import CostModel, RooflineCost
from placement_gym.errors import InvalidFile, InvalidGraph, InvalidProblem, unknown_name
from placement_gym.files import field_of, load_arrays, save_arrays
from placement_gym.graph import OpGraph
from placement_gym.memory import MemoryRule, why_none_fits, working_bytes

FORMAT = "placement_gym.problem.v3"
# Older formats are still read; each with what its fingerprint leaves out.
FORMATS: dict[str, tuple[str, ...]] = {
    "placement_gym.problem.v1": ("problem.device_node", "problem.memory_rule"),
    "placement_gym.problem.v2": ("problem.name", "problem.memory_rule"),
    FORMAT: ("problem.name",),
}
# The graph's own fields are saved one by one; kernels may hold code.
NOT_SAVED = ("graph", "kernels")
TEXT_FIELDS = ("name", "memory_rule", "device_names", "device_kinds", "op_names", "op_kinds", "op_dtypes")
SCALAR_FIELDS = ("name", "tick_s", "memory_rule")  # of the problem; the graph has none
DEVICE_KINDS = ("accelerator", "cpu")
# What `Problem.build` can make of a graph's bytes.
MemoryCount = Literal["live", "parameters", "parameters_and_outputs"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Problem:
    """One placement problem: an op graph, the seconds of its ops per device, the links, the memory.

    Attributes:
        name: For tables and file names.
        graph: The op graph.
        device_names: One per device.
        device_kinds: "accelerator" or "cpu" per device.
        device_slots: int32 [n_devices], ops that run at once.
        device_memory_bytes: float64 [n_devices], capacity, `inf` where unlimited.
        device_node: int32 [n_devices], number (>= 0) of each device's node (machine); equal numbers share one.
        op_time_s: float64 [n_ops, n_devices], `inf` where the device cannot run the op.
        op_memory_bytes: float64 [n_ops], what an op holds on its device throughout: its claim under the memory rule
            "claims", its parameters under "live".
        link_latency_s: float64 [n_devices, n_devices], ordered pairs (from, to).
        link_bytes_per_s: float64 [n_devices, n_devices].
        tick_s: If not 0, op times, latencies and bytes / bandwidth are whole multiples of it, and the simulator
            adds them up as whole numbers, so that what ties in a published unit ties here, too.
        memory_rule: "live" (parameters, live outputs and received copies at the worst instant of the run) or "claims"
            (the sum of the claims), see `memory.py`.
        op_working_bytes: float64 [n_ops], derived: live bytes beside parameters while an op runs, at least; 0 under
            "claims" and for ops that take no time.
        fingerprint: SHA-256 over everything but the problem's name: equal problems, equal fingerprints.

    Raises:
        InvalidProblem: A negative or NaN time, an op that no device can run, a colocation group without a common
            device, wrong shapes, or a proof that no placement can fit into memory.
    """

    name: str
    graph: OpGraph
    device_names: tuple[str, ...]
    device_kinds: tuple[str, ...]
    device_slots: IntArray
    device_memory_bytes: FloatArray
    device_node: IntArray
    op_time_s: FloatArray
    op_memory_bytes: FloatArray
    link_latency_s: FloatArray
    link_bytes_per_s: FloatArray
    tick_s: float = 0.0
    memory_rule: MemoryRule = "claims"
    op_working_bytes: FloatArray = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        n, d = self.graph.n_ops, len(self.device_names)
        if d == 0:
            raise InvalidProblem("the problem has no devices; expected at least one")
        if len(self.device_kinds) != d:
            raise InvalidProblem(f"device_kinds has {len(self.device_kinds)} entries; expected {d}")
        for device, kind in zip(self.device_names, self.device_kinds, strict=True):
            if kind not in DEVICE_KINDS:
                raise InvalidProblem(f"device {device!r}: " + unknown_name("kind", kind, DEVICE_KINDS))
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "device_slots": ((d,), np.int32),
            "device_memory_bytes": ((d,), np.float64),
            "device_node": ((d,), np.int32),
            "op_time_s": ((n, d), np.float64),
            "op_memory_bytes": ((n,), np.float64),
            "link_latency_s": ((d, d), np.float64),
            "link_bytes_per_s": ((d, d), np.float64),
        }
        for name, (shape, dtype) in shapes.items():
            array = read_only(getattr(self, name), dtype)
            if array.shape != shape:
                raise InvalidProblem(f"{name} has shape {array.shape}; expected {shape}")
            if dtype is np.int32 and not np.array_equal(array, getattr(self, name)):
                raise InvalidProblem(f"{name} is {getattr(self, name)}; expected whole numbers of int32")
            object.__setattr__(self, name, array)
        self._check_numbers()
        working = np.zeros(n)
        if self.memory_rule == "live":
            transfer_s = self.link_latency_s.max() + self.graph.edge_bytes / self.link_bytes_per_s.min()
            working = working_bytes(self.graph, self.op_time_s, float(transfer_s.sum()))
        object.__setattr__(self, "op_working_bytes", read_only(working, np.float64))
        self._check_solvable()
        object.__setattr__(self, "fingerprint", self._hash())

    def _check_numbers(self) -> None:
        names = self.graph.op_names
        wrong = np.argwhere(~(self.op_time_s >= 0))
        if wrong.size:
            i, d = (int(x) for x in wrong[0])
            raise InvalidProblem(
                f"op_time_s of op {names[i]!r} on device {self.device_names[d]!r} is {self.op_time_s[i, d]}; "
                "expected seconds >= 0, or inf where the device cannot run the op"
            )
        i_wrong = np.flatnonzero(~(np.isfinite(self.op_memory_bytes) & (self.op_memory_bytes >= 0)))
        if i_wrong.size:
            i = int(i_wrong[0])
            raise InvalidProblem(f"op_memory_bytes of op {names[i]!r} is {self.op_memory_bytes[i]}; expected >= 0")
        if self.memory_rule not in get_args(MemoryRule):
            raise InvalidProblem(unknown_name("memory rule", self.memory_rule, get_args(MemoryRule)))
        if self.memory_rule == "live" and not np.array_equal(self.op_memory_bytes, self.graph.op_parameter_bytes):
            raise InvalidProblem("op_memory_bytes are not the graph's op_parameter_bytes; expected them under 'live'")
        for d, device in enumerate(self.device_names):
            if not self.device_memory_bytes[d] > 0:
                raise InvalidProblem(f"memory of device {device!r} is {self.device_memory_bytes[d]}; expected > 0")
            if self.device_slots[d] < 1:
                raise InvalidProblem(f"slots of device {device!r} is {self.device_slots[d]}; expected >= 1")
            if self.device_node[d] < 0:
                raise InvalidProblem(f"device_node of device {device!r} is {self.device_node[d]}; expected >= 0")
        if not 0 <= self.tick_s < float("inf"):
            raise InvalidProblem(f"tick_s is {self.tick_s}; expected a finite number >= 0")
        if not bool(np.all(np.isfinite(self.link_latency_s) & (self.link_latency_s >= 0))):
            raise InvalidProblem("link_latency_s holds a negative or non-finite number; expected seconds >= 0")
        if not bool(np.all(self.link_bytes_per_s > 0)):
            raise InvalidProblem("link_bytes_per_s holds a number that is not > 0")

    def _check_solvable(self) -> None:
        can_run = np.isfinite(self.op_time_s)
        nowhere = np.flatnonzero(~can_run.any(axis=1))
        if nowhere.size:
            op = self.graph.op_names[int(nowhere[0])]
            raise InvalidProblem(f"op {op!r} can run on no device; expected a finite time on at least one")
        groups = self.graph.op_colocation
        for group in np.unique(groups[groups >= 0]):
            members = np.flatnonzero(groups == group)
            if not can_run[members].all(axis=0).any():
                first = self.graph.op_names[members[0]]
                raise InvalidProblem(f"no device can run all of colocation group {group} (first op {first!r})")
        capacity, held = self.device_memory_bytes, self.op_memory_bytes
        reason = why_none_fits(self.graph, can_run, capacity, self.device_names, held, self.op_working_bytes)
        if reason is not None:
            raise InvalidProblem(f"no placement of {self.name!r} fits into memory: {reason}")

    def _hash(self, file_format: str = FORMAT) -> str:
        digest = hashlib.sha256(file_format.encode())
        for key, value in sorted(self._arrays().items()):
            if key not in FORMATS[file_format]:
                digest.update(f"{key}:{value.dtype}:{value.shape};".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    @property
    def n_ops(self) -> int:
        """Number of ops."""
        return self.graph.n_ops

    @property
    def n_devices(self) -> int:
        """Number of devices."""
        return len(self.device_names)

    @classmethod
    def build(
        cls,
        graph: OpGraph,
        cluster: Cluster,
        *,
        costs: CostModel | None = None,
        memory: MemoryCount = "live",
        name: str = "problem",
    ) -> Problem:
        """A problem from a graph, a cluster and a cost model.

        Args:
            graph: The ops.
            cluster: The devices.
            costs: Seconds per op and device; `RooflineCost()` where not given.
            memory: "live" counts what is live at the worst instant of a run. "parameters" and
                "parameters_and_outputs" (every output kept) are static claims of the ops, without copies. See
                `memory.py`.
            name: For tables.

        Raises:
            InvalidProblem: As the class.
        """
        if memory not in get_args(MemoryCount):
            raise InvalidProblem(unknown_name("memory rule", memory, get_args(MemoryCount)))
        outputs = graph.op_output_bytes if memory == "parameters_and_outputs" else 0.0
        return cls.from_times(
            graph,
            (costs or RooflineCost()).op_time_s(graph, cluster),
            device_names=[d.name for d in cluster.devices],
            device_kinds=[d.kind for d in cluster.devices],
            device_slots=[d.slots for d in cluster.devices],
            device_memory_bytes=[d.memory_bytes for d in cluster.devices],
            op_memory_bytes=None if memory == "live" else graph.op_parameter_bytes + outputs,
            link_latency_s=cluster.latency_s,
            link_bytes_per_s=cluster.bytes_per_s,
            device_node=cluster.device_node,
            name=name,
        )

    @classmethod
    def from_times(
        cls,
        graph: OpGraph,
        op_time_s: ArrayLike,
        *,
        link_latency_s: ArrayLike = 0.0,
        link_bytes_per_s: ArrayLike = float("inf"),
        device_names: Sequence[str] | None = None,
        device_kinds: Sequence[str] | None = None,
        device_slots: ArrayLike = 1,
        device_memory_bytes: ArrayLike = float("inf"),
        op_memory_bytes: ArrayLike | None = None,
        device_node: ArrayLike | None = None,
        tick_s: float = 0.0,
        name: str = "problem",
    ) -> Problem:
        """A problem from measured or published times; scalars hold for every device or pair.

        Args:
            graph: The ops.
            op_time_s: [n_ops, n_devices].
            link_latency_s: Scalar or [n_devices, n_devices].
            link_bytes_per_s: Scalar or [n_devices, n_devices].
            device_names: "device0", ... where not given.
            device_kinds: "accelerator" where not given.
            device_slots: Scalar or [n_devices].
            device_memory_bytes: Scalar or [n_devices].
            op_memory_bytes: [n_ops], static claims (memory rule "claims"); where not given, memory is counted live.
            device_node: [n_devices], devices of equal number share a node; each has its own where not given.
            tick_s: See the class.
            name: For tables.

        Raises:
            InvalidProblem: As the class.
        """
        time = np.asarray(op_time_s, dtype=np.float64)
        if time.ndim != 2:
            raise InvalidProblem(f"op_time_s has shape {time.shape}; expected [n_ops, n_devices]")
        d = time.shape[1]
        latency, speed = (
            np.array(np.broadcast_to(np.asarray(x, dtype=np.float64), (d, d)))
            for x in (link_latency_s, link_bytes_per_s)
        )
        np.fill_diagonal(latency, 0.0)
        np.fill_diagonal(speed, np.inf)
        held = graph.op_parameter_bytes if op_memory_bytes is None else op_memory_bytes
        return cls(
            name=name,
            graph=graph,
            device_names=tuple(device_names) if device_names is not None else tuple(f"device{i}" for i in range(d)),
            device_kinds=tuple(device_kinds) if device_kinds is not None else ("accelerator",) * d,
            device_slots=np.broadcast_to(np.asarray(device_slots), d),
            device_memory_bytes=np.broadcast_to(np.asarray(device_memory_bytes, dtype=np.float64), d),
            device_node=np.asarray(np.arange(d) if device_node is None else device_node),
            op_time_s=time,
            op_memory_bytes=np.asarray(held, dtype=np.float64),
            link_latency_s=latency,
            link_bytes_per_s=speed,
            tick_s=tick_s,
            memory_rule="live" if op_memory_bytes is None else "claims",
        )

    def __repr__(self) -> str:
        kinds = [f"{self.device_kinds.count(kind)} {kind}" for kind in DEVICE_KINDS if kind in self.device_kinds]
        can_run = np.isfinite(self.op_time_s)
        pairs = ~np.eye(self.n_devices, dtype=np.bool_)
        lines = [
            f"Problem {self.name[:60]!r}: {self.n_ops} ops and {self.graph.n_edges} edges on {self.n_devices} devices "
            f"({', '.join(kinds)}) in {len(set(self.device_node.tolist()))} nodes",
            f"  op times: {span(self.op_time_s[can_run])} s; all ops, each where it is fastest: "
            f"{self.op_time_s.min(axis=1).sum():.4g} s",
            f"  memory ({self.memory_rule}): ops hold {self.op_memory_bytes.sum():.4g} bytes throughout; "
            f"a device holds {span(self.device_memory_bytes)} bytes",
            f"  links: {span(self.link_latency_s[pairs])} s, {span(self.link_bytes_per_s[pairs])} bytes/s",
            f"  slots: {span(self.device_slots)}; tick: {self.tick_s:.4g} s; fingerprint: {self.fingerprint[:12]}",
        ]
        return "\n".join(lines)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for owner, prefix in ((self, "problem."), (self.graph, "graph.")):
            for f in fields(owner):
                if f.init and f.name not in NOT_SAVED:
                    arrays[prefix + f.name] = np.array(getattr(owner, f.name))
        return arrays

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the problem to one .npz file (no pickle); an existing file is replaced only when complete.

        Raises:
            InvalidFile: The folder does not exist or cannot be written.
        """
        save_arrays(path, {"format": FORMAT, "fingerprint": self.fingerprint}, self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Problem:
        """Reads what `save` wrote.

        Raises:
            InvalidFile: The file is missing, truncated, of another format, or its content does not match its
                fingerprint.
        """
        header, arrays = load_arrays(path, "a saved problem")
        found = header.get("format")
        if found not in FORMATS:
            raise InvalidFile(f"{path}: format is {found!r}; expected {FORMAT!r}")
        if found != FORMAT:
            arrays["problem.memory_rule"] = np.array("claims")
        if "problem.device_node" in FORMATS[found] and arrays.get("problem.device_names", np.array(0)).ndim == 1:
            arrays["problem.device_node"] = np.arange(len(arrays["problem.device_names"]))

        def init_fields(owner: type[Any], prefix: str) -> dict[str, Any]:
            names = [f.name for f in fields(owner) if f.init and f.name not in NOT_SAVED]
            return {
                name: field_of(arrays, prefix + name, str(path), text=name in TEXT_FIELDS, scalar=name in SCALAR_FIELDS)
                for name in names
            }

        try:
            problem = cls(graph=OpGraph(**init_fields(OpGraph, "graph.")), **init_fields(cls, "problem."))
        except (InvalidGraph, InvalidProblem, ValueError, TypeError, IndexError, MemoryError) as error:
            raise InvalidFile(f"{path}: not a saved problem ({error})") from error
        if problem._hash(found) != header.get("fingerprint"):
            raise InvalidFile(f"{path}: the content does not match its fingerprint; the file was altered or damaged")
        return problem
