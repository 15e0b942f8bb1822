"""Max-load as a linear programme (Tarnawski et al., NeurIPS 2020, appendix): contiguous or not, GPipe's load too."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.baselines.device_classes import DeviceClasses, tensor_times_s
from placement_gym.baselines.linear_program import LinearProgram, Solver
from placement_gym.baselines.result import Answer
from placement_gym.errors import InvalidProblem
from placement_gym.objectives import gpipe_load_s, max_load_s, pays_for_transfers
from placement_gym.problem import Problem
from placement_gym.units import Units

# Units on which the order of like devices is fixed; more of them break no further symmetry worth the rows.
ORDERED_UNITS = 64
# Share of the time limit for the programme without transfers, whose optimum is a bound.
PACKING_SHARE = 0.2


def solve_load(
    problem: Problem, solver: Solver, *, start: IntArray | None, contiguous: bool = False, gpipe: bool = False
) -> Answer:
    """The placement of least max-load, or of least `gpipe_load`.

    Variables and rows are those of the paper's programme for throughput: a unit (colocation group) on a device; a
    tensor that crosses the border of a device costs it once. With `contiguous`, forward ops are on a path of devices
    that never comes back to one (each device by itself; unlike in a pipeline, devices may wait for each other). Added
    to them: like devices are taken in the order of the units; a bound from the same programme without transfers, which
    is solved first; the best placement known as the first solution and as an upper bound.

    Args:
        problem: Any; links may differ from pair to pair.
        solver: Solver and limits.
        start: int32 [n_ops], a feasible placement of this kind, or None.
        contiguous: See above.
        gpipe: Whether forward and backward loads have maxima of their own.
    """
    bound = 0.0
    if not contiguous and not gpipe:
        packing = _Model(problem, Units.of(problem), start, gpipe=False)
        packing.add_loads(transfers=False)
        packing.break_symmetry(by_work=True)
        bound = packing.program.solve(replace(solver, time_limit_s=PACKING_SHARE * solver.time_limit_s)).bound
        solver = replace(solver, time_limit_s=(1 - PACKING_SHARE) * solver.time_limit_s)
    model = _Model(problem, Units.of(problem), start, gpipe=gpipe)
    model.add_loads(transfers=True)
    if contiguous:
        model.add_contiguity()
    model.break_symmetry(by_work=not contiguous)
    if np.isfinite(bound) and bound > 0:
        model.program.at_least([(1, v) for v in model.program.objective], bound)
    solved = model.program.solve(solver)
    found = None if solved.values is None else model.op_device(solved.values)
    return Answer(found, max(bound, solved.bound), solved.proven)


@dataclass(slots=True, eq=False)
class _Model:
    """The programme under construction; `on[u][d]` is the variable of unit u on device d where that is possible."""

    problem: Problem
    units: Units
    program: LinearProgram
    on: list[dict[int, int]]
    highest: list[int]
    start: IntArray | None

    def __init__(self, problem: Problem, units: Units, start: IntArray | None, *, gpipe: bool) -> None:
        self.problem, self.units, self.program = problem, units, LinearProgram()
        fits = units.allowed & (units.memory_bytes[:, None] <= problem.device_memory_bytes[None, :])
        self.on = [{int(d): self.program.yes_or_no() for d in np.flatnonzero(row)} for row in fits]
        for variables in self.on:
            self.program.one_of(list(variables.values()))
        if start is None:
            finite = np.where(np.isfinite(problem.op_time_s), problem.op_time_s, 0.0).max(axis=1)
            upper = float(finite.sum()) + 2 * float(_slowest_transfers_s(problem).sum())
        else:
            upper = (gpipe_load_s if gpipe else max_load_s)(problem, start) * (1 + 1e-12)
        # One largest load, or that of forward and that of backward work.
        self.highest = [self.program.seconds(upper) for _ in range(2 if gpipe else 1)]
        self.program.objective = self.highest
        if gpipe and start is not None:
            self.program.at_most([(1, v) for v in self.highest], upper)
        self.start = None if start is None else units.unit_device(start)
        for d in np.flatnonzero(problem.device_memory_bytes < units.memory_bytes.sum()).tolist():
            held = [(float(units.memory_bytes[u]), row[d]) for u, row in enumerate(self.on) if d in row]
            self.program.at_most([term for term in held if term[0] > 0], float(problem.device_memory_bytes[d]))

    def parts(self) -> Iterator[tuple[int, IntArray]]:
        """(variable of the largest load, ops that count for it)."""
        backward = self.problem.graph.op_is_backward
        both = (~backward, backward) if len(self.highest) == 2 else (np.ones_like(backward),)
        for variable, counted in zip(self.highest, both, strict=True):
            yield variable, np.flatnonzero(counted).astype(np.int32)

    def add_loads(self, *, transfers: bool) -> None:
        """Rows: the largest load is at least that of each device."""
        problem, units = self.problem, self.units
        for highest, ops in self.parts():
            time = np.zeros((units.n_units, problem.n_devices))
            np.add.at(time, units.op_unit[ops], problem.op_time_s[ops])
            terms: dict[int, list[tuple[float, int]]] = {
                d: [(-float(time[u, d]), row[d]) for u, row in enumerate(self.on) if d in row and time[u, d] > 0]
                for d in range(problem.n_devices)
            }
            for d, coefficient, variable in self._transfers(ops) if transfers else ():
                terms[d].append((-coefficient, variable))
            for d in range(problem.n_devices):
                self.program.at_least([(1, highest), *terms[d]], 0.0)

    def _transfers(self, makers: IntArray) -> Iterator[tuple[int, float, int]]:
        """(device, coefficient, variable) of what devices pay for the tensors of `makers`."""
        graph, op_unit = self.problem.graph, self.units.op_unit
        crossing = np.flatnonzero(
            np.isin(graph.edge_src, makers) & (op_unit[graph.edge_src] != op_unit[graph.edge_dst])
        )
        tensor_edges: dict[int, list[int]] = defaultdict(list)
        for e in crossing.tolist():
            tensor_edges[int(graph.edge_tensor[e])].append(e)
        payers = np.flatnonzero(pays_for_transfers(self.problem)).tolist()
        try:
            edge_s = tensor_times_s(self.problem)
        except InvalidProblem:
            for edges in tensor_edges.values():
                yield from ((d, 1.0, v) for d in payers for v in self._by_pair(edges, d))
            return
        paid: dict[tuple[int, ...], float] = defaultdict(float)
        for edges in tensor_edges.values():
            known = {int(op_unit[graph.edge_src[edges[0]]]), *op_unit[graph.edge_dst[edges]].tolist()}
            paid[tuple(sorted(known))] += float(edge_s[edges].max())
        for d in payers:
            for known_units, seconds in paid.items():
                inside = [self.on[u].get(d) for u in known_units]
                if seconds > 0 and any(v is not None for v in inside):
                    yield d, seconds, self._cut(inside)

    def _cut(self, inside: list[int | None]) -> int:
        """Yes if some of the variables are yes and some are no; None is always no."""
        cut = self.program.yes_or_no()
        # Around a ring, a yes is somewhere followed by a no, unless all are alike.
        for a, b in zip(inside, [*inside[1:], inside[0]], strict=True):
            if a is not None:
                self.program.any_of([cut] if b is None else [cut, b], unless=[a])
        return cut

    def _by_pair(self, edges: list[int], device: int) -> Iterator[int]:
        """Seconds that `device` pays for one tensor where links differ: as its maker, as a reader."""
        problem, graph = self.problem, self.problem.graph
        maker = self.on[int(self.units.op_unit[graph.edge_src[edges[0]]])]
        upper = float(_slowest_transfers_s(problem)[edges].max())
        for sends in (True, False):
            paid = self.program.seconds(upper)
            for e in edges:
                reader = self.on[int(self.units.op_unit[graph.edge_dst[e]])]
                for other in range(problem.n_devices):
                    a, b = (device, other) if sends else (other, device)
                    if a != b and a in maker and b in reader:
                        seconds = float(
                            problem.link_latency_s[a, b] + graph.edge_bytes[e] / problem.link_bytes_per_s[a, b]
                        )
                        self.program.at_least([(1, paid), (-seconds, maker[a]), (-seconds, reader[b])], -seconds)
            yield paid

    def add_contiguity(self) -> None:
        """Rows of the paper: along forward edges, a device that was left is not come back to."""
        graph, op_unit = self.problem.graph, self.units.op_unit
        forward = ~graph.op_is_backward[graph.edge_src] & ~graph.op_is_backward[graph.edge_dst]
        edges = sorted({(int(graph.edge_src[e]), int(graph.edge_dst[e])) for e in np.flatnonzero(forward)})
        ops = sorted({op for edge in edges for op in edge})
        for d in range(self.problem.n_devices):
            ahead = {op: self.program.yes_or_no() for op in ops}
            for op in ops:
                here = self.on[op_unit[op]].get(d)
                if here is not None:
                    self.program.any_of([ahead[op]], unless=[here])
            for a, b in edges:
                self.program.any_of([ahead[a]], unless=[ahead[b]])
                left, here = self.on[op_unit[a]].get(d), self.on[op_unit[b]].get(d)
                if op_unit[a] != op_unit[b] and left is not None:
                    self.program.any_of([] if here is None else [here], unless=[left, ahead[b]])

    def break_symmetry(self, *, by_work: bool) -> None:
        """Like devices are first used in the order of their numbers, units taken by work or in topological order.

        The start is renumbered to that order and handed over.
        """
        units, classes = self.units, DeviceClasses.of(self.problem)
        order = np.arange(units.n_units)
        if by_work:
            time = np.zeros(units.n_units)
            np.add.at(time, units.op_unit, _least_time_s(self.problem))
            order = np.argsort(-time, kind="stable")
        for members in classes.members:
            for i, u in enumerate(order[:ORDERED_UNITS].tolist()):
                for before, device in zip(members[:-1], members[1:], strict=True):
                    if device in self.on[u]:
                        earlier = [self.on[v].get(before) for v in order[:i].tolist()]
                        self.program.any_of([v for v in earlier if v is not None], unless=[self.on[u][device]])
        if self.start is None:
            return
        number = _first_use_numbers(self.start[order], classes.members)
        for u, row in enumerate(self.on):
            for d, variable in row.items():
                self.program.hint[variable] = float(number[int(self.start[u])] == d)

    def op_device(self, values: FloatArray) -> IntArray:
        """int32 [n_ops] of a solution."""
        chosen = [max(row, key=lambda d: values[row[d]]) for row in self.on]  # noqa: B023  (used at once)
        return self.units.op_device(np.array(chosen, dtype=np.int32))


def _first_use_numbers(unit_device: IntArray, classes: tuple[tuple[int, ...], ...]) -> dict[int, int]:
    """New number of each device, such that like ones are first used in ascending order."""
    first = {int(d): i for i, d in reversed(list(enumerate(unit_device.tolist())))}
    number: dict[int, int] = {}
    for members in classes:
        by_use = sorted(members, key=lambda d: first.get(d, len(unit_device)))
        number |= dict(zip(by_use, members, strict=True))
    return number


def _least_time_s(problem: Problem) -> FloatArray:
    least: FloatArray = problem.op_time_s.min(axis=1)
    return least


def _slowest_transfers_s(problem: Problem) -> FloatArray:
    """float64 [n_edges]: each edge over its slowest pair."""
    apart = ~np.eye(problem.n_devices, dtype=bool)
    if not apart.any():
        return np.zeros(problem.graph.n_edges)
    seconds: FloatArray = (
        problem.link_latency_s[apart].max() + problem.graph.edge_bytes / problem.link_bytes_per_s[apart].min()
    )
    return seconds
