"""Improve-v0: episodes, in both forms."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs.assign import assignment_order
from placement_gym.envs.improve import ImproveProcess
from placement_gym.envs.observation import CONTEXT, DYNAMIC, PAIR, PLACE, SELECT, STATIC
from placement_gym.envs.stack import reference_s, worst_s
from placement_gym.errors import InvalidOption

ONCE, ANY, REBUILD = {"visit": "once"}, {"visit": "any"}, {"action": "rebuild"}
KINDS = [ONCE, ANY, REBUILD]
VALUE = CONTEXT.index("value")


def small(seed: int = 0, n_ops: int = 9) -> pg.Problem:
    """A small unlike problem."""
    return random_problem(np.random.default_rng(seed), n_ops=n_ops, n_devices=3, whole_numbers=False, unsupported=True)


def colocated() -> pg.Problem:
    """Six ops of 1 s on two devices; 1 and 4 are colocated."""
    edges = [(0, 1, 1.0), (1, 2, 1.0), (0, 3, 1.0), (3, 4, 1.0), (4, 5, 1.0)]
    graph = pg.OpGraph.build(list("abcdef"), edges, colocation=[-1, 0, -1, -1, 0, -1])
    return pg.Problem.from_times(graph, np.ones((6, 2)), link_bytes_per_s=1.0)


def pair() -> pg.Problem:
    """Op a of 1 s and its reader b of 1 s (3 s on device 1); 2 s to send a's output."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 2.0)])
    return pg.Problem.from_times(graph, [[1.0, 1.0], [1.0, 3.0]], link_bytes_per_s=1.0)


def make(problem: pg.Problem, **options: Any) -> pg.envs.ImproveEnv:
    """Improve-v0 without wrappers."""
    return gym.make("placement_gym/Improve-v0", problem=problem, **options).unwrapped  # type: ignore[return-value]


Played = list[tuple[dict[str, Any], float, dict[str, Any]]]


def rollout(env: pg.envs.ImproveEnv, seed: int) -> Played:
    """(observation, reward, info) of the beginning and of each random allowed action."""
    rng = np.random.default_rng(seed)
    seen, info = env.reset(seed=seed)
    played, done = [(seen, 0.0, info)], False
    while not done:
        seen, reward, done, _, info = env.step(rng.choice(np.flatnonzero(seen["action_mask"])))
        played.append((seen, reward, info))
    return played


@pytest.mark.parametrize("options", KINDS)
def test_checkers_are_silent(options: dict[str, Any]) -> None:
    """Gymnasium's checker finds nothing to warn of, in any form of observation."""
    every = pg.workloads.layered(n_ops=12, n_devices=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(every, invalid="nearest", **options), skip_render_check=True)
        check_env(make(every, invalid="nearest", observation="flat", **options), skip_render_check=True)


def test_moves_by_hand() -> None:
    """Both ops on device 0 take 2 s; b on device 1 makes it 1 + 2 + 3 = 6 s; then a there, too, 1 + 3 = 4 s."""
    env = make(pair(), start="single_device", reward="dense", n_steps=3)
    seen, _ = env.reset()
    assert (seen["op_device"].tolist(), seen["op"].tolist(), seen["phase"].tolist()) == ([0, 0], [-1], [PAIR])
    assert seen["context"].tolist() == [0.0, 1.0]
    seen, reward, done, _, info = env.step(np.int64(1 * 2 + 1))
    assert (seen["op_device"].tolist(), reward, done, info) == ([0, 1], -2.0, False, {})
    assert seen["context"].tolist() == [np.float32(1 / 3), 3.0]
    seen, reward, *_ = env.step(np.int64(0 * 2 + 1))
    assert (seen["op_device"].tolist(), reward) == ([1, 1], 1.0)
    seen, reward, done, _, info = env.step(np.int64(0 * 2 + 1))
    assert (seen["op_device"].tolist(), reward, done, info["makespan_s"]) == ([1, 1], 0.0, True, 4.0)
    assert (info["best_makespan_s"], info["best_objective_s"], info["best_op_device"].tolist()) == (2.0, 2.0, [0, 0])


def test_visits_by_hand() -> None:
    """Op a is visited, then b; a placement that improves by 4 of 2 s has a return of 2."""
    env = make(pair(), visit="once", reward="terminal")
    env.reset()
    env.step(np.int64(0))
    _, reward, done, _, _ = env.step(np.int64(1))
    assert (reward, done) == (-2.0, True)
    worse = make(pair(), visit="once", start="random", reward="terminal")
    seed = next(s for s in range(50) if worse.reset(seed=s)[0]["op_device"].tolist() == [0, 1])
    seen, _ = worse.reset(seed=seed)
    assert (seen["op"].tolist(), seen["phase"].tolist()) == ([0], [PLACE])
    seen, reward, done, _, info = worse.step(np.int64(0))
    assert (seen["op"].tolist(), reward, done, info) == ([1], 0.0, False, {})
    seen, reward, done, _, info = worse.step(np.int64(0))
    assert (seen["op_device"].tolist(), reward, done, info["best_op_device"].tolist()) == ([0, 0], 2.0, True, [0, 0])


def test_rebuilding_by_hand() -> None:
    """Around b both ops are free: a goes to the first of equal devices, b where it finishes first."""
    env = make(pair(), action="rebuild", start="random", reward="dense", n_steps=1)
    seed = next(s for s in range(50) if env.reset(seed=s)[0]["op_device"].tolist() == [1, 0])
    seen, _ = env.reset(seed=seed)
    assert (seen["phase"].tolist(), seen["action_mask"].tolist()) == ([SELECT], [1, 1])
    seen, reward, done, _, _ = env.step(np.int64(1))
    assert (seen["op_device"].tolist(), reward, done) == ([0, 0], 1.0, True)


@pytest.mark.parametrize("rule", ["giph", "physical"])
@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_each_step_is_simulated(rule: str, options: dict[str, Any], seed: int) -> None:
    """The value is the simulated makespan after each step, and moves change at most the op that they name."""
    problem = small(seed)
    env = make(problem, rule=rule, start="random", **options)
    rng = np.random.default_rng(seed)
    seen, _ = env.reset(seed=seed)
    done, n_steps, n_changed = False, 0, 0
    while not done:
        before, op = seen["op_device"], int(seen["op"][0])
        action = int(rng.choice(np.flatnonzero(seen["action_mask"])))
        seen, _, done, _, info = env.step(np.int64(action))
        n_steps += 1
        makespan_s = pg.simulate(problem, seen["op_device"], rule=rule).makespan_s
        assert seen["context"].tolist() == pytest.approx([n_steps / 9, makespan_s / reference_s(problem)], rel=1e-6)
        if options is not REBUILD:
            moved, device = (op, action) if options is ONCE else divmod(action, 3)
            assert seen["op_device"].tolist() == [device if i == moved else d for i, d in enumerate(before)]
            n_changed += int((seen["op_device"] != before).sum())
    assert info["makespan_s"] == makespan_s
    assert n_steps == 9
    assert options is REBUILD or n_changed > 0


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("scored", [{}, {"objective": "max_load"}, {"noise": 0.3}])
def test_return_is_the_improvement(options: dict[str, Any], scored: dict[str, Any]) -> None:
    """Both rewards add up to the first objective less the last one, over the reference."""
    problem = small(1)
    returns = []
    for reward in ("dense", "terminal"):
        played = rollout(make(problem, reward=reward, start="random", **scored, **options), 3)
        first, last = (float(played[i][0]["context"][VALUE]) for i in (0, -1))
        returns.append(sum(reward for _, reward, _ in played))
        assert returns[-1] == pytest.approx(first - last, abs=1e-5)
        assert last * reference_s(problem) == pytest.approx(played[-1][2]["objective_s"], rel=1e-6)
        assert reward == "dense" or not any(reward for _, reward, _ in played[:-1])
    assert returns[0] == pytest.approx(returns[1])
    assert returns[0] != 0.0


@pytest.mark.parametrize("order", ["rank", "topological"])
def test_each_op_is_visited_once_in_order(order: str) -> None:
    """`op` walks through the assignment order."""
    problem = small(2)
    played = rollout(make(problem, visit="once", order=order), 0)
    assert [int(seen["op"][0]) for seen, *_ in played[:-1]] == assignment_order(problem, order).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("options", KINDS)
def test_best_is_kept(options: dict[str, Any]) -> None:
    """The best placement is that of the least value seen, the first of equals."""
    problem = small(3)
    played = rollout(make(problem, start="random", **options), 1)
    makespans = [pg.simulate(problem, seen["op_device"]).makespan_s for seen, *_ in played]
    info, best = played[-1][2], int(np.argmin(makespans))
    assert (info["best_makespan_s"], info["best_objective_s"]) == (makespans[best], makespans[best])
    assert info["best_op_device"].tolist() == played[best][0]["op_device"].tolist()


def test_the_first_of_equal_placements_is_best() -> None:
    """A single op on equal devices: the placement that the episode began with stays the best."""
    env = make(pg.Problem.from_times(pg.OpGraph.build(["a"], []), np.ones((1, 2))), visit="once")
    env.reset()
    info = env.step(np.int64(1))[4]
    assert (info["op_device"].tolist(), info["best_op_device"].tolist()) == ([1], [0])


def test_overfull_counts_as_worst_and_is_never_best() -> None:
    """By earliest finish the small ops take both devices; the large one goes where one of them is in its way."""
    graph = pg.OpGraph.build(["small0", "small1", "large"], [])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), device_memory_bytes=3.0, op_memory_bytes=[1.0, 1.0, 3.0])
    env = make(problem, visit="any", order="topological", n_steps=1)
    seen, _ = env.reset()
    assert seen["op_device"].tolist() == [0, 1, 0]
    worst = (worst_s(problem, env.rule) + 3.0) / 3.0
    assert seen["context"][VALUE] == np.float32(worst)
    assert seen["action_mask"].reshape(3, 2).tolist() == [[1, 1], [0, 1], [1, 0]]
    _, reward, _, _, info = env.step(np.int64(1))
    assert (info["overfull"], info["best_makespan_s"]) == (False, 2.0)
    assert reward == pytest.approx(worst - 2.0 / 3.0)
    seen, _ = env.reset()
    _, reward, _, _, info = env.step(np.int64(0))
    assert (info["overfull"], reward, info["best_op_device"].tolist()) == (True, 0.0, [-1, -1, -1])
    assert np.isnan([info["best_makespan_s"], info["best_objective_s"]]).all()


@pytest.mark.parametrize("options", KINDS)
def test_same_seed_same_rollout(options: dict[str, Any]) -> None:
    """Two environments driven alike see the same, first placements drawn at random included; other seeds differ."""
    one, other, third = (rollout(make(small(), start="random", **options), seed) for seed in (5, 5, 6))
    for (a, reward_a, _), (b, reward_b, _) in zip(one, other, strict=True):
        assert reward_a == reward_b
        for key in (*STATIC, *DYNAMIC):
            np.testing.assert_array_equal(a[key], b[key])
    assert one[0][0]["op_device"].tolist() != third[0][0]["op_device"].tolist()


def test_random_starts_go_on_with_the_generator() -> None:
    """Without a seed, the next episode begins with another placement."""
    env = make(small(), start="random", visit="once")
    env.reset(seed=1)
    assert len({tuple(env.reset()[0]["op_device"].tolist()) for _ in range(5)}) > 2


def test_single_device_by_hand() -> None:
    """Device 2 runs most ops and is faster than 1; what it cannot run or hold goes where it finishes first."""
    graph = pg.OpGraph.build(list("abcd"), [])
    inf = np.inf
    times = [[1.0, 9.0, 2.0], [inf, 9.0, 2.0], [1.0, inf, inf], [inf, 9.0, 2.0]]
    problem = pg.Problem.from_times(graph, times, device_memory_bytes=[9.0, 9.0, 2.0], op_memory_bytes=np.ones(4))
    env = make(problem, start="single_device", order="topological")
    assert env.reset()[0]["op_device"].tolist() == [2, 2, 0, 1]


def test_groups_move_together() -> None:
    """An action moves a group; its first op in the order stands for it, and an episode has a step for each group."""
    env = make(colocated(), visit="any", start="single_device", order="topological")
    seen, _ = env.reset()
    assert seen["action_mask"].reshape(6, 2).all(axis=1).tolist() == [True, True, True, True, False, True]
    assert not seen["action_mask"].reshape(6, 2)[4].any()
    seen, *_ = env.step(np.int64(1 * 2 + 1))
    assert seen["op_device"].tolist() == [0, 1, 0, 0, 1, 0]
    seen, *_ = make(colocated(), action="rebuild").reset()
    assert seen["action_mask"].sum() == 5
    every = pg.workloads.layered(n_ops=9, n_devices=3)
    played = rollout(make(every, visit="once", groups=[0, 0, 0, 1, 1, 1, 2, 2, 2], start="random"), 0)
    assert len(played) == 4
    assert all(len(set(seen["op_device"].reshape(3, 3)[g])) == 1 for seen, *_ in played for g in range(3))


def test_wrong_options_are_named() -> None:
    """Unknown choices list the known ones; what does not go together is said."""
    for options, said in (
        ({"action": "swap"}, "unknown action 'swap'; known: move, rebuild"),
        ({"visit": "twice"}, "unknown visit 'twice'; known: any, once"),
        ({"start": "best"}, "unknown start 'best'; known: earliest_finish, random, single_device"),
        ({"order": "random"}, "unknown order 'random'"),
        ({"action": "rebuild", "visit": "once"}, "there would be nothing to choose; expected action='move'"),
        ({"visit": "once", "n_steps": 3}, "n_steps is 3, visit is 'once'"),
        ({"n_steps": 0}, "n_steps is 0; expected a whole number >= 1, or None"),
        ({"n_steps": 2.5}, "n_steps is 2.5"),
    ):
        with pytest.raises(InvalidOption, match=said):
            pg.envs.ImproveEnv(small(), **options)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("start", ["earliest_finish", "single_device", "random"])
def test_vector_form_agrees(options: dict[str, Any], start: str) -> None:
    """Each row of the vector form sees and earns what a scalar environment does, over episodes of unlike problems."""
    given: dict[str, Any] = {"problems": [small(0), small(1, 6)], "start": start, "reward": "dense", **options}
    b, rng = 4, np.random.default_rng(0)
    vector = gym.make_vec("placement_gym/Improve-v0", num_envs=b, autoreset_mode="NEXT_STEP", **given)
    singles = [gym.make("placement_gym/Improve-v0", **given).unwrapped for _ in range(b)]
    seen, _ = vector.reset(seed=7)
    each: list[Any] = [env.reset(seed=7 + i)[0] for i, env in enumerate(singles)]
    over = np.zeros(b, bool)
    for _ in range(25):
        assert vector.observation_space.contains(seen)
        for i in range(b):
            for key in seen:
                np.testing.assert_array_equal(seen[key][i], each[i][key], err_msg=key)
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in seen["action_mask"]])
        seen, rewards, ends, _, info = vector.step(actions)
        for i, env in enumerate(singles):
            if over[i]:
                each[i], over[i] = env.reset()[0], False
                continue
            each[i], reward, over[i], _, one = env.step(actions[i])
            assert (reward, over[i]) == (rewards[i], ends[i])
            for key, value in one.items():
                got = info[key][i][: np.size(value)] if np.ndim(value) else info[key][i]
                np.testing.assert_array_equal(got, value, err_msg=key)


@pytest.mark.parametrize("options", KINDS)
def test_states_go_on(options: dict[str, Any]) -> None:
    """From a saved state, an environment of either form goes on as the first did, the best placement included."""
    env = make(small(), start="random", **options)
    vector = pg.envs.ImproveVectorEnv(2, small(), start="random", **options)
    rng = np.random.default_rng(0)
    seen, _ = env.reset(seed=3)
    for _ in range(3):
        seen, *_ = env.step(rng.choice(np.flatnonzero(seen["action_mask"])))
    state = env.get_state()
    vector.reset(seed=0)
    np.testing.assert_array_equal(vector.set_state(1, state)["op_device"][1], seen["op_device"])
    done = False
    while not done:
        action = rng.choice(np.flatnonzero(seen["action_mask"]))
        seen, reward, done, _, info = env.step(action)
        both, rewards, ends, _, infos = vector.step(np.array([vector.action_masks()[0].argmax(), action]))
        assert (reward, done) == (rewards[1], ends[1])
        for key in DYNAMIC:
            np.testing.assert_array_equal(both[key][1], seen[key], err_msg=key)
    np.testing.assert_array_equal(infos["best_op_device"][1], info["best_op_device"])
    assert infos["best_makespan_s"][1] == info["best_makespan_s"]


def test_what_has_no_latency_is_never_the_best() -> None:
    """Where subgraphs wait for each other the objective is inf: that is not better than nothing."""
    graph = pg.OpGraph.build(list("abcd"), [(0, 1, 1.0), (2, 3, 1.0)])
    process = make(pg.Problem.from_times(graph, np.ones((4, 2))), objective="latency").episodes.process
    assert isinstance(process, ImproveProcess)
    process.best_objective_s[:] = np.nan
    rows, one = np.array([0]), np.ones(1)
    process.evaluated(rows, one, np.array([np.inf]), np.array([False]))
    assert np.isnan(process.best_objective_s[0])
    process.evaluated(rows, one, np.array([3.0]), np.array([False]))
    assert process.best_objective_s[0] == 3.0
