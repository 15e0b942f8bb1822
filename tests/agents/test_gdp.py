"""GDP: its one-shot scores, its teacher, what it learns."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import placement_gym as pg
from agents.gdp import Gdp, GdpConfig
from agents.networks.segment_encoder import SegmentAttention, positions
from placement_gym.envs.observation import ACTION_FEATURES, table
from placement_gym.errors import InfeasiblePlacement

GRAPH = pg.workloads.layered(n_ops=20, n_devices=3, seed=1, ccr=1.0)
SMALL = GdpConfig(width=16, n_layers=1, n_heads=2, segment=8, learning_rate=1e-2, imitation_updates=0)


def vec(problem: pg.Problem, num_envs: int = 16) -> "gym.vector.VectorEnv":  # type: ignore[type-arg]
    """The native vector environment."""
    return gym.make_vec("placement_gym/Assign-v0", num_envs=num_envs, problem=problem)


def renumbered(problem: pg.Problem, new: np.ndarray) -> pg.Problem:  # type: ignore[type-arg]
    """The same problem; op i is op new[i]."""
    graph, old = problem.graph, np.argsort(new)
    ends = zip(new[graph.edge_src].tolist(), new[graph.edge_dst].tolist(), graph.edge_bytes.tolist(), strict=True)
    again = pg.OpGraph.build([graph.op_names[i] for i in old], list(ends))
    return pg.Problem.from_times(
        again,
        problem.op_time_s[old],
        link_latency_s=problem.link_latency_s,
        link_bytes_per_s=problem.link_bytes_per_s,
    )


def test_numbering_of_ops_does_not_change_scores() -> None:
    """Each op's logits are the same when all ops are renumbered (their order of placing has no ties here)."""
    rng = np.random.default_rng(0)
    new = rng.permutation(GRAPH.n_ops)
    same = renumbered(GRAPH, np.arange(GRAPH.n_ops))
    before, after = (Gdp(vec(p), SMALL, torch_device="cpu")._logits() for p in (same, renumbered(GRAPH, new)))
    assert torch.allclose(before, after[torch.from_numpy(new)], atol=1e-4)


def test_attention_reaches_its_segment_and_the_one_before() -> None:
    """Changing op 0 changes the first two segments of three and no more; padding changes nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention, h = SegmentAttention(8, 2, 4), torch.randn(11, 8)
    other = h.clone()
    other[0] *= -1
    changed = (attention(h) - attention(other)).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [True] * 8 + [False] * 3
    assert torch.allclose(attention(h[:8]), attention(h)[:8], atol=1e-6)


def test_positions_are_told_apart() -> None:
    """No two of the first 256 positions look alike."""
    waves = positions(256, 8, torch.device("cpu"))
    distance = torch.cdist(waves, waves) + 10 * torch.eye(256)
    assert distance.min() > 1e-2


def test_scores_are_one_shot() -> None:
    """An op's scores do not depend on where the ops before it were placed."""
    agent = Gdp(vec(GRAPH), SMALL, torch_device="cpu")
    score = agent._scorer()
    features, mask = torch.rand(16, 3, len(ACTION_FEATURES)), torch.ones(16, 3, dtype=torch.bool)
    scores = score(5, features, mask)
    assert (scores == scores[0]).all()
    mask[3, 1] = False
    assert score(5, features, mask)[3, 1] == -torch.inf


def test_imitation_raises_agreement_with_the_teacher(tmp_path: Path) -> None:
    """The given teacher is episode 0 of the first batch; afterwards the greedy placement is nearly its own."""
    teacher = pg.baselines.critical_path(GRAPH, n_tries=1).placement.op_device
    config = GdpConfig(width=32, n_layers=1, imitation_updates=25, learning_rate=1e-2, entropy=0.0)
    agent = Gdp(vec(GRAPH), config, torch_device="cpu", teacher=teacher)
    before = float(np.mean(agent.act_greedy() == teacher))
    first, *_ = agent.train(simulator_calls=25 * 16)
    assert first.metrics["makespan_greedy_s"] == pg.simulate(GRAPH, teacher).makespan_s
    after = float(np.mean(agent.act_greedy() == teacher))
    assert before < 0.8
    assert after > 0.9
    agent.save(tmp_path / "checkpoint.pt")
    again = Gdp.load(tmp_path / "checkpoint.pt", vec(GRAPH))
    assert again._teacher is not None
    assert (again._teacher.numpy() == teacher).all()


def test_own_teacher_is_earliest_finish() -> None:
    """Without a given teacher, episode 0 of the first batch places each op where it finishes first."""
    agent = Gdp(vec(GRAPH), GdpConfig(imitation_updates=1), torch_device="cpu")
    next(iter(agent.train(simulator_calls=16)))
    assert agent._teacher is not None
    env = agent.env
    observation, _ = env.reset()
    info: dict[str, Any] = {}
    while not info:
        finish = table("action_features", observation["action_features"])[:, :, ACTION_FEATURES.index("finish")]
        observation, _, _, _, info = env.step(finish.argmin(axis=1))
    assert (agent._teacher.numpy() == info["op_device"][0]).all()


def test_infeasible_teacher_is_named() -> None:
    """A teacher outside the devices is refused."""
    with pytest.raises(InfeasiblePlacement, match="is on device 9"):
        Gdp(vec(GRAPH), SMALL, teacher=np.full(GRAPH.n_ops, 9, np.int32))


def test_learns() -> None:
    """Without imitation, mean and greedy episodes end well below the first batch: the reward's sign is right."""
    config = GdpConfig(width=32, n_layers=1, imitation_updates=0, elite_weight=0.0, learning_rate=3e-3)
    agent = Gdp(vec(pg.workloads.layered(n_ops=14, n_devices=3, seed=2, ccr=2.0)), config, torch_device="cpu")
    first, *_, last = agent.train(simulator_calls=640)
    assert last.metrics["makespan_mean_s"] < 0.93 * first.metrics["makespan_mean_s"]
    assert pg.simulate(agent.env.problem, agent.act_greedy()).makespan_s < 0.93 * first.metrics["makespan_mean_s"]
