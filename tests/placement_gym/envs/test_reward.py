"""Rewards: their sign, their sum, when they are given."""

from typing import Any

import numpy as np
import pytest
from environments import BARE, BARE_IDS, crowded, free, make, rollout

import placement_gym as pg
from placement_gym.envs.stack import reference_s
from placement_gym.objectives import OBJECTIVES, placement_objective_s


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_the_return_is_minus_the_objective(name: str, own: dict[str, Any], objective: str) -> None:
    """Terminal and dense rewards add up to minus the objective over the reference; both are of one episode."""
    problem = free(1)
    returns = []
    for reward in ("terminal", "dense"):
        env = make(name, problem=problem, objective=objective, reward=reward, **own)
        observations, rewards, info = rollout(env, 1)
        value = (
            pg.simulate(problem, info["op_device"]).makespan_s
            if objective == "makespan"
            else placement_objective_s(objective, problem, info["op_device"])  # type: ignore[arg-type]
        )
        first = float(observations[0]["context"][1]) if env.episodes.process.complete else 0.0
        assert sum(rewards) == pytest.approx(first - value / reference_s(problem), rel=1e-5, abs=1e-6)
        if reward == "terminal":
            assert rewards[:-1] == [0.0] * (len(rewards) - 1)
        elif observations[0]["phase"][0] == 0 and not env.episodes.process.complete:
            assert rewards[::2] == [0.0] * problem.n_ops
        if not env.episodes.process.complete:
            assert (np.array(rewards[:-1]) <= 0).all()
            assert sum(rewards) < 0
        returns.append(sum(rewards))
    assert returns[0] == pytest.approx(returns[1])


def test_dense_rewards_by_hand() -> None:
    """Two ops of 1 s and a transfer of 2 s: apart, the second adds 3 s; together, 1 s; of loads the largest counts."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 2.0)])
    problem = pg.Problem.from_times(graph, np.ones((2, 2)), link_bytes_per_s=1.0)
    for objective, devices, expected in (
        ("makespan", (0, 1), [-1, -3]),
        ("makespan", (0, 0), [-1, -1]),
        ("latency", (1, 1), [-1, -1]),
        ("max_load", (0, 0), [-1, -1]),
        # Both accelerators pay for the transfer: a load of 3 s each.
        ("max_load", (0, 1), [-1, -2]),
    ):
        env = make("Assign", problem=problem, reward="dense", objective=objective)
        env.reset()
        rewards = [env.step(device)[1] for device in devices]
        assert rewards == pytest.approx(np.array(expected) / 2)


def test_a_circle_of_subgraphs_is_an_end_that_fails() -> None:
    """`a` to `b` and `c` to `d`, `a` and `d` on one device, the others on another: each waits for the other."""
    graph = pg.OpGraph.build(list("abcd"), [(0, 1, 1.0), (2, 3, 1.0)])
    problem = pg.Problem.from_times(graph, np.ones((4, 2)), link_bytes_per_s=1.0)
    for reward in ("terminal", "dense"):
        env = make("Assign", problem=problem, objective="latency", order="topological", reward=reward)
        returns = []
        for devices in ((0, 1, 1, 0), (0, 1, 0, 1)):
            env.reset()
            place = dict(zip(problem.graph.order.tolist(), [devices[op] for op in problem.graph.order], strict=True))
            rewards = []
            for op in problem.graph.order.tolist():
                _, earned, _, _, info = env.step(place[op])
                rewards.append(earned)
            returns.append(sum(rewards))
            assert not info["overfull"]
            assert info["makespan_s"] == pg.simulate(problem, devices).makespan_s
            assert (info["objective_s"] == np.inf) == (devices[2] == 1)
        # The worst is 4 s of work and 2 s of transfers at both ends; a reference is 4 s.
        assert returns == pytest.approx([-(8 + 4) / 4, -info["objective_s"] / 4])


def test_better_placements_return_more() -> None:
    """Of random episodes, the one of the least makespan has the largest return."""
    env = make("Assign", problem=crowded(3))
    told = [rollout(env, seed)[1:] for seed in range(30)]
    fits = [(sum(rewards), info["makespan_s"]) for rewards, info in told if not info["overfull"]]
    assert max(fits)[1] == min(makespan for _, makespan in fits) < max(makespan for _, makespan in fits)
