"""Toy problems whose optimal makespan is known, and why."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from placement_gym.graph import OpGraph
from placement_gym.problem import Problem


@dataclass(frozen=True, slots=True)
class Toy:
    """A problem with its optimum under a rule.

    Attributes:
        problem: The problem.
        rule: Name of the simulator rule.
        optimum_s: The smallest makespan of any placement.
        why: Why it is.
    """

    problem: Problem
    rule: str
    optimum_s: float
    why: str


def _problem(
    name: str, edges: list[tuple[int, int, float]], time_s: list[list[float]], **memory: list[float]
) -> Problem:
    graph = OpGraph.build([f"op{i}" for i in range(len(time_s))], edges)
    return Problem.from_times(
        graph,
        np.array(time_s),
        link_bytes_per_s=1.0,
        device_memory_bytes=memory.get("device_memory_bytes", float("inf")),
        op_memory_bytes=memory.get("op_memory_bytes", [0.0] * len(time_s)),
        name=name,
    )


def chain() -> Toy:
    """Four ops in a row: splitting a chain only adds transfers."""
    problem = _problem("toy_chain", [(0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)], [[1.0, 1.0]] * 4)
    return Toy(problem, "physical", 4.0, "a chain of four ops of 1 s cannot be faster than 4 s")


def independent() -> Toy:
    """Ops of 3, 3, 2, 2, 2 s on two devices: a bin-packing."""
    problem = _problem("toy_independent", [], [[t, t] for t in (3.0, 3.0, 2.0, 2.0, 2.0)])
    return Toy(problem, "physical", 6.0, "12 s of work on two devices, split as 3 + 3 and 2 + 2 + 2")


def two_chains() -> Toy:
    """Two chains of three ops on two devices: one each."""
    edges = [(0, 1, 5.0), (1, 2, 5.0), (3, 4, 5.0), (4, 5, 5.0)]
    problem = _problem("toy_two_chains", edges, [[1.0, 1.0]] * 6)
    return Toy(problem, "physical", 3.0, "6 s of work on two devices, without a transfer")


def diamond() -> Toy:
    """A diamond whose transfer costs more than it saves."""
    edges = [(0, 1, 5.0), (0, 2, 5.0), (1, 3, 5.0), (2, 3, 5.0)]
    problem = _problem("toy_diamond", edges, [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [1.0, 1.0]])
    return Toy(problem, "physical", 6.0, "any split waits 5 s for a transfer to or from the middle: at least 7 s")


def unlike_devices() -> Toy:
    """Two ops, each fast on one device: placement by name alone."""
    problem = _problem("toy_unlike_devices", [], [[1.0, 9.0], [9.0, 2.0]])
    return Toy(problem, "physical", 2.0, "each op on its fast device; the longer takes 2 s")


def memory_bound() -> Toy:
    """A chain that one device could run in 3 s, if it could hold it."""
    problem = _problem(
        "toy_memory_bound", [(0, 1, 0.5), (1, 2, 0.5)], [[1.0, 1.0]] * 3,
        device_memory_bytes=[2.0, 2.0], op_memory_bytes=[1.0, 1.0, 1.0],
    )  # fmt: skip
    return Toy(problem, "physical", 3.5, "no device holds three ops, so one edge of the chain pays 0.5 s")


TOYS: dict[str, Callable[[], Toy]] = {
    toy.__name__: toy for toy in (chain, independent, two_chains, diamond, unlike_devices, memory_bound)
}
