"""Episodes: states that are kept and gone back to, noise, the same objectives as everywhere."""

from typing import Any

import numpy as np
import pytest
from environments import (
    BARE,
    BARE_IDS,
    MAIN,
    MIXED,
    SIZES,
    SOME,
    assert_same,
    crowded,
    drawn,
    free,
    given,
    make,
    make_vec,
    play,
    rollout,
    some_actions,
)

import placement_gym as pg
from placement_gym.errors import InfeasiblePlacement, InvalidOption, InvalidProblem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s


@pytest.mark.parametrize(("name", "options"), SOME)
def test_a_state_is_gone_back_to(name: str, options: dict[str, Any]) -> None:
    """From a state on, the same environment, another one and any row of a vector form go on as the original did.

    They go on beyond the end of the episode: the next problem and the generator are the same too.
    """
    options = given(options)
    env, other, vector = make(name, **options), make(name, **options), make_vec(name, 3, **options)
    env.reset(seed=3)
    other.reset(seed=8)
    vector.reset(seed=9)
    rng = np.random.default_rng(0)
    for k in range(6):
        for one in (env, other):
            if one.episodes.over[0]:
                one.reset()
            one.step(some_actions(one.action_masks()[None], rng)[0])
        vector.step(some_actions(vector.action_masks(), rng))
        if k not in (2, 5):  # half way, and where ops are placed in so many steps at the end
            continue
        state = env.get_state()
        told = going_on(env)
        assert_same(env.set_state(state), told[0])
        assert_same(going_on(other, state), told)
        row = k // 3
        assert_same(going_on_in(vector, row, state), told)
        if k == 5:
            break
        # And from the row back into the scalar form, and into another row.
        vector.set_state(row, state)
        again = vector.get_state(row)
        assert_same(going_on(other, again), told)
        assert_same(going_on_in(vector, (row + 1) % 3, again), told)
        env.set_state(state)


def going_on(env: pg.envs.PlacementEnv, state: Any = None) -> list[Any]:
    """What a scalar form says from a state on, to the beginning of the next episode; and its generator's state."""
    rng = np.random.default_rng(1)
    seen = env._observation() if state is None else env.set_state(state)
    told: list[Any] = [seen]
    if not env.episodes.over[0]:
        told += [play(env, seen, rng), env.noisy_makespans_s(2), env.problem.name]
    return [*told, env.reset()[0], env.problem.name, str(env.np_random.bit_generator.state)]


def going_on_in(vector: pg.envs.PlacementVectorEnv, row: int, state: Any) -> list[Any]:
    """What `going_on` says, of a row of a vector form; the other rows do what they like."""
    rng, wild = np.random.default_rng(1), np.random.default_rng(2)

    def of_row(seen: Any) -> Any:
        return {key: value[row].copy() for key, value in seen.items()} if isinstance(seen, dict) else seen[row].copy()

    def actions(action: int) -> Any:
        every = some_actions(vector.action_masks(), wild)
        every[row] = action
        return every

    seen = of_row(vector.set_state(row, state))
    told: list[Any] = [seen]
    if not vector.episodes.over[row]:
        observations, rewards, done = [seen], [], False
        while not done:
            action = some_actions(vector.action_masks()[row : row + 1], rng)[0]
            batch, reward, ends, _, info = vector.step(actions(action))
            done = bool(ends[row])
            observations.append(of_row(batch))
            rewards.append(float(reward[row]))
        last = {key: info[key][row] for key in info if not key.startswith("_")}
        told += [(observations, rewards, last), vector.noisy_makespans_s(row, 2), vector.problems[row].name]
    seen = of_row(vector.step(actions(0))[0])
    return [*told, seen, vector.problems[row].name, str(vector.call("np_random")[row].bit_generator.state)]


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_a_state_belongs_to_itself(name: str, own: dict[str, Any]) -> None:
    """Steps after `get_state` do not change the state, and one state may be gone back to any number of times."""
    env = make(name, problem=crowded(), noise=0.2, **own)
    env.reset(seed=0)
    state = env.get_state()
    first = play(env, env.set_state(state), np.random.default_rng(0))
    for _ in range(2):
        assert_same(play(env, env.set_state(state), np.random.default_rng(0)), first)


def test_a_state_of_few_slots_after_a_problem_of_many() -> None:
    """A row forgets the slots of the problem before."""
    graph = pg.OpGraph.build(list("abc"), [])
    one, two = (pg.Problem.from_times(graph, np.ones((3, 1)), device_slots=k, name=f"{k}") for k in (1, 2))
    source = make("Assign", problem=one)
    source.reset()
    state = source.get_state()
    env = make("Assign", problem=two, sizes=source.sizes, reward="dense")
    env.reset()
    env.set_state(state)
    assert [env.step(0)[1] for _ in range(3)] == pytest.approx([-1 / 3] * 3)


def test_wrong_states_are_named() -> None:
    """What is no state, or that of an environment with other actions or sizes, is refused; nothing changes."""
    phased, joint = make("SelectPlace", problem=free()), make("SelectPlace", problem=free(), action="joint")
    wide = make("SelectPlace", problem=free(), sizes=SIZES)
    seen, _ = phased.reset(seed=0)
    for state, said in (
        (None, "state is a NoneType"),
        (joint.get_state(), "has JointProcess; expected SelectPlaceProcess"),
        (wide.get_state(), r"has Sizes\(n_ops=8"),
        (make("Assign", problem=free()).get_state(), "has AssignProcess; expected SelectPlaceProcess"),
        (make("SelectPlace", problem=free(), priority="selection").get_state(), "has .*by_selection"),
        (make("SelectPlace", problem=free(), objective="max_load").get_state(), "has max_load; expected makespan"),
        (make("SelectPlace", problem=free(), groups=np.zeros(free().n_ops, int)).get_state(), "other groups"),
    ):
        with pytest.raises(InvalidOption, match=said):
            phased.set_state(state)  # type: ignore[arg-type]
    assert_same(phased.set_state(phased.get_state()), seen)


def replayed_s(env: pg.envs.PlacementEnv, info: dict[str, Any], **options: Any) -> float:
    """The makespan of an ended episode, by `simulate`."""
    problem, rule = env.problem, env.rule
    ranks = None
    if rule.queue == "priority":
        ranks = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
        if getattr(env, "priority", "none") == "selection":
            ranks = np.zeros(problem.n_ops)
            ranks[info["order"][: problem.n_ops]] = -np.arange(problem.n_ops)
    given = {"rule": rule, "priority": ranks, "memory": "report", **options}
    return float(pg.simulate(problem, info["op_device"], **given).makespan_s)


@pytest.mark.parametrize(("name", "options"), MAIN)
def test_infos_say_what_the_gym_says(name: str, options: dict[str, Any]) -> None:
    """makespan_s is the simulator's, objective_s that of `placement_gym.objectives`, overfull that of the memory."""
    options = {**given(options), "noise": 0.0}
    env = make(name, **options)
    for seed in range(3):
        _, rewards, info = rollout(env, seed)
        problem, op_device = env.problem, info["op_device"][: env.problem.n_ops]
        assert len(info["op_device"]) == env.sizes.n_ops
        assert (info["op_device"][problem.n_ops :] == -1).all()
        assert info["makespan_s"] == replayed_s(env, info)
        objective = options.get("objective", "makespan")
        expected = info["makespan_s"]
        if objective != "makespan":
            try:
                expected = pg.objectives.placement_objective_s(objective, problem, op_device)
            except InfeasiblePlacement:  # subgraphs wait for each other
                expected = np.inf
        assert info["objective_s"] == expected
        # Under "claims" the bytes over capacity are a sum.
        held = np.bincount(op_device, problem.op_memory_bytes, problem.n_devices)
        assert info["excess_bytes"] == pytest.approx(np.maximum(0, held - problem.device_memory_bytes).sum())
        assert info["overfull"] == (info["excess_bytes"] > 0)
        types = {key: type(value) for key, value in info.items()}
        assert types["makespan_s"] is types["objective_s"] is types["excess_bytes"] is np.float64
        assert types["overfull"] is np.bool_
        assert ("invalid_actions" in info) == ("invalid" in options)
        pg.Placement(op_device)
        if np.isinf(expected):
            continue
        if not info["overfull"]:
            pg.Placement(op_device).check(problem)
            reference = np.nanmin(np.where(np.isfinite(problem.op_time_s), problem.op_time_s, np.nan), axis=1).sum()
            assert sum(rewards) == pytest.approx((env.episodes._first_s[0] - expected) / reference, abs=1e-9)


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_noise_is_drawn_once_an_episode_from_its_seed(name: str, own: dict[str, Any]) -> None:
    """Equal seeds draw equal noise, episodes of one seed different noise; the expectation is about the exact time."""
    env = make(name, problem=free(), noise=0.3, **own)
    exact = make(name, problem=free(), **own)
    _, _, quiet = play(exact, exact.reset()[0], np.random.default_rng(0))
    ends = []
    for seed in (1, 1, 2, None):
        _, rewards, info = play(env, env.reset(seed=seed)[0], np.random.default_rng(0))
        np.testing.assert_array_equal(info["op_device"], quiet["op_device"])
        gained_s = sum(rewards) * pg.envs.stack.reference_s(env.problem)
        assert gained_s == pytest.approx(env.episodes._first_s[0] - info["makespan_s"])
        ends.append(info["makespan_s"])
    assert ends[0] == ends[1]
    assert len({*ends, quiet["makespan_s"]}) == 4


def test_noisy_makespans_by_the_simulator() -> None:
    """64 draws, always the same ones, as `simulate` has them; without noise all are the exact makespan."""
    problem = free()
    env, vector = make("Assign", problem=problem, noise=0.4), make_vec("Assign", 2, problem=problem, noise=0.4)
    _, _, info = rollout(env, 0)
    times = env.noisy_makespans_s()
    assert times.shape == (64,)
    np.testing.assert_array_equal(times, env.noisy_makespans_s())
    rng = np.random.default_rng(0)
    expected = [pg.simulate(problem, info["op_device"], noise=0.4, rng=rng).makespan_s for _ in range(64)]
    np.testing.assert_allclose(times, expected, rtol=1e-12)
    exact = pg.simulate(problem, info["op_device"]).makespan_s
    assert np.percentile(times, 95) > times.mean() > 0.8 * exact
    state = env.get_state()
    vector.set_state(1, state)
    env.reset()
    vector.reset()  # the first one, and yet the row's generator goes on
    assert vector.np_random[1].bit_generator.state == env.np_random.bit_generator.state
    env.set_state(state)
    vector.set_state(1, state)
    np.testing.assert_array_equal(vector.noisy_makespans_s(1, 5), times[:5])
    still = make("Assign", problem=problem)
    still.reset()
    assert set(still.noisy_makespans_s(3)) == {still.schedule().makespan_s}


def test_values_of_many_rows_are_those_of_one() -> None:
    """A batch that is evaluated on several threads has the values of single rows."""
    vector = make_vec("SelectPlace", 70, problems=[MIXED[0], free(1)], priority="selection")
    vector.reset(seed=0)
    rng, done = np.random.default_rng(0), np.zeros(70, bool)
    while not done.any():
        _, _, done, _, info = vector.step(some_actions(vector.action_masks(), rng))
    assert done.all()
    env = make("SelectPlace", problems=[MIXED[0], free(1)], priority="selection")
    for row in range(0, 70, 7):
        env.reset(seed=row)
        one = {"op_device": info["op_device"][row], "order": info["order"][row]}
        assert info["makespan_s"][row] == replayed_s(env, one)


def test_drawn_problems_go_on_after_a_refused_one() -> None:
    """A draw that is too large is refused by name and number; a step or reset after it works, in every mode."""
    large = free(0, 9)

    class Draw:
        """Every fifth draw is too large."""

        n = 0

        def __call__(self, rng: np.random.Generator) -> pg.Problem:
            self.n += 1
            return large if self.n % 5 == 0 else drawn(rng)

    for mode in ("NEXT_STEP", "SAME_STEP", "DISABLED"):
        env = make_vec("Assign", 2, problems=Draw(), sizes=SIZES, autoreset_mode=mode, reward="dense")
        rng, refused, ended = np.random.default_rng(0), 0, 0
        while ended < 20:
            try:
                if mode == "DISABLED" and env.episodes.over.any():
                    env.reset(options={"reset_mask": env.episodes.over.copy()})
                seen, _, ends, *_ = env.step(some_actions(env.action_masks(), rng))
            except InvalidProblem as error:
                refused += 1
                assert "has n_ops 9; the environment is padded to 8" in str(error)  # noqa: PT017
                continue
            ended += int(ends.sum())
            for row, problem in enumerate(env.problems):
                if not env.episodes.over[row]:
                    assert seen["n_ops"][row] == problem.n_ops
                    expected = pg.envs.observation.static_observation(problem, SIZES)
                    np.testing.assert_array_equal(seen["op_features"][row], expected["op_features"])
        assert refused > 2


def test_noise_stays_throughout_an_episode() -> None:
    """A move that changes nothing earns nothing: all placements of an episode are under one draw of noise."""
    env = make("Improve", problem=free(), visit="once", noise=0.5, reward="dense")
    values = set()
    for seed in range(3):
        seen, _ = env.reset(seed=seed)
        values.add(float(seen["context"][1]))
        done = False
        while not done:
            seen, reward, done, *_ = env.step(int(seen["op_device"][seen["op"][0]]))
            assert reward == 0
    assert len(values) == 3


def test_states_of_ended_episodes_are_counted_once() -> None:
    """An ended episode that goes back to its own end is over once; one that goes back before its end is not over."""
    vector = make_vec("Assign", 2, problem=crowded())
    vector.reset(seed=0)
    begun = vector.get_state(0)
    while not vector.episodes.over.all():
        vector.step(vector.action_space.sample())
    vector.set_state(0, vector.get_state(0))
    vector.set_state(1, vector.get_state(0))
    assert vector.episodes.n_over == 2
    vector.set_state(1, begun)
    assert (vector.episodes.n_over, vector.episodes.over.tolist()) == (1, [True, False])
    vector.set_state(1, begun)
    vector.reset()
    assert vector.episodes.n_over == 0
