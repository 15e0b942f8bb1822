"""ProblemStack: what it measures by, and the worst that can be."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from environments import BARE, free, make
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ALL_RULES, Placed, order_for, placed_problems, random_problem

import placement_gym as pg
from placement_gym.contention import CONTENTIONS, register
from placement_gym.envs.observation import Sizes
from placement_gym.envs.stack import ProblemStack, reference_s, worst_s
from placement_gym.errors import InfeasiblePlacement
from placement_gym.groups import Groups
from placement_gym.objectives import OBJECTIVES, placement_objective_s
from placement_gym.rule import PRESETS


def test_reference_by_hand() -> None:
    """Every op on its fastest device, one after the other; 1 s where that takes no time."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 9.0)])
    assert reference_s(pg.Problem.from_times(graph, [[2.0, 3.0], [np.inf, 4.0]])) == 6.0
    assert reference_s(pg.Problem.from_times(graph, np.zeros((2, 2)))) == 1.0


def test_worst_by_hand() -> None:
    """Ops of at most 3 and 4 s; 4 bytes at 2 bytes/s and the larger latency of 5 s, at both ends of the transfer."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 4.0)])
    latency = np.array([[0.0, 1.0], [5.0, 0.0]])
    problem = pg.Problem.from_times(graph, [[2.0, 3.0], [np.inf, 4.0]], link_latency_s=latency, link_bytes_per_s=2.0)
    assert worst_s(problem, pg.Rule()) == 3 + 4 + 2 * (5 + 4 / 2)


@given(placed_problems(max_ops=9), st.sampled_from([*ALL_RULES, *PRESETS.values()]), st.booleans())
@settings(max_examples=250, deadline=None)
def test_nothing_is_worse_than_the_worst(placed: Placed, rule: pg.Rule, one_device: bool) -> None:
    """No placement exceeds it, whatever the rule, contention and objective; latencies that hold and holds count."""
    problem, op_device, priority = placed
    if one_device and np.isfinite(problem.op_time_s[:, 0]).all():
        op_device = np.zeros_like(op_device)
    worst = worst_s(problem, rule) * (1 + 1e-9)
    schedule = pg.simulate(problem, op_device, rule=rule, priority=order_for(rule, priority), memory="report")
    assert schedule.makespan_s <= worst
    for objective in OBJECTIVES[1:]:
        value = objective_s(objective, problem, op_device)
        assert value is None or value <= worst


def objective_s(objective: str, problem: pg.Problem, op_device: Any) -> float | None:
    """Seconds; None where subgraphs wait for each other in a circle."""
    try:
        return placement_objective_s(objective, problem, op_device)  # type: ignore[arg-type]
    except InfeasiblePlacement:
        assert objective == "latency"
        return None


def tight(seed: int) -> pg.Problem:
    """Five ops that fill two devices in few ways."""
    problem = random_problem(np.random.default_rng(seed), n_ops=5, n_devices=2, edge_share=0.4)
    return replace(
        problem,
        op_memory_bytes=np.random.default_rng(seed).permutation([1.0, 1.0, 1.0, 2.0, 3.0]),
        memory_rule="claims",
        device_memory_bytes=np.full(2, 4.0),
    )


def feasible_objectives_s(env: pg.envs.PlacementEnv, objective: str) -> list[float]:
    """Of all placements of the environment's problem that fit into memory."""
    problem, values = env.problem, list[float | None]()
    for devices in itertools.product(range(problem.n_devices), repeat=problem.n_ops):
        op_device = np.array(devices, np.int32)
        if pg.placement.infeasibility(problem, op_device) is not None:
            continue
        if objective == "makespan":
            values.append(pg.simulate(problem, op_device, rule=env.rule).makespan_s)
        else:
            values.append(objective_s(objective, problem, op_device))
    return [value for value in values if value is not None]


def ends(env: pg.envs.PlacementEnv, returned: float, found: dict[bool, list[float]]) -> None:
    """Collects the returns of all episodes that the mask allows from here on, by whether they fail."""
    state = env.get_state()
    for action in np.flatnonzero(env.action_masks()):
        env.set_state(state)
        _, reward, done, _, info = env.step(action)
        if done:
            found[info["overfull"] or info["objective_s"] == np.inf].append(returned + reward)
        else:
            ends(env, returned + reward, found)


@pytest.mark.parametrize("reward", ["terminal", "dense"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_overfull_end_is_worse_than_any_that_fits(objective: str, reward: str) -> None:
    """Of all episodes of small problems, those that end overfull return less than any placement that fits.

    So do those of which the latency's subgraphs wait for each other.
    """
    n_overfull = 0
    for seed, rule in zip(range(8), itertools.cycle(PRESETS), strict=False):
        problem = tight(seed)
        env = make("Assign", problem=problem, rule=rule, objective=objective, reward=reward)
        env.reset()
        found: dict[bool, list[float]] = {False: [], True: []}
        ends(env, 0.0, found)
        fits = feasible_objectives_s(env, objective)
        n_overfull += len(found[True])
        for one in found[True]:
            assert fits == [] or one < -max(fits) / reference_s(problem)
        if found[False]:
            assert max(found[False]) <= -min(fits) / reference_s(problem) + 1e-9
    assert n_overfull > 3


def test_dead_end_by_hand() -> None:
    """Where an op has room nowhere, the mask opens; the return is minus the worst value and one, over the reference."""
    graph = pg.OpGraph.build(["small0", "small1", "large"], [])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=[1.0, 1.0, 3.0])
    for name, own in BARE:
        options = {**own, "order": "topological"} if name == "Assign" else own
        for reward in ("terminal", "dense"):
            env = make(name, problem=problem, reward=reward, **options)
            seen, _ = env.reset()
            if env.episodes.process.complete:
                continue
            returned, done = 0.0, False
            while not done:
                # `small0` goes to device 0, `small1` to device 1, `large` to 0.
                allowed, n_placed = np.flatnonzero(env.action_masks()), int((seen["op_device"] >= 0).sum())
                action = n_placed if seen["phase"][0] == 0 else n_placed % 2
                action = n_placed * 2 + n_placed % 2 if own.get("action") == "joint" else action
                if n_placed == 2 and seen["phase"][0] > 0:
                    assert (allowed % 2).tolist() == [0, 1]
                seen, earned, done, _, info = env.step(action)
                returned += earned
            assert info["op_device"].tolist() == [0, 1, 0]
            assert (info["overfull"], info["excess_bytes"], info["objective_s"]) == (True, 1.0, 2.0)
            assert returned == pytest.approx(-(3 + 3) / 3)


def test_room_for_more_channels_adds_none() -> None:
    """Where a problem's transfers take more channels each, those of the problems before take as many as before."""

    def by_devices(device_node: np.ndarray) -> np.ndarray:
        d = len(device_node)
        return np.broadcast_to(np.arange(d), (d, d, d)).copy()

    register("by_devices", by_devices)
    try:
        small, large = free(0, 3, 2), free(1, 4, 4)
        stack = ProblemStack(pg.Rule(contention="by_devices"), Sizes.of([small, large]), by_group=False)
        for problem in (small, large):
            stack.put(problem, Groups.of(problem))
        assert stack.arrays is not None
        assert stack.arrays.channels[0, 0, 1].tolist() == stack.arrays.channels[0, 1, 0].tolist() == [0, 1, -1, -1]
        assert stack.arrays.channels[0, 0, 0].tolist() == [-1, -1, -1, -1]
        assert stack.arrays.channels[1, 2, 3].tolist() == [0, 1, 2, 3]
    finally:
        del CONTENTIONS["by_devices"]
