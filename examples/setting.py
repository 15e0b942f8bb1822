"""What the examples share: a problem, a budget and a seed from the command line, and the comparison at the end."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

import placement_gym as pg


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What an example runs on.

    Attributes:
        problem: What is placed.
        episodes: Episodes to learn from; each ends with one call of the simulator.
        seed: Of everything that is random.
    """

    problem: pg.Problem
    episodes: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps of that many episodes of Assign-v0."""
        return self.episodes * self.problem.n_ops

    def report(self, name: str, makespans_s: Sequence[float]) -> None:
        """Prints the best makespan beside simulated annealing's with as many simulator calls.

        Args:
            name: Of the learner.
            makespans_s: Of all episodes, in their order.
        """
        calls, tenth = len(makespans_s), max(1, len(makespans_s) // 10)
        found = pg.baselines.simulated_annealing(self.problem, simulator_calls=max(20, calls), seed=self.seed)
        best, annealed = 1e3 * min(makespans_s), 1e3 * found.schedule.makespan_s
        early, late = 1e3 * np.mean(makespans_s[:tenth]), 1e3 * np.mean(makespans_s[-tenth:])
        print(f"{name}, seed {self.seed}: best makespan of {calls} episodes {best:.3f} ms", end="")
        print(f" (mean of the first tenth {early:.3f} ms, of the last {late:.3f} ms);", end="")
        print(f" simulated annealing {annealed:.3f} ms with as many simulator calls")


def setting(about: str, arguments: Sequence[str] | None = None) -> Setting:
    """The setting that the command line asks for."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--problem", help="path of a saved problem; 40 ops on 4 devices where it is missing")
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.episodes < 1:
        parser.error(f"--episodes is {given.episodes}; expected >= 1")
    torch.set_num_threads(1)  # tensors are small
    default = pg.workloads.layered(n_ops=40, n_devices=4, seed=0)
    return Setting(pg.Problem.load(given.problem) if given.problem else default, given.episodes, given.seed)
