"""PlacementModel: the rows of a linear programme that every objective shares: where ops are, memory, transfers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.errors import InvalidProblem
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.device_classes import DeviceClasses, tensor_times_s
from placement_gym.exact.mip.linear_program import LinearProgram
from placement_gym.groups import Groups
from placement_gym.objectives import pays_for_transfers
from placement_gym.problem import Problem

# The order of like devices is fixed by so many groups; more of them are not worth their rows.
ORDERED_UNITS = 64


@dataclass(slots=True, eq=False)
class PlacementModel:
    """A programme under construction. A place is a device, or one of several subgraphs of a device.

    Attributes:
        problem: What is placed.
        groups: What moves together.
        place_device: Device of each place.
        program: Where rows go.
        on: `on[u][p]` is the variable that says whether group u is in place p; places that cannot hold it are left out.
    """

    problem: Problem
    groups: Groups
    place_device: Sequence[int]
    program: LinearProgram
    on: list[dict[int, int]]

    @classmethod
    def of(cls, problem: Problem, groups: Groups, place_device: Sequence[int], deadline: Deadline) -> "PlacementModel":
        """Every group in one place, within the memory of the devices; rows are added until the deadline."""
        program = LinearProgram(deadline=deadline)
        fits = groups.allowed & (groups.memory_bytes[:, None] <= problem.device_memory_bytes[None, :])
        on = [{p: program.yes_or_no() for p, d in enumerate(place_device) if row[d]} for row in fits]
        for variables in on:
            program.one_of(list(variables.values()))
        for d in np.flatnonzero(problem.device_memory_bytes < groups.memory_bytes.sum()).tolist():
            claims = [
                (float(groups.memory_bytes[u]), variable)
                for u, row in enumerate(on)
                for p, variable in row.items()
                if place_device[p] == d and groups.memory_bytes[u] > 0
            ]
            program.at_most(claims, float(problem.device_memory_bytes[d]))
        return cls(problem, groups, place_device, program, on)

    def work(self, ops: IntArray) -> list[list[tuple[float, int]]]:
        """The work of each place, as terms (seconds that a group's `ops` take there, variable of the group there)."""
        time = np.zeros((self.groups.n_groups, self.problem.n_devices))
        np.add.at(time, self.groups.op_group[ops], self.problem.op_time_s[ops])
        terms: list[list[tuple[float, int]]] = [[] for _ in self.place_device]
        for u, row in enumerate(self.on):
            for p, variable in row.items():
                if time[u, self.place_device[p]] > 0:
                    terms[p].append((float(time[u, self.place_device[p]]), variable))
        return terms

    def transfers(self, makers: IntArray, most_s: float = np.inf) -> Iterator[tuple[int, float, int]]:
        """(place, coefficient, variable) of what places on accelerators pay for the tensors of ops `makers`.

        No solution of interest pays more than `most_s` for one of them.
        """
        graph, op_group = self.problem.graph, self.groups.op_group
        crossing = np.isin(graph.edge_src, makers) & (op_group[graph.edge_src] != op_group[graph.edge_dst])
        tensor_edges: dict[int, list[int]] = defaultdict(list)
        for e in np.flatnonzero(crossing).tolist():
            tensor_edges[int(graph.edge_tensor[e])].append(e)
        pays = pays_for_transfers(self.problem)
        payers = [p for p, d in enumerate(self.place_device) if pays[d]]
        try:
            edge_s = tensor_times_s(self.problem)
        except InvalidProblem:
            for edges in tensor_edges.values():
                yield from ((p, 1.0, v) for p in payers for v in self._by_pair(edges, p, most_s))
            return
        paid: dict[tuple[int, ...], float] = defaultdict(float)
        for edges in tensor_edges.values():
            known = {int(op_group[graph.edge_src[edges[0]]]), *op_group[graph.edge_dst[edges]].tolist()}
            paid[tuple(sorted(known))] += float(edge_s[edges].max())
        for p in payers:
            for known_groups, seconds in paid.items():
                inside = [self.on[u].get(p) for u in known_groups]
                if seconds > 0 and any(v is not None for v in inside):
                    yield p, seconds, self._cut(inside)

    def _cut(self, inside: list[int | None]) -> int:
        """A new variable that is yes if some of `inside` are yes and some are no; None counts as no."""
        cut = self.program.yes_or_no()
        # Around a ring, a yes is somewhere followed by a no, unless all are alike.
        for a, b in zip(inside, [*inside[1:], inside[0]], strict=True):
            if a is not None:
                self.program.any_of([cut] if b is None else [cut, b], unless=[a])
        return cut

    def _by_pair(self, edges: list[int], place: int, most_s: float) -> Iterator[int]:
        """Seconds that a place pays for one tensor where links differ: as its maker, as a reader."""
        graph, op_group = self.problem.graph, self.groups.op_group
        maker = self.on[int(op_group[graph.edge_src[edges[0]]])]
        here = self.place_device[place]
        ends = [pair for d in set(self.place_device) for pair in ((here, d), (d, here))]
        slowest = max(transfer_s(self.problem, e, *pair) for e in edges for pair in ends)
        for sends in (True, False):
            paid = self.program.seconds(min(slowest, most_s))
            for e in edges:
                reader = self.on[int(op_group[graph.edge_dst[e]])]
                for other in range(len(self.place_device)):
                    a, b = (place, other) if sends else (other, place)
                    if a != b and a in maker and b in reader:
                        # Twice the most is too much, too, and keeps the numbers of the programme close together.
                        seconds = min(
                            transfer_s(self.problem, e, self.place_device[a], self.place_device[b]), 2 * most_s
                        )
                        self.program.at_least([(1, paid), (-seconds, maker[a]), (-seconds, reader[b])], -seconds)
            yield paid

    def break_symmetry(self, order: Sequence[int], start: IntArray | None) -> dict[int, int]:
        """Like devices are first used in the order of their numbers, groups taken in `order`.

        Only for one place per device, numbered as the device.

        Args:
            order: Numbers of the groups.
            start: int32 [n_groups], device of each group in the placement known, or None.

        Returns:
            New number of each device, which brings `start` into that order.
        """
        classes = DeviceClasses.of(self.problem).members
        first: dict[int, int] = {}
        for i, u in enumerate(order):
            if start is not None:
                first.setdefault(int(start[u]), i)
            if i >= ORDERED_UNITS:
                continue
            for members in classes:
                for before, device in pairwise(members):
                    if device in self.on[u]:
                        earlier = [self.on[v].get(before) for v in order[:i]]
                        self.program.any_of([v for v in earlier if v is not None], unless=[self.on[u][device]])
        number: dict[int, int] = {}
        for members in classes:
            by_use = sorted(members, key=lambda d: first.get(d, len(order)))
            number |= dict(zip(by_use, members, strict=True))
        return number

    def forbid(self, group_place: Sequence[int]) -> None:
        """Adds a row that rules one placement out."""
        self.program.any_of([], unless=[row[p] for row, p in zip(self.on, group_place, strict=True)])

    def hint(self, group_place: Sequence[int]) -> None:
        """Gives the solver a placement to begin from."""
        for u, row in enumerate(self.on):
            for p, variable in row.items():
                self.program.hint[variable] = float(group_place[u] == p)

    def op_device(self, values: FloatArray | None) -> IntArray | None:
        """int32 [n_ops] of a solution, where places are devices; None without one."""
        return None if values is None else self.groups.op_device(self.group_place(values))

    def group_place(self, values: FloatArray) -> IntArray:
        """int32 [n_groups] of a solution."""
        chosen = [max(row, key=lambda p: values[row[p]]) for row in self.on]
        return np.array(chosen, dtype=np.int32)


def transfer_s(problem: Problem, edge: int, a: int, b: int) -> float:
    """Seconds of an edge's tensor from device a to b; two subgraphs of one device talk over its slowest link."""
    if a == b:
        others = np.arange(problem.n_devices) != a
        latency = problem.link_latency_s[a].max()
        speed = problem.link_bytes_per_s[a, others].min() if others.any() else np.inf
    else:
        latency, speed = problem.link_latency_s[a, b], problem.link_bytes_per_s[a, b]
    return float(latency + problem.graph.edge_bytes[edge] / speed)


def serial_s(problem: Problem) -> float:
    """Seconds that no objective reaches: all work and all transfers, at both ends, one after the other."""
    work = np.where(np.isfinite(problem.op_time_s), problem.op_time_s, 0.0).max(axis=1).sum()
    apart = ~np.eye(problem.n_devices, dtype=bool)
    if not apart.any():
        return float(work) * 1.01 + 1e-300
    edges = problem.link_latency_s.max() + problem.graph.edge_bytes / problem.link_bytes_per_s[apart].min()
    return float(work + 2 * problem.n_devices * edges.sum()) * 1.01 + 1e-300
