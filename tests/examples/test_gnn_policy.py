"""The graph network of the examples: one for all environments."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import placement_gym as pg
from examples.gnn_policy import GnnPolicy
from placement_gym.envs import Sizes, to_pyg

ENVS = sorted(name for name in gym.registry if name.startswith("placement_gym/"))
CASES = [(name, options) for name in ENVS for options in ({}, *([{"action": "joint"}] if "Select" in name else []))]


def policy() -> GnnPolicy:
    """The same weights each time."""
    torch.manual_seed(0)
    return GnnPolicy()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_same_weights_serve_all_environments(name: str, options: dict[str, Any]) -> None:
    """Logits are finite exactly where an action is allowed, and a whole episode can be played."""
    env = gym.make_vec(name, num_envs=3, autoreset_mode="DISABLED", **options)
    seen, _ = env.reset(seed=0)
    net, done = policy(), np.zeros(3, np.bool_)
    n_actions = int(env.single_action_space.n)  # type: ignore[attr-defined]
    while not done.all():
        chosen, values = net.distribution(seen, n_actions)
        assert (torch.isfinite(chosen.logits).numpy() == seen["action_mask"].astype(bool)).all()
        assert torch.isfinite(values).all()
        seen, _, done, _, _ = env.step(chosen.sample().numpy())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_larger_padding_changes_nothing(name: str, options: dict[str, Any]) -> None:
    """Logits and values are equal to the last bit, along an episode."""
    problem = pg.workloads.layered(n_ops=8, n_devices=3, seed=1)
    sizes = Sizes(problem.n_ops + 3, problem.graph.n_edges + 4, problem.n_devices + 2)
    tight = gym.make(name, problem=problem, **options)
    wide = gym.make(name, problem=problem, sizes=sizes, **options)
    seen, seen_wide, net, done = tight.reset(seed=0)[0], wide.reset(seed=0)[0], policy(), False
    while not done:
        graph, graph_wide = to_pyg(seen), to_pyg(seen_wide)
        (logits, value), (logits_wide, value_wide) = net(graph), net(graph_wide)
        assert torch.equal(logits, logits_wide)
        assert torch.equal(value, value_wide)
        choice = int(logits.argmax())
        seen, _, done, _, _ = tight.step(graph.action_number[choice].numpy())
        seen_wide, *_ = wide.step(graph_wide.action_number[choice].numpy())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_rows_of_a_batch_do_not_see_each_other(name: str, options: dict[str, Any]) -> None:
    """A batch of problems of other sizes has the logits of each alone."""
    problems = [pg.workloads.layered(n_ops=n, n_devices=d, seed=n) for n, d in ((6, 2), (9, 4))]
    env = gym.make_vec(name, num_envs=4, problems=problems, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(5):
        seen, *_ = env.step(env.action_space.sample())
    net, batch = policy(), to_pyg(seen)
    logits, values = net(batch)
    for row, graph in enumerate(batch.to_data_list()):
        alone, value = net(graph)
        assert torch.allclose(logits[batch.action_graph == row], alone, atol=1e-5)
        assert torch.allclose(values[row], value, atol=1e-5)
