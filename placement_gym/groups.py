"""Groups: ops that move together (a colocation group, or one op), and what a search needs to know of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
from numba import njit

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.errors import MissingDependency
from placement_gym.problem import Problem

# Groups that one call of `Groups.random` places at most in all its tries.
MOST_STEPS = 30_000


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The groups of a problem; colocation and support hold for whatever a search does with them.

    Attributes:
        op_group: int32 [n_ops], group of each op; groups are numbered by their first op in topological order.
        start: int32 [n_groups + 1], `ops[start[u]:start[u + 1]]` belong to group u.
        ops: int32 [n_ops].
        allowed: bool [n_groups, n_devices], whether the device can run all ops of the group.
        memory_bytes: float64 [n_groups], what the group holds throughout (`Problem.op_memory_bytes`).
        working_bytes: float64 [n_groups], live bytes beside them while an op of the group runs, at least.
    """

    op_group: IntArray
    start: IntArray
    ops: IntArray
    allowed: BoolArray
    memory_bytes: FloatArray
    working_bytes: FloatArray

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.memory_bytes)

    @classmethod
    def of(cls, problem: Problem) -> "Groups":
        """The groups of a problem: colocation groups, and ops that belong to none."""
        groups = problem.graph.op_colocation.tolist()
        return cls.by_key(problem, [group if group >= 0 else -1 - op for op, group in enumerate(groups)])

    @classmethod
    def acyclic(cls, problem: Problem) -> "Groups":
        """Groups between which there is an order: those that wait for each other in a circle are one group."""
        graph, single = problem.graph, cls.of(problem)
        between: nx.DiGraph[int] = nx.DiGraph()
        between.add_nodes_from(range(single.n_groups))
        ends = (single.op_group[graph.edge_src].tolist(), single.op_group[graph.edge_dst].tolist())
        between.add_edges_from(zip(*ends, strict=True))
        fused = {u: i for i, circle in enumerate(nx.strongly_connected_components(between)) for u in circle}
        return cls.by_key(problem, [fused[u] for u in single.op_group.tolist()])

    @classmethod
    def together(cls, problem: Problem, op_key: IntArray) -> "Groups":
        """The groups whose ops share a key, int [n_ops], or a colocation group, or both with a third op."""
        keys, colocation = [("key", key) for key in op_key.tolist()], problem.graph.op_colocation.tolist()
        shared: nx.Graph[tuple[str, int]] = nx.Graph()
        shared.add_nodes_from(keys)
        shared.add_edges_from(
            (key, ("group", group)) for key, group in zip(keys, colocation, strict=True) if group >= 0
        )
        number = {key: i for i, part in enumerate(nx.connected_components(shared)) for key in part}
        return cls.by_key(problem, [number[key] for key in keys])

    @classmethod
    def single(cls, problem: Problem) -> "Groups":
        """Every op by itself, whatever its colocation group."""
        return cls.by_key(problem, range(problem.n_ops))

    def keeping_outputs(self, problem: Problem) -> "Groups":
        """The same groups as if every output stayed to the end of the run: on the safer side of what a run holds."""
        memory = self.memory_bytes.copy()
        np.add.at(memory, self.op_group, problem.graph.op_output_bytes)
        return replace(self, memory_bytes=memory, working_bytes=np.zeros(self.n_groups))

    def ways_to_fit(self, problem: Problem) -> list["Groups"]:
        """What a method that builds one placement may try: these groups, then `keeping_outputs` where that may help."""
        live = problem.graph.op_output_bytes.sum() + problem.graph.edge_bytes.sum()
        may_help = self.memory_bytes.sum() + live > problem.device_memory_bytes.min()
        return [self, self.keeping_outputs(problem)] if problem.memory_rule == "live" and may_help else [self]

    @classmethod
    def by_key(cls, problem: Problem, op_key: Sequence[int]) -> "Groups":
        """The groups whose ops share a key, a value for each op."""
        number: dict[int, int] = {}
        op_group = np.zeros(problem.n_ops, dtype=np.int32)
        for op in problem.graph.order.tolist():
            op_group[op] = number.setdefault(op_key[op], len(number))
        ops = np.argsort(op_group, kind="stable").astype(np.int32)
        start = np.concatenate([[0], np.cumsum(np.bincount(op_group))]).astype(np.int32)
        allowed = np.ones((len(number), problem.n_devices), dtype=np.bool_)
        np.logical_and.at(allowed, op_group, np.isfinite(problem.op_time_s))
        memory, working = np.zeros(len(number)), np.zeros(len(number))
        np.add.at(memory, op_group, problem.op_memory_bytes)
        np.maximum.at(working, op_group, problem.op_working_bytes)
        return cls(op_group, start, ops, allowed, memory, working)

    def op_device(self, group_device: IntArray) -> IntArray:
        """int32 [n_ops] from int32 [n_groups]."""
        return np.ascontiguousarray(group_device[self.op_group], dtype=np.int32)

    def group_device(self, op_device: IntArray) -> IntArray:
        """int32 [n_groups] from int32 [n_ops]."""
        return np.ascontiguousarray(op_device[self.ops[self.start[:-1]]], dtype=np.int32)

    def random(self, problem: Problem, rng: np.random.Generator, *, n_tries: int = 200) -> IntArray:
        """int32 [n_groups]: each group on a random device that can run it and has room for it, largest groups first.

        If none of `n_tries` (fewer where there are thousands of groups) has room for all, the one of the least excess.
        """
        largest = self.memory_bytes + self.working_bytes
        if self.memory_bytes.sum() + self.working_bytes.max() <= problem.device_memory_bytes.min():
            # Nothing speaks against any device: the largest of random keys among the allowed ones is an even draw.
            keys = np.where(self.allowed, rng.random(self.allowed.shape), -1.0)
            return np.asarray(np.argmax(keys, axis=1), dtype=np.int32)
        least: tuple[float, IntArray] | None = None
        for _ in range(max(1, min(n_tries, MOST_STEPS // self.n_groups))):
            room, chosen = Room(self, problem), np.zeros(self.n_groups, dtype=np.int32)
            order = np.argsort(-largest * rng.uniform(0.8, 1.0, self.n_groups), kind="stable")
            capacity, held, working = np.array(room.capacity), room.held, room.working
            _draw(rng, order, self.allowed, self.memory_bytes, self.working_bytes, capacity, held, working, chosen)
            if least is None or room.excess_bytes < least[0]:
                least = room.excess_bytes, chosen
            if room.excess_bytes == 0:
                break
        assert least is not None
        return least[1]


def metis_parts(problem: Problem, n_parts: int, *, seed: int = 0) -> IntArray:
    """int32 [n_ops]: at most so many parts of about equal work and few bytes between them, by METIS.

    Karypis and Kumar, SIAM J. Sci. Comput. 20(1), 1998. An op weighs its mean time, an edge its bytes.

    Raises:
        MissingDependency: pymetis is not installed.
    """
    try:
        import pymetis
    except ImportError as error:
        raise MissingDependency("groups='metis' needs the package pymetis: pip install placement-gym[metis]") from error
    graph, n = problem.graph, problem.n_ops
    if n <= n_parts:
        return np.arange(n, dtype=np.int32)
    able = np.isfinite(problem.op_time_s)
    time = np.where(able, problem.op_time_s, 0.0).sum(axis=1) / able.sum(axis=1)
    bytes_between: dict[tuple[int, int], float] = {}
    for a, b, size in zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), graph.edge_bytes.tolist(), strict=True):
        for pair in ((a, b), (b, a)):
            bytes_between[pair] = bytes_between.get(pair, 0.0) + size
    pairs = sorted(bytes_between)
    start = np.concatenate([[0], np.cumsum(np.bincount([a for a, _ in pairs], minlength=n))])

    def whole(weights: list[float]) -> list[int]:
        """Weights as METIS takes them: whole numbers from 1 on."""
        most = max(weights, default=0.0) or 1.0
        return [1 + round(1000 * weight / most) for weight in weights]

    _, part = pymetis.part_graph(
        n_parts,
        pymetis.CSRAdjacency(start.tolist(), [b for _, b in pairs]),
        vweights=whole(time.tolist()),
        eweights=whole([bytes_between[pair] for pair in pairs]),
        options=pymetis.Options(seed=seed),
    )
    return np.asarray(part, dtype=np.int32)


@njit(cache=True, error_model="numpy")
def _draw(
    rng: np.random.Generator,
    order: np.ndarray,
    allowed: np.ndarray,
    group_memory: np.ndarray,
    group_working: np.ndarray,
    capacity: np.ndarray,
    held: np.ndarray,
    working: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Puts each group, in this order, on one of the devices that `Room.open_to` names, at random.

    Writes them into `chosen`, and the bytes of the devices into `held` and `working`, as `Room.put` does.
    """
    open_to = np.empty(capacity.size, np.int32)
    for u in order:
        n_open, least = 0, np.inf
        for d in range(capacity.size):
            over = max(0.0, held[d] + group_memory[u] + max(working[d], group_working[u]) - capacity[d])
            if allowed[u, d] and (over == 0.0 or over < least):
                # The first that has room takes the place of those that have none.
                n_open = n_open if least == 0.0 else 0
                open_to[n_open] = d
                n_open, least = n_open + 1, over
        device = open_to[rng.integers(0, n_open)]
        chosen[u] = device
        held[device] += group_memory[u]
        working[device] = max(working[device], group_working[u])


class Room:
    """What devices have room for while groups are placed one by one, as far as that is known before a run.

    Under the memory rule "claims" that is all; under "live" a run may hold more.
    """

    def __init__(self, groups: Groups, problem: Problem, group_device: IntArray | None = None) -> None:
        self.groups, self.capacity = groups, problem.device_memory_bytes
        self.held, self.working = np.zeros(problem.n_devices), np.zeros(problem.n_devices)
        for u, device in enumerate([] if group_device is None else group_device.tolist()):
            self.put(u, device)

    def _excess(self, u: int) -> FloatArray:
        """float64 [n_devices]: bytes over the capacity of each device if the group went there."""
        working = np.maximum(self.working, self.groups.working_bytes[u])
        return np.asarray(np.maximum(0.0, self.held + self.groups.memory_bytes[u] + working - self.capacity))

    def fits(self, u: int) -> BoolArray:
        """Bool [n_devices]: which devices can run group u and have room for it."""
        return np.asarray(self.groups.allowed[u] & (self._excess(u) == 0))

    def open_to(self, u: int) -> IntArray:
        """The devices that fit group u or, where there are none, the one of those that can run it that lacks least."""
        fits = np.flatnonzero(self.fits(u))
        if fits.size:
            return fits.astype(np.int32)
        return np.array([np.argmin(np.where(self.groups.allowed[u], self._excess(u), np.inf))], dtype=np.int32)

    def put(self, u: int, device: int) -> None:
        """Puts group u on a device."""
        self.held[device] += self.groups.memory_bytes[u]
        self.working[device] = max(self.working[device], self.groups.working_bytes[u])

    @property
    def excess_bytes(self) -> float:
        """Bytes over capacity, all devices together."""
        return float(np.maximum(0.0, self.held + self.working - self.capacity).sum())
