"""Groups: ops that move together (a colocation group, or one op), and what a search needs to know of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.errors import InfeasiblePlacement
from placement_gym.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The units of a problem; colocation and support hold for whatever a search does with them.

    Attributes:
        op_unit: int32 [n_ops], unit of each op; units are numbered by their first op in topological order.
        start: int32 [n_units + 1], `ops[start[u]:start[u + 1]]` belong to unit u.
        ops: int32 [n_ops].
        allowed: bool [n_units, n_devices], whether the device can run all ops of the unit.
        memory_bytes: float64 [n_units], what the unit claims.
    """

    op_unit: IntArray
    start: IntArray
    ops: IntArray
    allowed: BoolArray
    memory_bytes: FloatArray

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.memory_bytes)

    @classmethod
    def of(cls, problem: Problem) -> "Groups":
        """The units of a problem: colocation groups, and ops that belong to none."""
        groups = problem.graph.op_colocation.tolist()
        return cls.by_key(problem, [group if group >= 0 else -1 - op for op, group in enumerate(groups)])

    @classmethod
    def acyclic(cls, problem: Problem) -> "Groups":
        """Groups between which there is an order: those that wait for each other in a circle are one unit."""
        graph, single = problem.graph, cls.of(problem)
        between: nx.DiGraph[int] = nx.DiGraph()
        between.add_nodes_from(range(single.n_units))
        ends = (single.op_unit[graph.edge_src].tolist(), single.op_unit[graph.edge_dst].tolist())
        between.add_edges_from(zip(*ends, strict=True))
        fused = {u: i for i, circle in enumerate(nx.strongly_connected_components(between)) for u in circle}
        return cls.by_key(problem, [fused[u] for u in single.op_unit.tolist()])

    @classmethod
    def single(cls, problem: Problem) -> "Groups":
        """Every op by itself, whatever its colocation group."""
        return cls.by_key(problem, range(problem.n_ops))

    @classmethod
    def by_key(cls, problem: Problem, op_key: Sequence[int]) -> "Groups":
        """The units whose ops share a key, a value for each op."""
        number: dict[int, int] = {}
        op_unit = np.zeros(problem.n_ops, dtype=np.int32)
        for op in problem.graph.order.tolist():
            op_unit[op] = number.setdefault(op_key[op], len(number))
        ops = np.argsort(op_unit, kind="stable").astype(np.int32)
        start = np.concatenate([[0], np.cumsum(np.bincount(op_unit))]).astype(np.int32)
        allowed = np.ones((len(number), problem.n_devices), dtype=np.bool_)
        np.logical_and.at(allowed, op_unit, np.isfinite(problem.op_time_s))
        memory = np.zeros(len(number))
        np.add.at(memory, op_unit, problem.op_memory_bytes)
        return cls(op_unit, start, ops, allowed, memory)

    def op_device(self, unit_device: IntArray) -> IntArray:
        """int32 [n_ops] from int32 [n_units]."""
        return np.ascontiguousarray(unit_device[self.op_unit], dtype=np.int32)

    def unit_device(self, op_device: IntArray) -> IntArray:
        """int32 [n_units] from int32 [n_ops]."""
        return np.ascontiguousarray(op_device[self.ops[self.start[:-1]]], dtype=np.int32)

    def random(self, problem: Problem, rng: np.random.Generator, *, n_tries: int = 200) -> IntArray:
        """int32 [n_units]: each unit on a random device that can run it and has room for it, largest units first.

        Raises:
            InfeasiblePlacement: No try fitted into memory.
        """
        if self.memory_bytes.sum() <= problem.device_memory_bytes.min():
            # Memory cannot bind: the largest of random keys among the allowed devices is an even draw.
            keys = np.where(self.allowed, rng.random(self.allowed.shape), -1.0)
            return np.asarray(np.argmax(keys, axis=1), dtype=np.int32)
        for _ in range(n_tries):
            free = problem.device_memory_bytes.copy()
            chosen = np.zeros(self.n_units, dtype=np.int32)
            for u in np.argsort(-self.memory_bytes * rng.uniform(0.8, 1.0, self.n_units), kind="stable"):
                fits = np.flatnonzero(self.allowed[u] & (free >= self.memory_bytes[u]))
                if not fits.size:
                    break
                chosen[u] = rng.choice(fits)
                free[chosen[u]] -= self.memory_bytes[u]
            else:
                return chosen
        raise InfeasiblePlacement(
            f"no placement of {problem.name!r} fits into memory in {n_tries} random tries: the ops claim "
            f"{self.memory_bytes.sum():.4g} bytes, the devices have {problem.device_memory_bytes.tolist()}"
        )
