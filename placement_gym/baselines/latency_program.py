"""Latency programme (being written)."""

from placement_gym.arrays import IntArray
from placement_gym.baselines.linear_program import Solver
from placement_gym.baselines.result import Answer
from placement_gym.problem import Problem


def solve_latency(problem: Problem, solver: Solver, *, start: IntArray | None, subgraphs: int) -> Answer:
    """Being written."""
    raise NotImplementedError
