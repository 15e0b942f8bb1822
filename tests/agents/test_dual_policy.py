"""The dual policy: networks, labels, guides, budgets, checkpoints, ablations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import placement_gym as pg
from agents.agent import Update
from agents.dual_config import DualPolicyConfig
from agents.dual_player import DualPlayer
from agents.dual_policy import DualPolicyAgent
from agents.dual_rollout import DualRollout, judge
from agents.follow import MIRROR, SWAP, TOGETHER
from agents.guides import MOVES, Plan
from agents.imitation import labels
from agents.networks.dual import GUIDE_FEATURES, DualPolicy, Graph
from agents.networks.paths import jump_table, next_on_path, path_mean
from agents.simulated import Simulated
from placement_gym.envs.observation import OP_FEATURES
from placement_gym.errors import CheckpointMismatch, InvalidOption
from placement_gym.pytorch.judge import MeasuredMakespan

SMALL = DualPolicyConfig(width=16, n_layers=1, imitation_updates=3, n_elite=2, batches=2)
GRAPH = pg.workloads.layered(n_ops=16, n_devices=3, seed=1, ccr=1.0)


def vec(problem: pg.Problem, num_envs: int = 8, **options: Any) -> Any:
    """The native vector environment."""
    return gym.make_vec("placement_gym/SelectPlace-v0", num_envs=num_envs, problem=problem, **options)


def make(problem: pg.Problem, seed: int = 0, config: DualPolicyConfig = SMALL, **options: Any) -> DualPolicyAgent:
    """A small learner."""
    if config.policy == "joint":
        options["action"] = "joint"
    return DualPolicyAgent(vec(problem, **options), config, seed=seed, torch_device="cpu")


def last(agent: DualPolicyAgent, simulator_calls: int) -> Update:
    """The last update of a training."""
    *_, update = agent.train(simulator_calls=simulator_calls)
    return update


def free_batch(agent: DualPolicyAgent, n_greedy: int = 0) -> DualRollout:
    """Episodes that follow no guide."""
    return agent.player.play(agent.player.snapshot(), np.random.default_rng(0), n_greedy=n_greedy)


def weights(agent: DualPolicyAgent) -> list[torch.Tensor]:
    """All weights of the policy."""
    return [p.detach().clone() for p in agent.policy.parameters()]


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

    moved = Graph(
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
        judged = judge(agent.policy, agent.graph, episode, every_step=message_passing == "step", whole=True)
        best = torch.full((episode.ops.numel(),), -torch.inf)
        best = best.scatter_reduce(0, episode.place_group, judged.place_log_p.detach().amax(1), "amax")
        if kind == "dual":
            op = torch.full_like(best, -torch.inf)
            best = best + op.scatter_reduce(0, episode.select_group, judged.select_log_p.detach(), "amax")
        assert torch.allclose(judged.taken(episode).detach().flatten(), best, atol=1e-4)


@pytest.mark.parametrize("most", [2, 3, 16])
def test_sel_selects_ready_ops_only(most: int) -> None:
    """Candidates are the ops that are not placed, but whose inputs are, at most so many, those of largest b-level.

    Their probabilities add up to 1.
    """
    agent = make(GRAPH, config=replace(SMALL, max_candidates=most))
    level = agent.graph.op_features[:, OP_FEATURES.index("b_level")]
    rollout = free_batch(agent)
    judged = judge(agent.policy, agent.graph, rollout, every_step=False)
    total = torch.zeros(rollout.ops.numel()).index_add(0, rollout.select_group, judged.select_log_p.detach().exp())
    assert torch.allclose(total, torch.ones_like(total), atol=1e-4)
    inputs: list[set[int]] = [set() for _ in range(GRAPH.n_ops)]
    for a, b in zip(GRAPH.graph.edge_src.tolist(), GRAPH.graph.edge_dst.tolist(), strict=True):
        inputs[b].add(a)
    for t in range(GRAPH.n_ops):
        placed = set(rollout.ops[:t, 2].tolist())
        ready = {v for v in range(GRAPH.n_ops) if v not in placed and inputs[v] <= placed}
        candidates = rollout.select_ops[rollout.select_group == t * 8 + 2].tolist()
        assert len(candidates) == len(set(candidates)) == min(most, len(ready))
        assert set(candidates) <= ready
        assert level[candidates].min() >= max((level[v] for v in ready - set(candidates)), default=0)
        assert int(rollout.ops[t, 2]) in candidates


def test_content_is_the_mean_of_what_is_on_a_device() -> None:
    """The same for an episode with many rows, whose contents are added up along it, as for each of its rows alone."""
    agent = make(GRAPH, config=replace(SMALL, width=4))
    rollout = free_batch(agent)
    everywhere = judge(agent.policy, agent.graph, rollout, every_step=False)
    rollout.sampled_device[::5] = False
    rollout.sampled_device[:, 1:] = False
    rollout.sampled_device[3, 2] = True  # one row of an episode, whose content is added up for it alone
    some = judge(agent.policy, agent.graph, rollout, every_step=False)
    assert len(some.place_rows) == int(rollout.sampled_device.sum()) < len(everywhere.place_rows)
    place = dict(zip(everywhere.place_rows.tolist(), everywhere.place_log_p, strict=True))
    for row, log_p in zip(some.place_rows.tolist(), some.place_log_p, strict=True):
        assert torch.allclose(log_p, place[row], atol=1e-5)


def test_teacher_labels() -> None:
    """Ops of largest b-level and devices of earliest finish, ties all; a placement teaches its own devices."""
    graph = pg.OpGraph.build(["a", "b", "c"], [])
    problem = pg.Problem.from_times(graph, [[2.0, 2.0], [2.0, 3.0], [1.0, 1.0]])
    agent = make(problem)
    rollout = free_batch(agent)
    judged = judge(agent.policy, agent.graph, rollout, every_step=False, whole=True)
    b_level = torch.tensor([1.0, 1.0, 0.5])
    select, _ = labels(rollout, judged, b_level)
    at_first = rollout.select_group == 0
    assert dict(zip(rollout.select_ops[at_first].tolist(), select[at_first].tolist(), strict=True)) == {
        0: True,
        1: True,
        2: False,
    }
    _, place = labels(rollout, judged, torch.ones(3))
    first = {int(rollout.place_ops[i]): place[i].tolist() for i in range(8)}
    assert {0: [True, True], 1: [True, False], 2: [True, True]}.items() >= first.items()
    _, place = labels(rollout, judged, torch.ones(3), np.array([1, 0, 1], np.int32))
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
    """Every placement that the judge is asked for counts, none is asked for twice, and the budget is kept."""
    agent = make(GRAPH, priority=priority)
    asked: list[np.ndarray] = []
    simulate = agent.search.judge

    def counted(op_device: Any, ranks: Any) -> Any:
        asked.append(op_device.copy() if ranks is None else np.concatenate([op_device, ranks], axis=1))
        return simulate(op_device, ranks)

    agent.search.judge = counted
    end = last(agent, 101)
    rows = np.concatenate(asked)
    assert end.simulator_calls == len(rows) == len(np.unique(rows, axis=0)) == 101


def test_a_teachers_placement_is_the_first_guide() -> None:
    """It is best, elite and guide at first, its calls and the one that judges it count, and the end is no worse."""
    annealed = pg.baselines.simulated_annealing(GRAPH, simulator_calls=60)
    agent = make(GRAPH)
    agent.teach(annealed.placement.op_device, simulator_calls=60)
    assert agent.simulator_calls == 61
    assert agent.found.best.makespan_s == agent.found.guides.now[0].makespan_s == annealed.objective
    assert [one.makespan_s for one in agent.found.elite] == [annealed.objective]
    assert last(agent, 100).best_makespan_s <= annealed.objective


def test_a_search_learns_nothing() -> None:
    """Free episodes first, then guided ones, until the calls are spent exactly."""
    agent, plain = make(GRAPH), make(GRAPH)
    before = weights(agent)
    agent.search.run(free=8, simulator_calls=60)
    assert agent.simulator_calls == 60
    assert all(torch.equal(a, b) for a, b in zip(before, weights(agent), strict=True))
    plain.search.run(free=8, simulator_calls=8)
    assert agent.found.best.makespan_s < plain.found.best.makespan_s
    assert pg.simulate(GRAPH, agent.found.best.op_device).makespan_s == agent.found.best.makespan_s


def test_judge_may_be_exchanged() -> None:
    """What another judge measures is what counts from then on, of the placements kept, too; these count as calls."""
    agent = make(GRAPH)
    last(agent, 24)
    kept = [agent.found.best.op_device.tobytes(), *(one.op_device.tobytes() for one in agent.found.pool.kept)]
    asked: list[np.ndarray] = []

    def judge_of_zeros(op_device: Any, _: Any) -> Any:
        asked.extend(op_device)
        return 7.0 + (op_device == 0).mean(axis=1)

    agent.judge_by(judge_of_zeros, candidates=3)
    assert [row.tobytes() for row in asked] == list(dict.fromkeys(kept))[:4]
    assert agent.simulator_calls == 24 + len(asked)
    assert agent.found.best.makespan_s == 7.0 + min((row == 0).mean() for row in asked)
    assert [one.makespan_s for one in agent.found.guides.now] == [
        7.0 + (agent.found.guides.now[0].op_device == 0).mean()
    ]
    assert [one.makespan_s for one in agent.found.elite] == sorted(
        7.0 + (one.op_device == 0).mean() for one in agent.found.elite
    )
    after_two = agent.found.best.makespan_s
    assert 7.0 <= last(agent, 60).best_makespan_s <= after_two


def test_the_third_stage_keeps_the_best_of_the_second() -> None:
    """If nothing is faster where it is measured; weights and guides go on."""
    agent = make(GRAPH)
    best = last(agent, 60).best_op_device
    agent.judge_by(lambda op_device, _: np.where((op_device == best).all(axis=1), 1.0, 2.0))
    assert agent.found.best.op_device.tolist() == best.tolist()
    assert last(agent, 90).best_op_device.tolist() == best.tolist()
    assert agent.found.best.makespan_s == 1.0


@pytest.mark.parametrize("seed", range(2))
def test_noise_does_not_fool_the_third_stage(seed: int) -> None:
    """Measured with 3 % of noise, the best placement ends no slower than that which stage II handed over."""
    agent, rng = make(GRAPH, seed), np.random.default_rng(seed)
    best = last(agent, 24).best_op_device

    def runs(op_device: Any, _: Any, turns: Any) -> Any:
        true_s = pg.simulate_batch(GRAPH, op_device)
        return true_s[turns] * np.exp(0.03 * rng.standard_normal(len(turns)))

    judge = MeasuredMakespan(runs, best, repeats=1, confirmations=9)
    agent.judge_by(judge)
    last(agent, 100)
    assert agent.found.best.op_device.tolist() == judge.op_device.tolist()
    found_s, handed_over_s = pg.simulate_batch(GRAPH, np.stack([agent.found.best.op_device, best]))
    assert found_s <= handed_over_s


@pytest.mark.parametrize("priority", ["none", "selection"])
def test_judges_are_told_the_ranks_of_the_kept(priority: str) -> None:
    """Judged again by the simulator, the pool's placements have the makespans that they had; the best are elite."""
    agent = make(GRAPH, priority=priority)
    last(agent, 40)
    before = [one.makespan_s for one in agent.found.pool.kept]
    agent.judge_by(agent.search.judge)
    found = agent.found
    assert [one.makespan_s for one in found.pool.kept] == before
    assert [one.makespan_s for one in found.elite] == before[: agent.config.n_elite]
    assert found.best.makespan_s == found.guides.now[0].makespan_s == before[0]


def test_names_of_like_devices_do_not_count() -> None:
    """On interchangeable devices a renamed placement has the same key; on others, and in another order, it has not."""
    alike = Simulated(pg.Problem.from_times(pg.OpGraph.build(["a", "b", "c"], []), np.ones((3, 3))))
    a, b, c = (np.array(x, np.int32) for x in ([0, 1, 0], [2, 0, 2], [0, 1, 1]))
    assert alike.key(a) == alike.key(b) != alike.key(c)
    assert alike.key(a, np.array([0, 1, 2])) != alike.key(a, np.array([1, 0, 2]))
    unlike = Simulated(pg.Problem.from_times(pg.OpGraph.build(["a", "b", "c"], []), [[1.0, 1, 2]] * 3))
    assert unlike.key(a) != unlike.key(b)


def test_guided_episodes_leave_their_guide_at_members_only() -> None:
    """Every other op stays; the first member goes elsewhere; the order is the guide's; both guides are followed."""
    agent = make(GRAPH)
    free = free_batch(agent)
    agent.found.guides.now = [agent.found.guides.guide(free.op_device[k], free.order[k], 1.0) for k in range(2)]
    moved = 0
    for seed in range(20):
        plan = agent.found.guides.plan(8, np.random.default_rng(seed))
        rollout = agent.player.follow(agent.player.snapshot(), plan, np.random.default_rng(seed))
        assert plan.guide.tolist() == [0, 1] * 4
        for b in range(8):
            changed = rollout.op_device[b] != free.op_device[b % 2]
            assert not (changed & ~plan.members[b]).any()
            assert changed.any()
            assert (rollout.order[b] == free.order[b % 2]).all()
            moved += int(changed.sum())
    assert moved > 160


@pytest.mark.parametrize(("mode", "expected"), [(TOGETHER, "1111"), (MIRROR, "1001"), (SWAP, "1010")])
def test_members_leave_as_the_move_says(mode: int, expected: str) -> None:
    """Four ops on devices 0, 1, 1, 0, all members, two devices: the first goes to 1, by hand what the others do."""
    problem = pg.Problem.from_times(pg.OpGraph.build(list("abcd"), []), np.ones((4, 2)))
    agent = make(problem)
    guide = agent.found.guides.guide(np.array([0, 1, 1, 0], np.int32), np.arange(4, dtype=np.int32), 1.0)
    move = next(k for k, (_, how) in enumerate(MOVES) if how == mode)
    plan = Plan(
        np.zeros(3, np.int64),
        np.full(3, move),
        np.tile(guide.op_device, (3, 1)),
        np.tile(guide.order, (3, 1)),
        np.ones((3, 4), np.bool_),
        guide.features[None],
    )
    rollout = agent.player.follow(agent.player.snapshot(), plan, np.random.default_rng(0))
    assert ["".join(map(str, row)) for row in rollout.op_device.tolist()] == [expected] * 3
    assert int(rollout.sampled_device.sum()) == 3


@pytest.mark.parametrize("rule", ["giph", "physical"])
def test_replay_sees_what_the_episodes_saw(rule: str) -> None:
    """Features, masks, finish times and devices of free episodes, from their placements and orders alone."""
    agent = make(GRAPH, rule=rule)
    free = free_batch(agent)
    again = agent.player.replay(free.op_device, free.order.astype(np.int64))
    assert (again.op_device == free.op_device).all()
    assert torch.equal(again.ops, free.ops)
    assert torch.equal(again.devices, free.devices)
    assert torch.equal(again.finish, free.finish)
    by_group = again.place_group.argsort()
    assert torch.equal(again.place_ops[by_group], free.place_ops)
    assert torch.equal(again.features[by_group], free.features)
    assert torch.equal(again.masks[by_group], free.masks)


def test_what_guides_tell_by_hand() -> None:
    """Ops a, b, c of 2, 1, 3 s: a and b on device 0, c on 1, which waits for a; d of 1 s on 1 waits for both."""
    graph = pg.OpGraph.build(list("abcd"), [(0, 2, 0.0), (1, 3, 0.0), (2, 3, 0.0)])
    problem = pg.Problem.from_times(graph, [[2.0] * 3, [1.0] * 3, [3.0] * 3, [1.0] * 3])
    agent = make(problem)
    guide = agent.found.guides.guide(np.array([0, 0, 1, 1], np.int32), np.arange(4, dtype=np.int32), 6.0)
    assert guide.chain.tolist() == [3, 2, 0]
    idle = guide.features[:, :, GUIDE_FEATURES.index("guide_idle")]
    # b is ready at 0 and done at 3: device 0 is busy, device 1 works in the third of these seconds.
    assert np.allclose(idle, [[0, 1, 1], [0, 2 / 3, 1], [2 / 3, 0, 1], [1, 0, 1]])
    assert guide.features[:, 0, GUIDE_FEATURES.index("guide_critical")].tolist() == [1, 0, 1, 1]
    assert guide.features[2, :, GUIDE_FEATURES.index("guide_inputs")].tolist() == [1, 0, 0]
    assert guide.features[1, :, GUIDE_FEATURES.index("guide_readers")].tolist() == [0, 1, 0]


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
