"""What the dual policy finds: teachers, evaluators, guides, and the episodes that follow them."""

from typing import Any

import numpy as np
import pytest
import torch
from dual import GRAPH, free_batch, last, make, weights

import placement_gym as pg
from agents.follow import MIRROR, SWAP, TOGETHER
from agents.guides import MOVES, GuidedPlan
from agents.networks.dual import GUIDE_FEATURES
from agents.simulated import Simulated
from placement_gym.errors import InvalidOption
from placement_gym.pytorch.measured_makespan import MeasuredMakespan


def test_a_teachers_placement_is_the_first_guide() -> None:
    """It is best, elite and guide at first, its calls and the one that evaluates it count, and the end is no worse."""
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


def test_evaluator_may_be_exchanged() -> None:
    """What another evaluator says is what counts from then on, of the placements kept, too; these count as calls."""
    agent = make(GRAPH)
    last(agent, 24)
    kept = [agent.found.best.op_device.tobytes(), *(one.op_device.tobytes() for one in agent.found.pool.kept)]
    asked: list[np.ndarray] = []

    def evaluator_of_zeros(op_device: Any, _: Any) -> Any:
        asked.extend(op_device)
        return 7.0 + (op_device == 0).mean(axis=1)

    agent.evaluate_by(evaluator_of_zeros, candidates=3)
    assert [row.tobytes() for row in asked] == list(dict.fromkeys(kept))[:4]
    assert agent.simulator_calls == 24 + len(asked)
    assert agent.found.best.makespan_s == 7.0 + min((row == 0).mean() for row in asked)
    assert [one.makespan_s for one in agent.found.guides.now] == [
        7.0 + (agent.found.guides.now[0].op_device == 0).mean()
    ]
    assert [one.makespan_s for one in agent.found.elite] == sorted(
        7.0 + (one.op_device == 0).mean() for one in agent.found.elite
    )
    with pytest.raises(InvalidOption, match="candidates is -1; expected >= 0"):
        agent.evaluate_by(evaluator_of_zeros, candidates=-1)
    after_two = agent.found.best.makespan_s
    assert 7.0 <= last(agent, 60).best_makespan_s <= after_two


def test_a_teachers_placement_is_evaluated_again() -> None:
    """However slow it is in the simulator: right after the best."""
    agent = make(GRAPH)
    slow = np.zeros(GRAPH.n_ops, np.int32)
    agent.teach(slow)
    best = last(agent, 60).best_op_device
    asked: list[np.ndarray] = []

    def evaluator_of_halves(op_device: Any, _: Any) -> Any:
        asked.extend(op_device)
        return np.where((op_device == slow).all(axis=1), 0.5, 1.0)

    agent.evaluate_by(evaluator_of_halves, candidates=1)
    assert [row.tolist() for row in asked] == [best.tolist(), slow.tolist()]
    assert agent.found.best.op_device.tolist() == agent.found.guides.now[0].op_device.tolist() == slow.tolist()


def test_the_third_stage_keeps_the_best_of_the_second() -> None:
    """If nothing is faster where it is measured; weights and guides go on."""
    agent = make(GRAPH)
    best = last(agent, 60).best_op_device
    agent.evaluate_by(lambda op_device, _: np.where((op_device == best).all(axis=1), 1.0, 2.0))
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

    evaluator = MeasuredMakespan(runs, best, repeats=1, confirmations=9)
    agent.evaluate_by(evaluator)
    last(agent, 100)
    assert agent.found.best.op_device.tolist() == evaluator.op_device.tolist()
    found_s, handed_over_s = pg.simulate_batch(GRAPH, np.stack([agent.found.best.op_device, best]))
    assert found_s <= handed_over_s


@pytest.mark.parametrize("priority", ["none", "selection"])
def test_evaluators_are_told_the_ranks_of_the_kept(priority: str) -> None:
    """Evaluated again by the simulator, the pool's placements have the makespans that they had; the best are elite."""
    agent = make(GRAPH, priority=priority)
    last(agent, 40)
    before = [one.makespan_s for one in agent.found.pool.kept]
    agent.evaluate_by(agent.search.evaluator)
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
    plan = GuidedPlan(
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
