"""Masks, features and rebuilds of Improve-v0 against plain definitions."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs.assign import assignment_order
from placement_gym.envs.device_features import EpisodeProblem, describe
from placement_gym.envs.observation import ACTION_FEATURES, table
from placement_gym.envs.stack import reference_s, worst_s
from placement_gym.groups import Groups
from placement_gym.placement import infeasibility
from placement_gym.simulator import compile_problem
from placement_gym.simulator.partial import PartialPlacement, PartialProblem, put


def unlike(seed: int, n_ops: int = 10) -> pg.Problem:
    """A random problem with ties, ops that not all devices can run, and a colocation group."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n_ops=n_ops, n_devices=3, unsupported=True)
    able = np.flatnonzero(np.isfinite(problem.op_time_s[:, 0]))
    colocation = np.full(n_ops, -1, np.int32)
    colocation[rng.choice(able, 3, replace=False)] = 0
    return replace(problem, graph=replace(problem.graph, op_colocation=colocation))


def tight(seed: int, n_ops: int = 10) -> pg.Problem:
    """The same, where devices have room for a little more than their share of what ops claim."""
    problem = unlike(seed, n_ops)
    claims = np.random.default_rng(seed).integers(1, 5, n_ops).astype(float)
    room = np.full(3, np.ceil(claims.sum() / 2))
    return replace(problem, memory_rule="claims", op_memory_bytes=claims, device_memory_bytes=room)


def live(seed: int, n_ops: int = 10) -> pg.Problem:
    """The same, where devices have room for some parameters beside what the largest op needs while it runs."""
    problem = unlike(seed, n_ops)
    room = problem.op_working_bytes.max() + max(
        Groups.of(problem).memory_bytes.max(), np.ceil(problem.op_memory_bytes.sum() / 3)
    )
    return replace(problem, device_memory_bytes=np.full(3, room))


def make(problem: pg.Problem, **options: Any) -> pg.envs.ImproveEnv:
    """Improve-v0 without wrappers."""
    return gym.make("placement_gym/Improve-v0", problem=problem, **options).unwrapped  # type: ignore[return-value]


class Plain:
    """What the environment should say, op by op in Python.

    Args:
        problem: The problem.
        rule: Simulator rule.
        groups: Ops that move together.
    """

    def __init__(self, problem: pg.Problem, rule: str = "physical", groups: Groups | None = None) -> None:
        compiled = compile_problem(problem, pg.rule.resolve_rule(rule))
        self.problem, self.groups = problem, groups or Groups.of(problem)
        self.order = assignment_order(problem, "rank").tolist()
        self.partial = PartialProblem.of(compiled, self.groups)
        self.work = np.stack(
            [problem.op_time_s[self.groups.op_group == g].sum(axis=0) for g in self.groups.op_group.tolist()]
        )
        self.episode = EpisodeProblem(self.partial, reference_s(problem), self.work)

    def leads(self) -> list[int]:
        """The first op of each group, in the order."""
        seen: dict[int, int] = {}
        for op in self.order:
            seen.setdefault(int(self.groups.op_group[op]), op)
        return list(seen.values())

    def moved(self, op_device: NDArray[Any], op: int, device: int) -> NDArray[Any]:
        """The placement with the group of an op elsewhere."""
        return np.where(self.groups.op_group == self.groups.op_group[op], device, op_device)

    def allowed(self, op_device: NDArray[Any], op: int) -> list[bool]:
        """Devices where an op may be: where it is, and where the placement is then feasible, if it was before."""
        return [
            bool(d == op_device[op]) or infeasibility(self.problem, self.moved(op_device, op, d)) is None
            for d in range(self.problem.n_devices)
        ]

    def features(self, op_device: NDArray[Any], op: int) -> dict[str, NDArray[Any]]:
        """What to say of an op on each device, by name."""
        problem, d = self.problem, self.problem.n_devices
        s = PartialPlacement.fresh(self.partial, 1)
        for before in self.order[: self.order.index(op)]:
            put(self.partial, s, 0, before, int(op_device[before]))
        rows, mask = np.zeros((1, d, len(ACTION_FEATURES)), np.float32), np.zeros((1, d), np.bool_)
        describe(self.episode, s, 0, op, 0, rows, mask)
        said: dict[str, NDArray[Any]] = {name: rows[0, :, i] for i, name in enumerate(ACTION_FEATURES)}
        others = np.flatnonzero(self.groups.op_group != self.groups.op_group[op])
        load, held = np.zeros(d), np.zeros(d)
        np.add.at(load, op_device[others], problem.op_time_s[others, op_device[others]])
        np.add.at(held, op_device[others], problem.op_memory_bytes[others])
        allowed = np.array(self.allowed(op_device, op))
        said["load"] = load / reference_s(problem)
        # What an op needs while it runs is no part of this column.
        said["memory_left"] = 1.0 - held / problem.device_memory_bytes
        said["allowed"] = allowed
        able = np.isfinite(self.work[op])
        said["start_behind"] = said["start"] - said["start"][allowed].min()
        said["finish_behind"] = np.where(able, said["finish"] - said["finish"][allowed].min(), 0.0)
        return said


def check_features(plain: Plain, seen: dict[str, Any], op: int, rows: NDArray[Any]) -> None:
    """Raises unless rows [n_devices, features] are what the plain definition says."""
    for name, values in plain.features(seen["op_device"], op).items():
        got = rows[:, ACTION_FEATURES.index(name)]
        np.testing.assert_allclose(got, values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("memory", [unlike, tight, live])
@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("rule", ["giph", "physical"])
@pytest.mark.parametrize("visit", ["any", "once"])
def test_moves_are_described_as_defined(memory: Any, groups: Any, rule: str, visit: str) -> None:
    """Features and masks follow the plain definition at every step of a random episode, of pairs and of visits."""
    problem = pg.workloads.layered(n_ops=9, n_devices=3, seed=1, spread=1.0) if groups else memory(1, 9)
    env = make(problem, rule=rule, groups=groups, visit=visit, start="random")
    plain = Plain(problem, rule, Groups.together(problem, np.array(groups)) if groups else None)
    rng = np.random.default_rng(2)
    seen, _ = env.reset(seed=4)
    assert infeasibility(problem, seen["op_device"]) is None
    done, behind = False, 0.0
    while not done:
        mask, rows = seen["action_mask"].reshape(-1, 3), table("action_features", seen["action_features"])
        rows = rows.reshape(-1, 3, len(ACTION_FEATURES))
        ops = [int(seen["op"][0])] if visit == "once" else plain.leads()
        for op in ops:
            at = 0 if visit == "once" else op
            assert mask[at].astype(bool).tolist() == plain.allowed(seen["op_device"], op)
            check_features(plain, seen, op, rows[at])
            behind = max(behind, rows[at, :, ACTION_FEATURES.index("finish_behind")].max())
        assert visit == "once" or not mask[np.setdiff1d(np.arange(9), ops)].any()
        assert visit == "once" or not rows[np.setdiff1d(np.arange(9), ops)].any()
        seen, _, done, *_ = env.step(rng.choice(np.flatnonzero(seen["action_mask"])))
    assert behind > 0


@pytest.mark.parametrize("memory", [tight, live])
@pytest.mark.parametrize("seed", range(6))
def test_masks_allow_what_is_feasible(memory: Any, seed: int) -> None:
    """From a feasible placement moves lead to feasible ones, under both memory rules, and no such move is refused."""
    problem = memory(seed)
    env, plain = make(problem, start="random", n_steps=40), Plain(problem)
    rng, done, refused = np.random.default_rng(seed), False, 0
    seen, _ = env.reset(seed=seed)
    while not done:
        assert infeasibility(problem, seen["op_device"]) is None
        mask = seen["action_mask"].reshape(-1, 3).astype(bool)
        for op in plain.leads():
            assert mask[op].tolist() == plain.allowed(seen["op_device"], op)
            refused += int((~mask[op] & np.isfinite(plain.work[op])).sum())
        seen, _, done, *_ = env.step(rng.choice(np.flatnonzero(seen["action_mask"])))
    assert refused > 0


def test_features_by_hand() -> None:
    """Ops a (1 s) and b (2 s) feed c (3 s), which feeds d (4 s); a on 0, b on 1, c on 0, d on 1; 1 s to send."""
    graph = pg.OpGraph.build(list("abcd"), [(0, 2, 1.0), (1, 2, 1.0), (2, 3, 1.0)])
    times = np.repeat([[1.0], [2.0], [3.0], [4.0]], 2, axis=1)
    problem = pg.Problem.from_times(
        graph, times, link_bytes_per_s=1.0, device_memory_bytes=8.0, op_memory_bytes=[1.0, 1.0, 2.0, 4.0]
    )
    env = make(problem, rule="giph", visit="any", order="topological")
    seen, _ = env.reset()
    assert seen["op_device"].tolist() == [0, 1, 1, 1]
    seen, *_ = env.step(np.int64(2 * 2 + 0))
    rows = table("action_features", seen["action_features"]).reshape(4, 2, -1)[2]
    said = {name: (rows[:, i] * 10).round(5).tolist() for i, name in enumerate(ACTION_FEATURES)}
    assert said == {
        "time": [3, 3],
        "start": [3, 2],  # b is sent from 2 to 3, a from 1 to 2
        "finish": [6, 5],
        "start_behind": [1, 0],
        "finish_behind": [1, 0],
        "load": [1, 6],  # a | b and d: c itself does not count where it is
        "input_load": [1, 2],
        "input_start": [0, 0],
        "input_finish": [1, 2],
        "free": [1, 2],  # when a and b are done: d comes behind
        "memory_left": [8.75, 3.75],
        "allowed": [10, 10],
    }


@pytest.mark.parametrize("rule", ["giph", "physical"])
@pytest.mark.parametrize("seed", range(4))
def test_ops_to_rebuild_are_described_where_they_are(rule: str, seed: int) -> None:
    """Each op has the row of its present device; ops behind the first of a group have none."""
    problem = unlike(seed)
    env, plain = make(problem, rule=rule, action="rebuild", start="random"), Plain(problem, rule)
    seen, _ = env.reset(seed=seed)
    seen, *_ = env.step(np.int64(plain.leads()[seed]))
    rows = table("action_features", seen["action_features"])
    for op in range(problem.n_ops):
        if op in plain.leads():
            said = plain.features(seen["op_device"], op)
            wanted = [said[name][seen["op_device"][op]] for name in ACTION_FEATURES]
            np.testing.assert_allclose(rows[op], wanted, rtol=1e-5, atol=1e-6)
        else:
            assert not rows[op].any()
            assert not seen["action_mask"][op]


def plain_rebuild(plain: Plain, op_device: NDArray[Any], op: int | None) -> list[int]:
    """The placement after a rebuild around an op (of all ops for None), under `giph`: no transfer waits for another."""
    problem, graph, op_group = plain.problem, plain.problem.graph, plain.groups.op_group
    free = set(op_group.tolist()) if op is None else {int(op_group[op])}
    for a, b in zip(op_group[graph.edge_src].tolist(), op_group[graph.edge_dst].tolist(), strict=True):
        if op is not None and op_group[op] in (a, b):
            free |= {a, b}
    home = {int(g): int(d) for g, d in zip(op_group, op_device, strict=True) if g not in free}
    slot_free = [[0.0] * slots for slots in problem.device_slots.tolist()]
    finish, placed = np.zeros(problem.n_ops), [-1] * problem.n_ops

    def start(op: int, d: int) -> float:
        ready = [0.0]
        for e in range(graph.n_edges):
            a = graph.edge_src[e]
            if graph.edge_dst[e] == op:
                delay = (
                    problem.link_latency_s[placed[a], d] + graph.edge_bytes[e] / problem.link_bytes_per_s[placed[a], d]
                )
                ready.append(finish[a] + (delay if placed[a] != d else 0.0))
        return max(min(slot_free[d]), *ready)

    for op in plain.order:
        group = int(op_group[op])
        if group not in home:
            lacks = np.zeros(problem.n_devices)
            for d in range(problem.n_devices):
                here = [group, *(g for g, h in home.items() if h == d)]
                used = plain.groups.memory_bytes[here].sum() + plain.groups.working_bytes[here].max()
                lacks[d] = used - problem.device_memory_bytes[d]
            able = np.isfinite(plain.work[op])
            ends = [start(op, d) + plain.work[op, d] for d in range(problem.n_devices)]
            fits = able & (lacks <= 0)
            home[group] = int(np.argmin(np.where(fits, ends, np.inf) if fits.any() else np.where(able, lacks, np.inf)))
        d = placed[op] = home[group]
        finish[op] = start(op, d) + problem.op_time_s[op, d]
        slot_free[d][int(np.argmin(slot_free[d]))] = finish[op]
    return placed


@pytest.mark.parametrize("memory", [unlike, tight, live])
@pytest.mark.parametrize("seed", range(12))
def test_rebuilds_are_as_defined(memory: Any, seed: int) -> None:
    """What a rebuild makes is what the plain definition makes, from random placements, with and without room."""
    problem = memory(seed)
    env, plain = make(problem, rule="giph", action="rebuild", start="random"), Plain(problem, "giph")
    rng, n_changed = np.random.default_rng(seed), 0
    for episode in range(3):
        seen, _ = env.reset(seed=3 * seed + episode)
        done = False
        while not done:
            before, op = seen["op_device"], int(rng.choice(np.flatnonzero(seen["action_mask"])))
            seen, _, done, *_ = env.step(np.int64(op))
            assert seen["op_device"].tolist() == plain_rebuild(plain, before, op)
            n_changed += int((seen["op_device"] != before).sum())
    assert n_changed > 0


@pytest.mark.parametrize("seed", range(4))
def test_earliest_finish_is_a_rebuild_of_all(seed: int) -> None:
    """The first placement is what the plain definition makes where all ops are free."""
    problem = unlike(seed)
    seen, _ = make(problem, rule="giph").reset()
    assert seen["op_device"].tolist() == plain_rebuild(Plain(problem, "giph"), np.zeros(10, int), None)


def test_runs_over_memory_count_as_worst() -> None:
    """Under "live" a run may hold more than is known before it: then the value is the worst one and a reference."""
    overfull = []
    for seed in range(6):
        problem = live(seed)
        env = make(problem, start="random", n_steps=40)
        rng, done = np.random.default_rng(seed), False
        seen, _ = env.reset(seed=seed)
        while not done:
            schedule = pg.simulate(problem, seen["op_device"], memory="report")
            overfull.append(schedule.excess_bytes > 0)
            worst = worst_s(problem, env.rule) + reference_s(problem)
            value = (worst if overfull[-1] else schedule.makespan_s) / reference_s(problem)
            assert seen["context"][1] == pytest.approx(value, rel=1e-6)
            seen, _, done, *_ = env.step(rng.choice(np.flatnonzero(seen["action_mask"])))
    assert 0 < np.mean(overfull) < 1
