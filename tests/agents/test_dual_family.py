"""The family of dual policies: what is shared, what is not, checkpoints, and what it is for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import placement_gym as pg
from agents.agent import Update
from agents.dual_config import DualPolicyConfig
from agents.dual_family import DualFamily
from agents.dual_policy import DualPolicyAgent
from placement_gym.errors import CheckpointMismatch, InvalidOption

SMALL = DualPolicyConfig(batches=4, width=16, n_layers=1, imitation_updates=1, n_elite=2, guided_share=0.5)
TWO = [pg.workloads.layered(n_ops=12 + 4 * i, n_devices=2 + i, seed=i, ccr=1.0) for i in range(2)]


def vec(problem: pg.Problem, num_envs: int = 8) -> Any:
    """The native vector environment."""
    return gym.make_vec("placement_gym/SelectPlace-v0", num_envs=num_envs, problem=problem)


def make(problems: Sequence[pg.Problem] = TWO, seed: int = 0, config: DualPolicyConfig = SMALL) -> DualFamily:
    """A small family."""
    return DualFamily([vec(problem) for problem in problems], config, seed=seed, torch_device="cpu")


def train(family: DualFamily, simulator_calls: int) -> list[Update]:
    """All updates of a training."""
    return list(family.train(simulator_calls=simulator_calls))


def weights(family: DualFamily) -> torch.Tensor:
    """All weights of the policy."""
    return torch.cat([p.detach().flatten() for p in family.policy.parameters()])


def test_members_have_one_policy_and_memories_of_their_own() -> None:
    """What plays, what is evaluated and what the optimiser moves is one object; guides and elite are not."""
    family = make()
    one, other = family.members
    assert one.policy is other.policy is one.player.policy is other.player.policy is family.policy
    assert one.optimiser is other.optimiser
    moved = {id(p) for group in other.optimiser.param_groups for p in group["params"]}
    assert moved == {id(p) for p in other.policy.parameters()}
    train(family, 64)
    assert one.found.guides.now[0].op_device.shape != other.found.guides.now[0].op_device.shape
    assert one.found.elite is not other.found.elite


@pytest.mark.parametrize("turn", [0, 1])
def test_an_update_of_either_member_changes_the_policy_of_both(turn: int) -> None:
    """Before and after one update, seen from the other member."""
    family = make()
    before, seen_by = weights(family), family.members[1 - turn]
    family.members[turn].update(0.0)
    assert not torch.equal(before, torch.cat([p.detach().flatten() for p in seen_by.policy.parameters()]))


def test_turns_are_fair_and_budgets_are_of_the_whole_family() -> None:
    """Every round holds each problem once; calls are added up, end exactly, and lower the learning rate."""
    family = make()
    rates = [update.metrics["learning_rate"] for update in train(family, 100)]
    assert family.simulator_calls == sum(m.simulator_calls for m in family.members) == 100
    assert abs(family.members[0].updates - family.members[1].updates) <= 1
    assert min(m.simulator_calls for m in family.members) > 0
    assert rates[0] == SMALL.learning_rate
    assert 0.1 * SMALL.learning_rate <= rates[-1] < 0.3 * SMALL.learning_rate


def test_a_resumed_family_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """Weights, best placements and calls; a stop in the middle of a round."""
    whole = make(seed=3)
    train(whole, 120)
    first = make(seed=3)
    for update in first.train(simulator_calls=120):
        if update.number == 5:
            break
    first.save(tmp_path / "family.pt")
    again = DualFamily.load(tmp_path / "family.pt", [vec(problem) for problem in TWO], torch_device="cpu")
    assert again.simulator_calls == first.simulator_calls < 120
    train(again, 120)
    assert torch.equal(weights(again), weights(whole))
    for one, other in zip(again.members, whole.members, strict=True):
        assert one.found.best.makespan_s == other.found.best.makespan_s
        assert np.array_equal(one.found.best.op_device, other.found.best.op_device)


def test_a_checkpoint_belongs_to_its_problems_and_its_weights_to_any(tmp_path: Path) -> None:
    """Other problems cannot resume it; an agent on a larger problem with more devices acts as the family's policy."""
    family = make()
    train(family, 64)
    family.save(tmp_path / "family.pt")
    for problems in (TWO[:1], TWO[::-1]):
        with pytest.raises(CheckpointMismatch, match="another problem"):
            DualFamily.load(tmp_path / "family.pt", [vec(problem) for problem in problems])
    with pytest.raises(CheckpointMismatch, match="episodes"):
        DualFamily.load(tmp_path / "family.pt", [vec(problem, num_envs=4) for problem in TWO])
    larger = vec(pg.workloads.layered(n_ops=40, n_devices=5, seed=9))
    agent, shared = (DualPolicyAgent(larger, SMALL, seed=s, torch_device="cpu") for s in (7, 8))
    untrained = agent.act_sampled(8, seed=0)
    agent.load_weights(tmp_path / "family.pt")
    shared.share(family.members[0])
    assert np.array_equal(agent.act_sampled(8, seed=0), shared.act_sampled(8, seed=0))
    assert not np.array_equal(agent.act_sampled(8, seed=0), untrained)


def test_a_teacher_per_member_is_imitated() -> None:
    """All on one device: after some updates the policy does so on a problem that it has not seen."""
    config = DualPolicyConfig(width=16, n_layers=1, imitation_updates=30, learning_rate=1e-2)
    family = make(config=config)
    for member in family.members:
        member.teacher_op_device = np.zeros(member.env.problem.n_ops, np.int32)
    for _ in range(30):
        for member in family.members:
            member.update(0.0)
    unseen = DualPolicyAgent(vec(pg.workloads.layered(n_ops=20, n_devices=4, seed=5)), config, torch_device="cpu")
    unseen.share(family.members[0])
    assert len(np.unique(unseen.act_greedy())) == 1
    assert family.simulator_calls == 0


def test_zero_shot_is_better_than_untrained() -> None:
    """Mean makespan of samples on unseen layered graphs, other sizes and more devices than those trained on."""
    problems = [pg.workloads.layered(n_ops=24, n_devices=3, seed=i, ccr=2.0) for i in range(4)]
    config = DualPolicyConfig(width=16, n_layers=1, imitation_updates=0, guided_share=0.3, batches=1)
    family = make(problems, config=config)
    unseen = [pg.workloads.layered(n_ops=36, n_devices=4, seed=100 + i, ccr=2.0) for i in range(2)]

    def means_s() -> np.ndarray:
        means = []
        for problem in unseen:
            agent = DualPolicyAgent(vec(problem), config, torch_device="cpu")
            agent.share(family.members[0])
            means.append(pg.simulate_batch(problem, agent.act_sampled(32, seed=0)).mean())
        return np.array(means)

    before = means_s()
    train(family, 500)
    assert (means_s() < 0.9 * before).all()


def test_what_a_family_refuses() -> None:
    """No problem, an embedding per op, no budget."""
    with pytest.raises(InvalidOption, match="empty"):
        make([])
    with pytest.raises(InvalidOption, match="op_embedding"):
        make(config=DualPolicyConfig(op_embedding=True))
    with pytest.raises(InvalidOption, match="simulator_calls or seconds"):
        next(make().train())
