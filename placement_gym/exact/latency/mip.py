"""Single-sample latency as a programme (Tarnawski et al., NeurIPS 2020, appendix), between two dynamic programmes."""

from itertools import pairwise

import numpy as np

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InfeasiblePlacement, InvalidOption
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.latency.bounds import Stagewise
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.exact.mip.placement_model import PlacementModel, serial_s
from placement_gym.exact.mip.solve import solve_program
from placement_gym.groups import Groups
from placement_gym.objectives import contiguous_pieces, latency_s, pays_for_transfers, result_times_s
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, fastest_op_time_s, t_level_s
from placement_gym.result import Answer

# Share of the time limit for the two dynamic programmes.
STAGES_SHARE = 0.5
# Above this share of the best value a bound is called a proof.
TOLERANCE = 1e-6
UNITS = 2.0**24


def solve_latency(
    problem: Problem, solver: Solver, deadline: Deadline, *, start: IntArray | None, subgraphs: int
) -> Answer:
    """The placement of least latency with up to `subgraphs` contiguous subgraphs on each accelerator.

    1. One dynamic programme over ideals finds a placement in which parts follow each other, another one a lower
       bound (`bounds.Stagewise`). Where the two meet, the search is over.
    2. Else the programme of the paper goes on from there. An op's result is there when its subgraph is done or, on a
       CPU, its own time after its last input. Where the solver has conditional rows, they take the place of big-M.
       Added are rows for the least time before and after each op. Subgraphs are contiguous, because none can start
       before what it waits for has ended.

    Args:
        problem: Any; without subgraphs of their own ops on CPUs take turns on nothing.
        solver: Solver and limits.
        deadline: Ends the search, and the building of programmes; so does Ctrl-C.
        start: int32 [n_ops], a feasible placement whose subgraphs do not wait for each other in a circle, or None.
        subgraphs: Most subgraphs of an accelerator.

    Raises:
        InvalidOption: `start` has more subgraphs.
    """
    if start is not None and _n_subgraphs(problem, start) > subgraphs:
        raise InvalidOption(
            f"the start has {_n_subgraphs(problem, start)} subgraphs on an accelerator, not {subgraphs}"
        )
    best, op_subgraph, bound, proven = start, None, lower_bound_s(problem, "latency"), False
    enough = 1 - max(TOLERANCE, solver.gap)
    with deadline.ends():
        best, bound = _staged(problem, start, subgraphs, deadline)
        if best is not None and bound >= latency_s(problem, best) * enough:
            return Answer(best, bound, True)
        model = _LatencyModel(problem, best, subgraphs, bound, deadline)
        solved = solve_program(model.placement.program, solver)
        if solved.values is None:
            # Without a placement the bound of a programme that is infeasible would be infinite.
            return Answer(best, bound if best is None else max(bound, solved.bound), solved.proven)
        bound = max(bound, solved.bound)
        found = model.found(solved.values)
        try:
            value = latency_s(problem, *found)
        except InfeasiblePlacement:
            # Subgraphs that take no time at all may wait for each other in a circle; the bound holds all the same.
            value = np.inf
        if best is None or value <= latency_s(problem, best):
            (best, op_subgraph), proven = found, solved.proven or bound >= value * enough
    return Answer(best, bound, proven, op_subgraph)


def _n_subgraphs(problem: Problem, op_device: IntArray) -> int:
    """Most contiguous subgraphs on one accelerator."""
    pieces = contiguous_pieces(problem, op_device)[pays_for_transfers(problem)[op_device]]
    return int(pieces.max(initial=-1)) + 1


def _staged(
    problem: Problem, start: IntArray | None, subgraphs: int, deadline: Deadline
) -> tuple[IntArray | None, float]:
    """(the best placement known, a lower bound), by dynamic programming where that applies."""
    best, bound = start, lower_bound_s(problem, "latency")
    with deadline.ends():
        stages_deadline = deadline.share(STAGES_SHARE)
        upper = serial_s(problem) if best is None else latency_s(problem, best)
        whole = Stagewise.whole(problem, stages_deadline)
        found = None if whole is None else whole.placement(upper, stages_deadline)
        if found is not None and infeasibility(problem, found) is None and latency_s(problem, found) < upper:
            best, upper = found, latency_s(problem, found)
        relaxed = Stagewise.relaxed(problem, subgraphs, stages_deadline)
        if relaxed is not None:
            bound = max(bound, relaxed.lower_bound_s(upper, stages_deadline))
    return best, bound


class _LatencyModel:
    """The programme under construction; places are the subgraphs of accelerators, then the CPUs."""

    def __init__(
        self, problem: Problem, start: IntArray | None, subgraphs: int, bound: float, deadline: Deadline
    ) -> None:
        pays = pays_for_transfers(problem)
        self.problem, self.subgraphs = problem, subgraphs
        self.piece_device = [d for d in np.flatnonzero(pays).tolist() for _ in range(subgraphs)]
        place_device = [*self.piece_device, *np.flatnonzero(~pays).tolist()]
        groups = Groups.of(problem) if subgraphs == 1 else Groups.single(problem)
        self.placement = PlacementModel.of(problem, groups, place_device, deadline)
        program = self.placement.program
        # Where times wait for each other in a circle CP-SAT raises them unit by unit, for ever if units are small.
        program.units = UNITS
        upper = serial_s(problem) if start is None else latency_s(problem, start) * (1 + 1e-12)
        self.latency = program.seconds(upper)
        self.result = [program.seconds(upper) for _ in range(problem.n_ops)]
        self.begin = [program.seconds(upper) for _ in self.piece_device]
        self.end = [program.seconds(upper) for _ in self.piece_device]
        program.objective = [self.latency]
        program.at_least([(1, self.latency)], bound)
        self._add_pieces()
        self._add_results()
        self._add_colocation()
        if subgraphs == 1:
            number = self.placement.break_symmetry(
                list(range(groups.n_groups)), None if start is None else groups.group_device(start)
            )
        else:
            number = {d: d for d in range(problem.n_devices)}
        if start is not None:
            self._hint(start, number)

    def _add_pieces(self) -> None:
        """A subgraph ends when all is fetched, done and sent; those of one accelerator take turns."""
        program = self.placement.program
        every = np.arange(self.problem.n_ops, dtype=np.int32)
        terms = self.placement.work(every)
        for place, coefficient, paid in self.placement.transfers(every):
            terms[place].append((coefficient, paid))
        for p, device in enumerate(self.piece_device):
            program.at_least([(1, self.end[p]), (-1, self.begin[p]), *((-c, v) for c, v in terms[p])], 0.0)
            if p > 0 and self.piece_device[p - 1] == device:
                program.at_least([(1, self.begin[p]), (-1, self.end[p - 1])], 0.0)

    def _add_results(self) -> None:
        """An op's result waits for its inputs, for its own time on a CPU, for the end of its subgraph elsewhere."""
        problem, program, on = self.problem, self.placement.program, self.placement.on
        op_group, n_pieces = self.placement.groups.op_group, len(self.piece_device)
        least, free = fastest_op_time_s(problem), np.zeros(problem.graph.n_edges)
        head, tail = t_level_s(problem, least, free) + least, b_level_s(problem, least, free) - least
        for op, result in enumerate(self.result):
            row = on[op_group[op]]
            slower = [(-(seconds - float(least[op])), v) for seconds, v in self._cpu_terms(op)]
            program.at_least([(1, result), *slower], float(head[op]))
            # What comes after an op on an accelerator may be in its subgraph and count in its result already.
            later = [(-float(tail[op]), v) for _, v in self._cpu_terms(op)]
            program.at_least([(1, self.latency), (-1, result), *later], 0.0)
            for p in range(n_pieces):
                if p in row:
                    program.at_least([(1, result), (-1, self.end[p])], 0.0, when=row[p])
        fetched: dict[tuple[int, int], int] = {}
        graph = problem.graph
        for a, b in sorted(set(zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), strict=True))):
            row, before = on[op_group[b]], on[op_group[a]]
            cpu = [(-seconds, v) for seconds, v in self._cpu_terms(b)]
            program.at_least([(1, self.result[b]), (-1, self.result[a]), *cpu], 0.0)
            for p in range(n_pieces) if op_group[a] != op_group[b] else ():
                if p in row:
                    if (a, p) not in fetched:
                        fetched[a, p] = program.yes_or_no()
                        program.at_least([(1, self.begin[p]), (-1, self.result[a])], 0.0, when=fetched[a, p])
                    program.any_of([fetched[a, p], *([before[p]] if p in before else [])], unless=[row[p]])

    def _cpu_terms(self, op: int) -> list[tuple[float, int]]:
        """(seconds of an op on a CPU, variable that says that it is there)."""
        row, device_of = self.placement.on[self.placement.groups.op_group[op]], self.placement.place_device
        first = len(self.piece_device)
        return [(float(self.problem.op_time_s[op, device_of[p]]), v) for p, v in row.items() if p >= first]

    def _add_colocation(self) -> None:
        """With several subgraphs per accelerator, ops of a group share the accelerator, not the subgraph."""
        if self.subgraphs == 1:
            return
        groups, device_of = self.problem.graph.op_colocation, self.placement.place_device
        for group in sorted(set(groups.tolist()) - {-1}):
            members = np.flatnonzero(groups == group).tolist()
            for a, b in pairwise([self.placement.groups.op_group[op] for op in members]):
                for d in range(self.problem.n_devices):
                    one, other = ([v for p, v in self.placement.on[u].items() if device_of[p] == d] for u in (a, b))
                    program = self.placement.program
                    program.at_least([*((1, v) for v in one), *((-1, v) for v in other)], 0)
                    program.at_least([*((1, v) for v in other), *((-1, v) for v in one)], 0)

    def _hint(self, start: IntArray, number: dict[int, int]) -> None:
        """The placement known, with its times."""
        devices = np.array([number[d] for d in start.tolist()], dtype=np.int32)
        pieces = contiguous_pieces(self.problem, devices)
        place_of = {d: p for p, d in reversed(list(enumerate(self.placement.place_device)))}
        place = np.array([place_of[d] for d in devices.tolist()])
        place += np.where(pays_for_transfers(self.problem)[devices], pieces, 0)
        groups = self.placement.groups
        self.placement.hint(place[groups.ops[groups.start[:-1]]].tolist())
        times = result_times_s(self.problem, devices)
        for op, variable in enumerate(self.result):
            self.placement.program.hint[variable] = float(times[op])

    def found(self, values: FloatArray) -> tuple[IntArray, IntArray | None]:
        """(device, subgraph) of each op in a solution; subgraphs only where there may be several."""
        place = self.placement.group_place(values)[self.placement.groups.op_group]
        devices = np.array(self.placement.place_device, dtype=np.int32)[place]
        if self.subgraphs == 1:
            return devices, None
        return devices, np.where(place < len(self.piece_device), place % self.subgraphs, 0).astype(np.int32)
