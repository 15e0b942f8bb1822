"""Placements of many kinds, for which simulated and measured makespans are compared."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from experiments.baselines import warm_up
from experiments.build import Baseline
from placement_gym.arrays import IntArray
from placement_gym.errors import InfeasiblePlacement
from placement_gym.placement import infeasibility
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.simulator import compile_problem, simulate_batch


@dataclass(frozen=True, slots=True, eq=False)
class NamedPlacement:
    """A placement and how it came about.

    Attributes:
        name: Unique among the placements of a problem.
        kind: "baseline", "adversarial" or "random".
        op_device: int32 [n_ops].
    """

    name: str
    kind: str
    op_device: IntArray


def of_baselines(problem: Problem, baselines: Mapping[str, Baseline]) -> list[NamedPlacement]:
    """The placement of each baseline; one that finds nothing feasible is left out."""
    found = []
    for name, solve in baselines.items():
        warm_up(solve)
        try:
            result = solve(problem)
        except InfeasiblePlacement:
            continue
        if result.excess_bytes > 0:
            continue
        found.append(NamedPlacement(name, "baseline", result.placement.op_device))
    return found


def adversarial(problem: Problem, rule: Rule, rng: np.random.Generator) -> list[NamedPlacement]:
    """Placements that a simulator is likely to get wrong: idle devices, as many transfers as possible, long waits.

    All on one device; by turns in topological order; by depth, odd and even; one half of the order after the other;
    all but the longest op on one device; the worst of 1,000 random ones.
    """
    n, d, order = problem.n_ops, problem.n_devices, problem.graph.order
    depth = np.zeros(n, dtype=np.int64)
    for op in order:
        for e in problem.graph.out_edges[problem.graph.out_start[op] : problem.graph.out_start[op + 1]]:
            depth[problem.graph.edge_dst[e]] = max(depth[problem.graph.edge_dst[e]], depth[op] + 1)
    position = np.empty(n, dtype=np.int64)
    position[order] = np.arange(n)
    longest_apart = np.zeros(n, dtype=np.int64)
    longest_apart[problem.op_time_s.min(axis=1).argmax()] = d - 1
    many = rng.integers(0, d, (1000, n)).astype(np.int32)
    made: dict[str, np.ndarray] = {
        **{f"all on {name}": np.full(n, i) for i, name in enumerate(problem.device_names)},
        "by turns": position % d,
        "by depth": depth % d,
        "one part after the other": position * d // n,
        "longest op apart": longest_apart,
        "worst of 1,000 random": many[np.argmax(simulate_batch(problem, many, rule=rule))],
    }
    return [NamedPlacement(name, "adversarial", op_device.astype(np.int32)) for name, op_device in made.items()]


def random(problem: Problem, number: int, rng: np.random.Generator) -> list[NamedPlacement]:
    """Random placements, in turn: every op by itself; devices of unlike shares; runs of ops in topological order."""
    n, d = problem.n_ops, problem.n_devices
    made = []
    for i in range(number):
        share = rng.dirichlet(np.ones(d)) if i % 3 == 1 else np.full(d, 1 / d)
        runs = n if i % 3 != 2 else int(rng.integers(2, max(3, n // 2)))
        run_op = np.sort(rng.integers(0, runs, n)) if runs < n else np.arange(n)
        op_device = np.empty(n, dtype=np.int32)
        op_device[problem.graph.order] = rng.choice(d, size=runs, p=share)[run_op]
        made.append(NamedPlacement(f"random {i}", "random", op_device))
    return made


def all_kinds(
    problem: Problem, rule: Rule, baselines: Mapping[str, Baseline], *, n_random: int, seed: int
) -> list[NamedPlacement]:
    """Feasible placements of all kinds, each once."""
    rng = np.random.default_rng(seed)
    found = [
        *of_baselines(problem, baselines),
        *adversarial(problem, rule, rng),
        *random(problem, n_random, rng),
    ]
    distinct = {p.op_device.tobytes(): p for p in reversed(found) if infeasibility(problem, p.op_device) is None}
    kept = list(reversed(distinct.values()))
    _, excess_bytes = compile_problem(problem, rule).weigh(np.stack([p.op_device for p in kept]))
    return [p for p, excess in zip(kept, excess_bytes.tolist(), strict=True) if excess == 0]
