"""Placeto: what its embeddings know, what it imitates, what it learns."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import placement_gym as pg
from agents.networks.placement_encoder import PlacementEncoder, PlacementFollower, reachable
from agents.placeto import Placeto, PlacetoConfig
from placement_gym.envs.observation import ACTION_FEATURES

GRAPH = pg.workloads.layered(n_ops=20, n_devices=3, seed=1, ccr=1.0)


def learner(problem: pg.Problem, config: PlacetoConfig, seed: int = 0, num_envs: int = 16) -> Placeto:
    """A learner on the native vector environment."""
    vec_env = gym.make_vec("placement_gym/Assign-v0", num_envs=num_envs, problem=problem)
    return Placeto(vec_env, config, seed=seed, torch_device="cpu")


def test_reachable_by_hand() -> None:
    """0 -> 1 -> 3 and 2 -> 3: what comes before and after each op, itself left out."""
    reach = reachable(torch.tensor([[0, 1, 2], [1, 3, 3]]), 4)
    assert reach.int().tolist() == [[0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


def encoder(edge_index: Tensor, op_features: Tensor) -> PlacementEncoder:
    """With the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PlacementEncoder(op_features, edge_index, 3, width=8, n_rounds=2)


def test_numbering_of_ops_does_not_change_scores() -> None:
    """The current op's context is the same when all ops are renumbered."""
    generator = torch.Generator().manual_seed(0)
    n, edges = 9, torch.tensor([[0, 0, 1, 2, 3, 4, 5, 5], [3, 4, 4, 5, 6, 6, 7, 8]])
    features = torch.randn(n, 4, generator=generator)
    placed = torch.randint(0, 4, (n, 5), generator=generator)
    new = torch.randperm(n, generator=generator)
    moved_features, moved_placed = torch.empty_like(features), torch.empty_like(placed)
    moved_features[new], moved_placed[new] = features, placed
    for op in range(n):
        before = encoder(edges, features)(op, placed)
        after = encoder(new[edges], moved_features)(int(new[op]), moved_placed)
        assert torch.allclose(before, after, atol=1e-5)


def test_placement_so_far_is_seen() -> None:
    """The context of an op changes with the device of an op far before it, and not with other episodes' placements."""
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    placed = torch.tensor([[1, 2], [1, 1], [1, 1], [1, 1], [0, 0]])
    context = encoder(edges, torch.ones(5, 4))(4, placed)
    assert not torch.allclose(context[0], context[1])
    alone = encoder(edges, torch.ones(5, 4))(4, placed[:, :1])
    assert torch.allclose(context[:1], alone, atol=1e-6)


@pytest.mark.parametrize("n_rounds", [0, 1, 3])
def test_follower_says_what_the_encoder_says(n_rounds: int) -> None:
    """Step after step of two batches of episodes, with hubs, lone ops and unlike placements."""
    generator = torch.Generator().manual_seed(1)
    edges = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4, 7], [1, 2, 3, 4, 5, 5, 5, 5, 8]])
    features = torch.randn(10, 4, generator=generator)
    with torch.no_grad():
        model = PlacementEncoder(features, edges, 3, width=8, n_rounds=n_rounds)
        for _ in range(2):
            follow = PlacementFollower(model, 5)
            placed = torch.zeros(10, 5, dtype=torch.int64)
            for op in (0, 9, 1, 2, 7, 3, 4, 5, 6, 8):
                assert torch.allclose(follow(op, placed), model(op, placed), atol=1e-5)
                placed[op] = torch.randint(1, 4, (5,), generator=generator)
    assert len(model.step_plans) == 10


def agreement(agent: Placeto) -> float:
    """Share of greedy steps at which the device is one of earliest finish."""
    rollout = agent._roll_out(greedy=True)
    behind = rollout.features[:, 0, :, ACTION_FEATURES.index("finish_behind")]
    return float((behind.gather(1, rollout.actions[:, :1]) <= 1e-6).float().mean())


def test_imitation_raises_agreement_with_the_teacher() -> None:
    """After imitation alone, most greedy steps choose a device of earliest finish; before, fewer do."""
    agent = learner(GRAPH, PlacetoConfig(imitation_updates=25, n_rounds=1))
    before = agreement(agent)
    *_, end = agent.train(simulator_calls=25 * 16)
    assert end.metrics["imitating"] == 1.0
    assert agreement(agent) > max(before, 0.85)


@pytest.mark.slow
@pytest.mark.parametrize("device_features", [True, False])
def test_learns(device_features: bool) -> None:
    """Without imitation, mean and greedy episodes end well below the first batch: the reward's sign is right."""
    config = PlacetoConfig(
        imitation_updates=0, n_rounds=1, elite_weight=0.0, learning_rate=1e-2, device_features=device_features
    )
    agent = learner(pg.workloads.layered(n_ops=12, n_devices=3, seed=2, ccr=2.0), config)
    first, *_, last = agent.train(simulator_calls=480)
    assert last.metrics["makespan_mean_s"] < 0.93 * first.metrics["makespan_mean_s"]
    assert pg.simulate(agent.env.problem, agent.act_greedy()).makespan_s < 0.93 * first.metrics["makespan_mean_s"]


@pytest.mark.slow
def test_elite_is_imitated() -> None:
    """With a heavy weight on the best placements found, greedy episodes come close to the best."""
    config = PlacetoConfig(imitation_updates=0, n_rounds=1, n_elite=1, elite_weight=10.0, steps_per_update=12)
    agent = learner(GRAPH, config)
    *_, last = agent.train(simulator_calls=320)
    same = np.mean(agent.act_greedy() == last.best_op_device)
    assert same > 0.6
