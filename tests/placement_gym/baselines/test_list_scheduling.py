"""List scheduling against its plain definition: every ready op, every device, every slot, looked at each time."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import random_problem

import placement_gym as pg
from placement_gym.baselines.list_scheduling import place_by_list
from placement_gym.memory import working_bytes
from placement_gym.simulator import CompiledProblem, compile_problem
from placement_gym.simulator.clock import inputs_ready, move_inputs
from placement_gym.simulator.partial import PartialPlacement, PartialProblem, fits, lacking, put_at

RULES = [
    "physical",
    "placeto",
    pg.Rule(queue="priority", transfers="edge", contention="none"),
    pg.Rule(transfers="edge", contention="egress"),
    pg.Rule(transfers="multicast", contention="half_duplex"),
]

PLANNED = pg.Rule(queue="priority", transfers="edge", contention="none")


@dataclass
class Plain:
    """The definition, in time that grows with everything."""

    compiled: CompiledProblem
    rank: NDArray[np.float64]
    jitter: NDArray[np.float64]
    bias: NDArray[np.float64]
    earliest_first: bool
    insertion: bool

    def __post_init__(self) -> None:
        self.f = PartialProblem.of(self.compiled)
        self.s = PartialPlacement.fresh(self.f, 1)
        self.busy: dict[tuple[int, int], list[tuple[float, float]]] = {}

    def start(self, op: int, device: int) -> tuple[float, int]:
        """(seconds, slot): each slot from when it is free, or the first time at which the op overlaps with nothing."""
        ready, time = inputs_ready(self.f.clock, self.s.clock, 0, op, device), self.f.clock.op_time[op, device]
        length = time + (self.f.clock.device_hold if time > 0 else 0.0)
        starts = []
        for slot in range(self.f.slots[device]):
            busy = self.busy.get((device, slot), [])
            times = sorted({ready, *(end for _, end in busy if end > ready)}) if self.insertion else []
            free = [t for t in times if all(t + length <= a or t >= b for a, b in busy)]
            starts.append((free[0] if self.insertion else max(ready, self.s.slot_free[0, device, slot]), slot))
        return min(starts)

    def pairs(self, ops: list[int]) -> list[tuple[tuple[float, ...], int, int]]:
        """(what is least in the best, op, device) of every pair that fits."""
        d, found = self.compiled.problem.n_devices, []
        for op in ops:
            for i in range(d):
                device = (int(self.jitter[op] * d) + i) % d
                if not fits(self.f, self.s, 0, self.f.op_group[op], device):
                    continue
                start, time = self.start(op, device)[0], self.f.clock.op_time[op, device]
                finish = self.bias[op, device] + (start + time)
                turn = (-self.rank[op], -self.jitter[op], op)
                if self.earliest_first:
                    found.append(((self.bias[op, device] + start, *turn, start + time, i), op, device))
                else:
                    found.append(((*turn, finish, i), op, device))
        return found

    def run(self) -> NDArray[np.int32]:
        """The devices; where no op fits anywhere, the first goes where least is missing."""
        graph, placed = self.compiled.problem.graph, self.s.clock.op_device[0]
        for _ in range(graph.n_ops):
            waits = np.bincount(graph.edge_dst[placed[graph.edge_src] < 0], minlength=graph.n_ops)
            ready = np.flatnonzero((placed < 0) & (waits == 0)).tolist()
            if not self.earliest_first:
                ready = [min(ready, key=lambda op: (-self.rank[op], -self.jitter[op], op))]
            pairs = self.pairs(ready)
            if pairs:
                _, op, device = min(pairs)
            else:
                op = min(ready, key=lambda op: (-self.rank[op], -self.jitter[op], op))
                group = self.f.op_group[op]
                able = np.flatnonzero(self.f.allowed[group]).tolist()
                device = min(able, key=lambda d: (lacking(self.f, self.s, 0, group, d), d))
            start, slot = self.start(op, device)
            move_inputs(self.f.clock, self.s.clock, 0, op, device)
            end = put_at(self.f, self.s, 0, op, device, slot, start)
            self.busy.setdefault((device, slot), []).append((start, end))
        return placed


def _problem(rng: np.random.Generator) -> pg.Problem:
    """Unlike devices of one or two slots, colocated ops, often little memory."""
    n, d = int(rng.integers(1, 15)), int(rng.integers(1, 5))
    problem = random_problem(rng, n_ops=n, n_devices=d, whole_numbers=bool(rng.integers(2)), unsupported=True)
    graph, live = problem.graph, bool(rng.integers(2))
    claims = graph.op_parameter_bytes + graph.op_output_bytes
    working = float(working_bytes(graph, problem.op_time_s, 0.0).max()) if live else 0.0
    able = np.isfinite(problem.op_time_s).all(axis=1)
    edges = zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), graph.edge_bytes.tolist(), strict=True)
    colocation = np.where(able, rng.integers(-2, 2, n), -1)
    largest = max(claims.max(), *(claims[colocation == group].sum() for group in (0, 1)))
    return pg.Problem.from_times(
        pg.OpGraph.build(
            graph.op_names,
            list(edges),
            parameter_bytes=graph.op_parameter_bytes,
            colocation=colocation,
        ),
        problem.op_time_s,
        link_latency_s=problem.link_latency_s,
        link_bytes_per_s=problem.link_bytes_per_s,
        device_slots=problem.device_slots,
        device_memory_bytes=np.maximum(claims.sum() * rng.uniform(1.0 / d, 1.0, d), largest + working + 1),
        op_memory_bytes=None if live else claims,
    )


@pytest.mark.parametrize("how", ["insertion", "append", "earliest_first"])
@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32 - 1), rule=st.sampled_from(RULES), jittered=st.booleans(), biased=st.booleans())
@example(seed=1569, rule="physical", jittered=False, biased=False)  # a group that fits nowhere is placed in part
def test_equals_the_plain_definition(how: str, seed: int, rule: pg.Rule | str, jittered: bool, biased: bool) -> None:
    """Same devices and same planned starts under any rule, though memory be short; ranks and scores often tie."""
    rng = np.random.default_rng(seed)
    problem = _problem(rng)
    shape = problem.op_time_s.shape
    rank = rng.integers(0, 4, problem.n_ops).astype(float)
    jitter = rng.random(problem.n_ops) if jittered else None
    bias = rng.integers(-3, 3, shape).astype(float) if biased else None
    compiled = compile_problem(problem, rule)
    plain = Plain(
        compiled,
        rank,
        np.zeros(problem.n_ops) if jitter is None else jitter,
        np.zeros(shape) if bias is None else bias,
        how == "earliest_first",
        how == "insertion",
    )
    expected = plain.run()
    options = {"insertion": how == "insertion", "earliest_first": how == "earliest_first"}
    op_device, priority, makespan_s = place_by_list(compiled, rank=rank, jitter=jitter, bias=bias, **options)
    assert makespan_s == plain.s.clock.finish.max()
    np.testing.assert_array_equal(op_device, expected)
    starts = plain.s.clock.finish[0] - problem.op_time_s[np.arange(problem.n_ops), op_device]
    assert (np.diff(starts[np.argsort(-priority)]) >= -1e-9).all()


def test_ties_go_by_number() -> None:
    """Of equal ops the first, of equal devices the first, whatever became ready when."""
    graph = pg.OpGraph.build(["a", "b", "c", "d", "e"], [(4, 0, 0.0)])
    problem = pg.Problem.from_times(graph, np.ones((5, 2)))
    compiled = compile_problem(problem, pg.Rule(queue="priority"))
    for earliest_first in (False, True):
        op_device, priority, _ = place_by_list(compiled, rank=np.zeros(5), earliest_first=earliest_first)
        # b and c first, then d and e, whose end makes a ready.
        assert op_device.tolist() == [0, 0, 1, 0, 1]
        assert np.argsort(-priority).tolist() == [1, 2, 3, 4, 0]


def test_earliest_task_first_breaks_ties_by_the_way_to_the_end() -> None:
    """Two ops could start at 0, and after one of them two at 2 s: each time the one of the longer way goes first."""
    graph = pg.OpGraph.build(["short", "long", "after"], [(1, 2, 0.0)])
    problem = pg.Problem.from_times(graph, [[1.0], [2.0], [3.0]])
    assert pg.baselines.etf(problem, rule=PLANNED).schedule.trace.op_start_s.tolist() == [5.0, 0.0, 2.0]


def test_earliest_task_first_takes_the_faster_of_two_free_devices() -> None:
    """An op that could start at 0 on both devices goes where it takes 1 s, whichever is tried first."""
    for times, device in (([2.0, 1.0], 1), ([1.0, 2.0], 0)):
        problem = pg.Problem.from_times(pg.OpGraph.build(["a"], []), [times])
        assert pg.baselines.etf(problem, rule=PLANNED).placement.op_device.tolist() == [device]
