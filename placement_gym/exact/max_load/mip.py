"""Max-load as a linear programme (Tarnawski et al., NeurIPS 2020, appendix): contiguous or not, GPipe's load too."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from placement_gym.arrays import IntArray
from placement_gym.errors import InvalidOption
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.exact.mip.placement_model import PlacementModel, serial_s
from placement_gym.exact.mip.solve import solve_program
from placement_gym.groups import Groups
from placement_gym.objectives import gpipe_load_s, max_load_s
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.result import Answer

# Share of the time limit for the programme without transfers, whose optimum is a bound.
PACKING_SHARE = 0.2
# What is proven is looked at again in finer numbers where bound and value are not that close, and the value is by so
# much lower than what the numbers were made for.
TOLERANCE = 1e-6
COARSE = 0.5


def solve_load(
    problem: Problem,
    solver: Solver,
    deadline: Deadline,
    *,
    start: IntArray | None,
    contiguous: bool = False,
    gpipe: bool = False,
) -> Answer:
    """The placement of least max-load, or of least `gpipe_load`.

    Variables and rows are those of the paper's programme for throughput: a group (colocation group) is on a device, and
    a device pays once for each tensor that leaves or enters it. With `contiguous`, no path along forward edges comes
    back to a device that it left. This holds for each device by itself: unlike in a pipeline, devices may wait for
    each other. Three things are added. Like devices are taken in the order of the groups. The same programme without
    transfers is solved first, for a bound. The best placement known is the first solution and an upper bound.

    Args:
        problem: Any; links may differ from pair to pair.
        solver: Solver and limits.
        deadline: Ends the search, and the building of programmes; so does Ctrl-C.
        start: int32 [n_ops], a feasible placement of this kind, or None.
        contiguous: See above.
        gpipe: Whether forward and backward loads have maxima of their own.

    Raises:
        InvalidOption: `start` is not contiguous though that is asked for.
    """
    if contiguous and start is not None and not is_contiguous(problem, start):
        raise InvalidOption("the start is not contiguous: a path of forward edges comes back to a device that it left")
    best, bound, proven, forbidden = start, 0.0, False, list[IntArray]()

    def seconds(op_device: IntArray | None) -> float:
        if op_device is None or infeasibility(problem, op_device) is not None:
            return np.inf
        return gpipe_load_s(problem, op_device) if gpipe else max_load_s(problem, op_device)

    with deadline.ends():
        if not contiguous:
            # What bounds the max-load bounds the sum of the two largest loads as well.
            packing, _ = _model(problem, best, deadline, contiguous=False, gpipe=False, transfers=False)
            solved = solve_program(packing.program, replace(solver, time_limit_s=PACKING_SHARE * solver.time_limit_s))
            bound, found = solved.bound, packing.op_device(solved.values)
            best = found if seconds(found) < seconds(best) else best
        while True:
            model, highest = _model(problem, best, deadline, contiguous=contiguous, gpipe=gpipe, transfers=True)
            if np.isfinite(bound) and bound > 0:
                model.program.at_least([(1, v) for v in highest], bound)
            for op_device in forbidden:
                model.forbid(model.groups.group_device(op_device).tolist())
            solved = solve_program(model.program, solver)
            bound, found = max(bound, solved.bound), model.op_device(solved.values)
            if found is None:
                proven = solved.proven
                break
            again = solved.proven and not deadline.is_over
            found_s, best_s = seconds(found), seconds(best)
            if found_s == np.inf:
                # Solvers hold memory to their tolerance, a placement holds it exactly.
                forbidden.append(found)
                if not again:
                    break
                continue
            best = found if found_s <= best_s else best
            if not again or found_s >= COARSE * best_s or found_s * (1 - max(solver.gap, TOLERANCE)) <= bound:
                proven = solved.proven
                break
            # Numbers that had to hold far longer times were too coarse: the next ones are made for what was found.
    return Answer(best, bound, proven)


def _model(
    problem: Problem, start: IntArray | None, deadline: Deadline, *, contiguous: bool, gpipe: bool, transfers: bool
) -> tuple[PlacementModel, list[int]]:
    """The programme, and the variables whose sum is its objective."""
    model = PlacementModel.of(problem, Groups.of(problem), range(problem.n_devices), deadline)
    value = gpipe_load_s if gpipe else max_load_s
    upper = serial_s(problem) if start is None else value(problem, start) * (1 + 1e-12)
    # One largest load, or that of forward and that of backward work.
    highest = [model.program.seconds(upper) for _ in range(2 if gpipe else 1)]
    model.program.objective = highest
    if gpipe:
        model.program.at_most([(1, v) for v in highest], upper)
    for variable, ops in zip(highest, _parts(problem, gpipe=gpipe), strict=True):
        terms = model.work(ops)
        for device, coefficient, paid in model.transfers(ops, upper) if transfers else ():
            terms[device].append((coefficient, paid))
        for of_device in terms:
            model.program.at_least([(1, variable), *((-c, v) for c, v in of_device)], 0.0)
    if contiguous:
        _add_contiguity(model)
    order = np.arange(model.groups.n_groups)
    if not contiguous:
        # Where anything may go anywhere, the large groups tell devices apart.
        work = np.zeros(model.groups.n_groups)
        np.add.at(work, model.groups.op_group, problem.op_time_s.min(axis=1))
        order = np.argsort(-work, kind="stable")
    group_device = None if start is None else model.groups.group_device(start)
    number = model.break_symmetry(order.tolist(), group_device)
    if group_device is not None:
        model.hint([number[d] for d in group_device.tolist()])
    return model, highest


def _parts(problem: Problem, *, gpipe: bool) -> Iterator[IntArray]:
    """Ops that count for each of the largest loads."""
    backward = problem.graph.op_is_backward
    for counted in (~backward, backward) if gpipe else (np.ones_like(backward),):
        yield np.flatnonzero(counted).astype(np.int32)


def _forward_edges(problem: Problem) -> list[tuple[int, int]]:
    """Pairs of forward ops, in topological order of the first."""
    graph = problem.graph
    forward = ~graph.op_is_backward[graph.edge_src] & ~graph.op_is_backward[graph.edge_dst]
    place = np.argsort(graph.order)
    edges = {(int(graph.edge_src[e]), int(graph.edge_dst[e])) for e in np.flatnonzero(forward)}
    return sorted(edges, key=lambda edge: (place[edge[0]], place[edge[1]]))


def is_contiguous(problem: Problem, op_device: IntArray) -> bool:
    """Whether no path of forward edges comes back to a device that it left."""
    left: list[set[int]] = [set() for _ in range(problem.n_ops)]
    for a, b in _forward_edges(problem):
        left[b] |= left[a] | ({int(op_device[a])} - {int(op_device[b])})
        # Whatever is ahead of b on such a path has been taken in by then: edges come in the order of their first op.
    return all(int(op_device[op]) not in gone for op, gone in enumerate(left))


def _add_contiguity(model: PlacementModel) -> None:
    """Rows of the paper: `ahead` is yes while the device is not left yet, and turns to no along forward edges."""
    problem, op_group = model.problem, model.groups.op_group
    edges = _forward_edges(problem)
    ops = sorted({op for edge in edges for op in edge})
    for d in range(problem.n_devices):
        ahead = {op: model.program.yes_or_no() for op in ops}
        for op in ops:
            here = model.on[op_group[op]].get(d)
            if here is not None:
                model.program.any_of([ahead[op]], unless=[here])
        for a, b in edges:
            model.program.any_of([ahead[a]], unless=[ahead[b]])
            left, here = model.on[op_group[a]].get(d), model.on[op_group[b]].get(d)
            if op_group[a] != op_group[b] and left is not None:
                model.program.any_of([] if here is None else [here], unless=[left, ahead[b]])
