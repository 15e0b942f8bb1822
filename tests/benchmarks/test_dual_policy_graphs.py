"""The dual policy on the published graphs of DOPPLER against simulated annealing with as many simulator calls."""

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import placement_gym as pg
from agents.dual_policy import DualPolicyAgent

pytestmark = pytest.mark.benchmark
Figure = Callable[..., bool]
# Others than the defaults were chosen with.
SEEDS = range(10, 20)


def found(problem: pg.Problem, calls: int, seed: int, *, taught: bool) -> tuple[float, float]:
    """Makespans, seconds, of the best placement found and of the greedy one after training, defaults throughout."""
    vec_env = gym.make_vec("placement_gym/SelectPlace-v0", num_envs=8, problem=problem, rule="giph")
    agent = DualPolicyAgent(vec_env, seed=seed, torch_device="cpu")
    if taught:
        teacher = pg.baselines.enumerative(problem, rule="giph")
        agent.teach(teacher.placement.op_device, simulator_calls=teacher.simulator_calls)
    *_, update = agent.train(simulator_calls=calls)
    assert update.simulator_calls <= calls
    best = pg.simulate(problem, update.best_op_device, rule="giph").makespan_s
    return best, pg.simulate(problem, agent.act_greedy(), rule="giph").makespan_s


@pytest.mark.parametrize(
    ("graph", "calls"),
    [
        ("chain_mm_112nodes", 4000),
        ("ffnn_192nodes", 4000),
        ("transformer_block_215nodes", 8000),
        ("full_transformer_layer_261nodes", 8000),
    ],
)
def test_against_annealing(figure: Figure, shared_data: Path, graph: str, calls: int) -> None:
    """Means over ten seeds, spread beside them; taught by the critical path, as published, and by `enumerative`."""
    problem = pg.workloads.read_doppler(shared_data / "doppler" / f"{graph}.txt")
    annealed = [
        pg.baselines.simulated_annealing(problem, rule="giph", simulator_calls=calls, seed=seed).objective
        for seed in SEEDS
    ]
    held = []
    for teacher in ("critical path", "enumerative"):
        pairs = [found(problem, calls, seed, taught=teacher == "enumerative") for seed in SEEDS]
        best, greedy = (np.array(column) for column in zip(*pairs, strict=True))
        name = f"dual policy taught by {teacher}, {graph}, {calls:,} calls, mean of 10 seeds"
        context = {"found": np.sort(best).round(3).tolist(), "greedy": round(float(greedy.mean()), 3)}
        figure(name, float(best.mean()), "published unit", **context)
        over = float(best.mean() / np.mean(annealed))
        spread = np.sort(annealed).round(3).tolist()
        # A ten-thousandth is a tie: the chain's makespans are 1200 and 1300 but for the smallest transfers.
        held.append(figure(f"{name}, over annealing", over, "x", "<= 1.0001", annealing=spread))
    # The agent may choose its teacher (`teach`); which of them is enough is said above.
    assert held[-1]
