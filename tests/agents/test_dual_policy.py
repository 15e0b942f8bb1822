"""The dual policy: labels, budgets, checkpoints, ablations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from dual import GRAPH, SMALL, free_batch, last, make, vec, weights

import placement_gym as pg
from agents.dual_config import DualPolicyConfig
from agents.dual_policy import DualPolicyAgent
from agents.dual_rollout import log_probabilities
from agents.imitation import labels
from placement_gym.errors import CheckpointMismatch, InvalidOption


def test_teacher_labels() -> None:
    """Ops of largest b-level and devices of earliest finish, ties all; a placement teaches its own devices."""
    graph = pg.OpGraph.build(["a", "b", "c"], [])
    problem = pg.Problem.from_times(graph, [[2.0, 2.0], [2.0, 3.0], [1.0, 1.0]])
    agent = make(problem)
    rollout = free_batch(agent)
    log_p = log_probabilities(agent.policy, agent.graph, rollout, every_step=False, whole=True)
    b_level = torch.tensor([1.0, 1.0, 0.5])
    select, _ = labels(rollout, log_p, b_level)
    at_first = rollout.select_group == 0
    assert dict(zip(rollout.select_ops[at_first].tolist(), select[at_first].tolist(), strict=True)) == {
        0: True,
        1: True,
        2: False,
    }
    _, place = labels(rollout, log_p, torch.ones(3))
    first = {int(rollout.place_ops[i]): place[i].tolist() for i in range(8)}
    assert {0: [True, True], 1: [True, False], 2: [True, True]}.items() >= first.items()
    _, place = labels(rollout, log_p, torch.ones(3), np.array([1, 0, 1], np.int32))
    assert (place.long().argmax(1) == torch.tensor([1, 0, 1])[rollout.place_ops]).all()


@pytest.mark.parametrize("taught", ["critical_path", "placement"])
def test_imitation_raises_agreement(taught: str) -> None:
    """Nothing is simulated, and the policy comes to do what the teacher does."""
    agent = make(GRAPH, config=replace(SMALL, imitation_updates=40, learning_rate=1e-2, op_embedding=True))
    if taught == "placement":
        agent.teacher_op_device = pg.baselines.simulated_annealing(GRAPH, simulator_calls=50).placement.op_device
    updates = [update for update, _ in zip(agent.train(simulator_calls=1), range(40), strict=False)]
    assert updates[-1].simulator_calls == 0
    assert updates[-1].metrics["agreement_device"] > updates[0].metrics["agreement_device"] + 0.1
    if taught == "critical_path":
        assert updates[-1].metrics["agreement_op"] > 0.9


def test_same_seed_same_weights() -> None:
    """One seed gives one set of weights, another seed another; global generators are left alone."""
    before = torch.get_rng_state()
    trained = []
    for seed in (3, 3, 4):
        agent = make(GRAPH, seed)
        last(agent, 48)
        trained.append(weights(agent))
    assert all(torch.equal(a, b) for a, b in zip(trained[0], trained[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(trained[0], trained[2], strict=True))
    assert torch.equal(before, torch.get_rng_state())


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """Training stopped half-way, saved, loaded and gone on with ends as one that was never stopped."""
    whole = make(GRAPH, 5)
    end = last(whole, 96)
    stopped = make(GRAPH, 5)
    for update in stopped.train(simulator_calls=96):
        if update.simulator_calls >= 40:
            break
    stopped.act_sampled(3, seed=0)
    stopped.save(tmp_path / "checkpoint.pt")
    resumed = DualPolicyAgent.load(tmp_path / "checkpoint.pt", vec(GRAPH), torch_device="cpu")
    again = last(resumed, 96)
    assert again.simulator_calls == end.simulator_calls == 96
    assert again.best_makespan_s == end.best_makespan_s
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_weights_fit_any_problem(tmp_path: Path) -> None:
    """Weights alone go to a problem with more ops and devices; other networks are refused."""
    agent = make(GRAPH, config=replace(SMALL, op_embedding=True))
    agent.save(tmp_path / "checkpoint.pt")
    large = pg.workloads.layered(n_ops=40, n_devices=5)
    other = make(large, seed=9)
    other.load_weights(tmp_path / "checkpoint.pt")
    assert torch.equal(other.policy.place_out.weight, agent.policy.place_out.weight)
    assert other.act_greedy().shape == (40,)
    adopting = make(large, seed=9)
    adopting.adopt(agent.policy)
    assert all(torch.equal(a, b) for a, b in zip(weights(adopting), weights(other), strict=True))
    with pytest.raises(CheckpointMismatch, match="expected width 8"):
        make(GRAPH, config=replace(SMALL, width=8)).load_weights(tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointMismatch, match="a checkpoint of another problem"):
        DualPolicyAgent.load(tmp_path / "checkpoint.pt", vec(large))


@pytest.mark.parametrize("toy", ["two_chains", "memory_bound", "unlike_devices"])
def test_solves_toys(toy: str) -> None:
    """The best placement found is the toy's optimum, is feasible and is what the simulator says it is."""
    made = pg.workloads.TOYS[toy]()
    end = last(make(made.problem, rule=made.rule), 240)
    assert end.best_makespan_s == made.optimum_s
    assert pg.simulate(made.problem, end.best_op_device, rule=made.rule).makespan_s == made.optimum_s


@pytest.mark.parametrize("priority", ["none", "selection"])
def test_simulator_calls_are_counted_exactly(priority: str) -> None:
    """Every placement that the evaluator is asked for counts, none is asked for twice, and the budget is kept."""
    agent = make(GRAPH, priority=priority)
    asked: list[np.ndarray] = []
    simulate = agent.search.evaluator

    def counted(op_device: Any, ranks: Any) -> Any:
        asked.append(op_device.copy() if ranks is None else np.concatenate([op_device, ranks], axis=1))
        return simulate(op_device, ranks)

    agent.search.evaluator = counted
    end = last(agent, 101)
    rows = np.concatenate(asked)
    assert end.simulator_calls == len(rows) == len(np.unique(rows, axis=0)) == 101


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "select_only"},
        {"policy": "place_only"},
        {"policy": "joint"},
        {"message_passing": "step"},
        {"op_embedding": True, "epochs": 2},
        {"guided_share": 0.0, "n_elite": 0},
        {"n_guides": 3},
    ],
)
def test_ablations_train(options: dict[str, Any]) -> None:
    """Each finds feasible placements that are better than random ones, and changes its weights."""
    problem = pg.workloads.layered(n_ops=12, n_devices=3, seed=2)
    agent = make(problem, config=replace(SMALL, **options))
    before = weights(agent)
    end = last(agent, 48)
    assert np.isfinite(end.best_makespan_s)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(agent), strict=True))
    assert end.best_makespan_s < pg.baselines.random_search(problem, simulator_calls=10).objective


def test_wrong_options_are_named() -> None:
    """Hyper-parameters outside their range, environments that do not fit, missing budgets."""
    with pytest.raises(InvalidOption, match="unknown policy 'solo'; known: dual, joint, place_only, select_only"):
        DualPolicyConfig(policy="solo")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"guided_share is 1\.5"):
        DualPolicyConfig(guided_share=1.5)
    with pytest.raises(InvalidOption, match="expected 'joint' for policy 'joint'"):
        DualPolicyAgent(vec(GRAPH), replace(SMALL, policy="joint"))
    with pytest.raises(InvalidOption, match="expected the native SelectPlaceVectorEnv"):
        DualPolicyAgent(gym.make_vec("placement_gym/Assign-v0", num_envs=4, problem=GRAPH))
    with pytest.raises(InvalidOption, match="simulator_calls or seconds"):
        next(iter(make(GRAPH).train()))
