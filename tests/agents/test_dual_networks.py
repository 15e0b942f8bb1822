"""The dual policy's networks: paths, heads, and what training sees of a rollout."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dual import GRAPH, SMALL, free_batch, last, make
from strategies import random_problem

import placement_gym as pg
from agents.dual_player import DualPlayer
from agents.dual_rollout import DualRollout, log_probabilities
from agents.graph_input import OP_INPUTS
from agents.networks.dual import DualPolicy, GraphTensors
from agents.networks.paths import jump_table, next_on_path, path_mean


def test_paths_are_indexed_by_op() -> None:
    """By hand: 0 -> 1 -> 3 is longer than 0 -> 2 -> 3; op 4 stands alone; means are over each op's own path."""
    edges = np.array([[0, 0, 1, 2], [1, 2, 3, 3]])
    time, transfer = np.array([1.0, 5, 2, 1, 9]), np.array([1.0, 1, 1, 1])
    down, up = (next_on_path(time, e, transfer) for e in (edges, edges[::-1]))
    assert down.tolist() == [1, 3, 3, 5, 5]
    assert up.tolist() == [5, 0, 0, 1, 5]
    values = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    exit_mean = [11 / 3, 5.0, 6.0, 8.0, 16.0]
    assert torch.allclose(path_mean(values, jump_table(down)).squeeze(1), torch.tensor(exit_mean))
    assert torch.allclose(path_mean(values, jump_table(up)).squeeze(1), torch.tensor([1.0, 1.5, 2.5, 11 / 3, 16.0]))


def test_transfers_count_on_paths() -> None:
    """The longer transfer decides between two readers alike; ties go to the smaller number."""
    edges, time = np.array([[0, 0], [1, 2]]), np.ones(3)
    assert next_on_path(time, edges, np.array([1.0, 2.0]))[0] == 2
    assert next_on_path(time, edges, np.array([1.0, 1.0]))[0] == 1


def test_heads_do_not_depend_on_numbering() -> None:
    """Ops and devices renumbered: scores are renumbered alike."""
    agent = make(GRAPH)
    graph, n = agent.graph, GRAPH.n_ops
    new = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    old = new.argsort()
    numbered = torch.cat([old, torch.tensor([n])])

    def renumbered(jumps: torch.Tensor) -> torch.Tensor:
        return numbered[jumps[:, torch.cat([new, torch.tensor([n])])]]

    moved = GraphTensors(
        graph.op_features[new],
        old[graph.edge_index],
        graph.edge_features,
        renumbered(graph.to_exit),
        renumbered(graph.from_entry),
    )
    with torch.no_grad():
        one, other = agent.policy.encode(graph), agent.policy.encode(moved)
        for a, b in ((one.select, other.select), (one.place, other.place), (one.content, other.content)):
            assert torch.allclose(a[new], b, atol=1e-5)
        rollout = free_batch(agent)
        features, mask = rollout.features[:5], rollout.masks[:5]
        content = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(1))
        ops, turned = one.place[rollout.place_ops[:5]], [2, 0, 1]
        scores = agent.policy.place_scores(ops, content, features, mask)
        again = agent.policy.place_scores(ops, content[:, turned], features[:, turned], mask[:, turned])
    assert torch.allclose(scores[:, turned], again, atol=1e-5)


@pytest.mark.parametrize("kind", ["dual", "joint"])
@pytest.mark.parametrize("message_passing", ["episode", "step"])
def test_training_sees_what_the_rollout_saw(kind: Any, message_passing: Any) -> None:
    """Greedy choices of the Numba heads are the most likely ones of the torch heads, at every step."""
    agent = make(GRAPH, config=replace(SMALL, policy=kind, message_passing=message_passing))
    rollout = free_batch(agent, n_greedy=8)
    for episode in (rollout, DualRollout.joined([rollout, rollout])):
        log_p = log_probabilities(agent.policy, agent.graph, episode, every_step=message_passing == "step", whole=True)
        best = torch.full((episode.ops.numel(),), -torch.inf)
        best = best.scatter_reduce(0, episode.place_group, log_p.place_log_p.detach().amax(1), "amax")
        if kind == "dual":
            op = torch.full_like(best, -torch.inf)
            best = best + op.scatter_reduce(0, episode.select_group, log_p.select_log_p.detach(), "amax")
        assert torch.allclose(log_p.taken(episode).detach().flatten(), best, atol=1e-4)


# Ops with several inputs from one op, and more ready ops at a time than GRAPH has.
WIDE = random_problem(np.random.default_rng(4), n_ops=30, n_devices=3, edge_share=0.1)


@pytest.mark.parametrize(("problem", "most"), [(GRAPH, 2), (GRAPH, 3), (GRAPH, 16), (WIDE, 4), (WIDE, 30)])
def test_sel_selects_ready_ops_only(problem: pg.Problem, most: int) -> None:
    """Candidates are the ops that are not placed, but whose inputs are, at most so many, those of largest b-level.

    Their probabilities add up to 1.
    """
    agent = make(problem, config=replace(SMALL, max_candidates=most))
    level = agent.graph.op_features[:, OP_INPUTS.index("b_level")]
    rollout = free_batch(agent)
    log_p = log_probabilities(agent.policy, agent.graph, rollout, every_step=False)
    total = torch.zeros(rollout.ops.numel()).index_add(0, rollout.select_group, log_p.select_log_p.detach().exp())
    assert torch.allclose(total, torch.ones_like(total), atol=1e-4)
    inputs: list[set[int]] = [set() for _ in range(problem.n_ops)]
    for a, b in zip(problem.graph.edge_src.tolist(), problem.graph.edge_dst.tolist(), strict=True):
        inputs[b].add(a)
    for t in range(problem.n_ops):
        placed = set(rollout.ops[:t, 2].tolist())
        ready = {v for v in range(problem.n_ops) if v not in placed and inputs[v] <= placed}
        candidates = rollout.select_ops[rollout.select_group == t * 8 + 2].tolist()
        assert len(candidates) == len(set(candidates)) == min(most, len(ready))
        assert set(candidates) <= ready
        assert level[candidates].min() >= max((level[v] for v in ready - set(candidates)), default=0)
        assert int(rollout.ops[t, 2]) in candidates


def test_content_is_the_mean_of_what_is_on_a_device() -> None:
    """The same for an episode with many rows, whose contents are added up along it, as for each of its rows alone."""
    agent = make(GRAPH, config=replace(SMALL, width=4))
    rollout = free_batch(agent)
    everywhere = log_probabilities(agent.policy, agent.graph, rollout, every_step=False)
    rollout.sampled_device[::5] = False
    rollout.sampled_device[:, 1:] = False
    rollout.sampled_device[3, 2] = True  # one row of an episode, whose content is added up for it alone
    some = log_probabilities(agent.policy, agent.graph, rollout, every_step=False)
    assert len(some.place_rows) == int(rollout.sampled_device.sum()) < len(everywhere.place_rows)
    place = dict(zip(everywhere.place_rows.tolist(), everywhere.place_log_p, strict=True))
    for row, log_p in zip(some.place_rows.tolist(), some.place_log_p, strict=True):
        assert torch.allclose(log_p, place[row], atol=1e-5)


def test_player_keeps_to_memory() -> None:
    """Episodes on a memory-bound problem with unsupported devices are feasible, guided ones too."""
    time = np.ones((9, 3))
    time[0, 0] = time[1, 1] = np.inf
    graph = pg.OpGraph.build([f"op{i}" for i in range(9)], [])
    problem = pg.Problem.from_times(graph, time, device_memory_bytes=3.0, op_memory_bytes=np.ones(9))
    agent = make(problem)
    end = last(agent, 64)
    pg.Placement(end.best_op_device).check(problem)
    player = DualPlayer(agent.episodes, DualPolicy(8, 1), agent.graph, kind="dual", every_step=False, max_candidates=16)
    plan = agent.found.guides.plan(8, np.random.default_rng(0))
    for rollout in (free_batch(agent), player.follow(player.snapshot(), plan, np.random.default_rng(0))):
        for op_device in rollout.op_device:
            pg.Placement(op_device).check(problem)
