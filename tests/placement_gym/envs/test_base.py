"""PlacementEnv and PlacementVectorEnv: both forms are one environment."""

import copy
import inspect
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from environments import (
    BARE,
    BARE_IDS,
    CASES,
    MIXED,
    OWN,
    SIZES,
    assert_same,
    crowded,
    free,
    given,
    make,
    make_vec,
    rollout,
    row_of,
    some_actions,
)

import placement_gym as pg
from placement_gym.envs.observation import DYNAMIC
from placement_gym.errors import InvalidOption, InvalidProblem

B = 3


def check_forms_agree(name: str, options: dict[str, Any], seed: int, n_episodes: int) -> None:
    """Raises where a row of the vector form is not what the scalar form with the same seed is."""
    rng = np.random.default_rng(seed)
    vector, singles = make_vec(name, B, **options), [make(name, **options) for _ in range(B)]
    legal = "invalid" not in options
    seen, info = vector.reset(seed=seed)
    each = [env.reset(seed=seed + i)[0] for i, env in enumerate(singles)]
    over, n_ended = np.zeros(B, bool), 0
    assert info == {}
    while n_ended < n_episodes:
        masks = vector.action_masks()
        for i, env in enumerate(singles):
            assert_same(row_of(seen, i), each[i])
            assert_same(masks[i], env.action_masks())
            assert vector.problems[i].name == env.problem.name
        actions = some_actions(masks, rng, legal=legal)
        seen, rewards, ends, cuts, info = vector.step(actions)
        assert not cuts.any()
        for i, env in enumerate(singles):
            one: dict[str, Any] = {}
            reward, end = 0.0, False
            if over[i]:
                each[i], _ = env.reset()
            else:
                each[i], reward, end, _, one = env.step(actions[i])
            assert (reward, end) == (rewards[i], ends[i])
            for key in info:
                if not key.startswith("_"):
                    assert info[f"_{key}"][i] == (key in one)
            for key, value in one.items():
                behind = info[key][i][len(value) :] if np.ndim(value) else np.array([])
                assert_same(info[key][i][: len(value)] if np.ndim(value) else info[key][i], np.asarray(value))
                assert (behind == -1).all()
        over = ends
        n_ended += int(ends.sum())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_vector_form_is_the_scalar_form(name: str, options: dict[str, Any]) -> None:
    """Rows see, earn and are told exactly what scalar environments with seeds seed + i are, whatever the option."""
    # Problems that change have more ways to go wrong: static keys are shared between steps.
    check_forms_agree(name, given(options), seed=3, n_episodes=12 if "problems" in options else 4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CASES)
def test_vector_form_is_the_scalar_form_in_hundreds_of_episodes(name: str, options: dict[str, Any]) -> None:
    """The same over 300 episodes of ten problems."""
    for seed in range(10):
        check_forms_agree(name, given(options, seed), seed, n_episodes=30)


@pytest.mark.parametrize("name", OWN)
def test_both_forms_share_their_arguments(name: str) -> None:
    """The vector form has the scalar form's arguments and defaults, and three of its own."""
    spec = gym.spec(f"placement_gym/{name}-v0")
    scalar, vector = (
        inspect.signature(gym.envs.registration.load_env_creator(str(entry))).parameters
        for entry in (spec.entry_point, spec.vector_entry_point)
    )
    own = {"num_envs", "autoreset_mode", "copy"}
    assert {key: (p.kind, p.default) for key, p in vector.items() if key not in own} == {
        key: (p.kind, p.default) for key, p in scalar.items()
    }
    assert own <= set(vector)
    with pytest.raises(TypeError, match="wrong_name"):
        make_vec(name, 2, wrong_name=1)


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_a_reset_brings_a_problem(name: str, own: dict[str, Any], tmp_path: Any) -> None:
    """`options={"problem": ...}` takes a problem or a path, for these rows and later episodes, in both forms."""
    own = {**own, "sizes": SIZES}
    env, vector = make(name, problem=crowded(), **own), make_vec(name, 2, problem=free(), **own)
    other = crowded(7, 5, 4)
    other.save(tmp_path / "other.npz")
    for given_problem in (other, tmp_path / "other.npz"):
        options = {"problem": given_problem}
        seen, _ = env.reset(options=options)
        assert seen["n_ops"][0] == 5
        assert_same(seen, row_of(vector.reset(options=options)[0], 1))
    assert_same(rollout(env, 0)[0][0], seen)
    only = {"problem": crowded(8, 4, 2), "reset_mask": np.array([False, True])}
    seen, _ = vector.reset(options=only)
    assert seen["n_ops"].ravel().tolist() == [5, 4]
    assert vector.call("problem")[1] is only["problem"]
    assert vector.reset()[0]["n_ops"].ravel().tolist() == [5, 4]
    with pytest.raises(InvalidOption, match="the episodes place different problems"):
        _ = vector.problem


@pytest.mark.parametrize("name", OWN)
def test_wrong_resets_are_named(name: str) -> None:
    """Unknown options, wrong masks, seeds and problems are refused in both forms, and the episode goes on."""
    env, vector = make(name, problem=free(), noise=0.1), make_vec(name, 2, problem=free(), noise=0.1)
    for one in (env, vector):
        seen, _ = one.reset(seed=4)
        for options, error, said in (
            ({"problm": free()}, InvalidOption, "unknown reset option 'problm'; known: problem"),
            ({"problem": None}, InvalidOption, "expected a Problem or the path"),
            ({"problem": 3}, InvalidOption, "is a int; expected a Problem or the path"),
            ({"problem": free(0, 9)}, InvalidProblem, "has n_ops 9; the environment is padded to 6"),
            ({"problem": free(0, 6, 4)}, InvalidProblem, "has n_devices 4; the environment is padded to 3"),
        ):
            with pytest.raises(error, match=said):
                one.reset(options=options)
            assert_same(one.reset(seed=4)[0], seen)
    with pytest.raises(InvalidOption, match="unknown reset option 'reset_mask'"):
        env.reset(options={"reset_mask": np.ones(1, bool)})
    for mask in ([True, False], np.ones(3, bool), np.ones(2, int), np.zeros(2, bool)):
        with pytest.raises(InvalidOption, match="reset_mask is"):
            vector.reset(options={"reset_mask": mask})
    with pytest.raises(InvalidOption, match="seed has 3 numbers; expected 2"):
        vector.reset(seed=[1, 2, 3])
    with pytest.raises(InvalidOption, match="num_envs is 0"):
        make_vec(name, 0, problem=free())
    with pytest.raises(InvalidOption, match="unknown autoreset_mode 'never'; known: DISABLED"):
        make_vec(name, 2, problem=free(), autoreset_mode="never")
    with pytest.raises(InvalidOption, match="unknown render_mode 'ansi'"):
        make(name, problem=free(), render_mode="ansi")


def test_unknown_choices_are_named() -> None:
    """Unknown choices list the known ones."""
    for name, options, said in (
        ("Assign", {"reward": "sparse"}, "unknown reward 'sparse'; known: dense, terminal"),
        ("Assign", {"order": "random"}, "unknown order 'random'; known: rank, topological"),
        ("Assign", {"objective": "speed"}, "unknown objective 'speed'; known: .*max_load"),
        ("Assign", {"invalid": "ignore"}, "unknown invalid 'ignore'; known: nearest, penalty, raise"),
        ("Assign", {"observation": "graph"}, "unknown observation 'graph'; known: dict, flat"),
        ("Assign", {"noise": -1.0}, "noise is -1.0"),
        ("Assign", {"noise": 0.1, "objective": "latency"}, "only makespans are noisy"),
        ("SelectPlace", {"action": "triple"}, "unknown action 'triple'; known: joint, phased"),
        ("SelectPlace", {"priority": "rank"}, "unknown priority 'rank'; known: none, selection"),
        ("SelectPlace", {"rule": pg.Rule(queue="lifo"), "priority": "selection"}, "rule.queue is 'lifo'"),
    ):
        for build in (make, lambda name, **options: make_vec(name, 2, **options)):
            with pytest.raises(InvalidOption, match=said):
                build(name, problem=free(), **options)  # type: ignore[operator]


def changeable(seen: Any) -> list[np.ndarray]:
    """The arrays of an observation that may be written to."""
    return [value for value in (seen.values() if isinstance(seen, dict) else [seen]) if value.flags.writeable]


@pytest.mark.parametrize("observation", ["dict", "flat"])
@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_writing_into_observations_changes_nothing(name: str, own: dict[str, Any], observation: str) -> None:
    """What is handed out is the user's: spoiling all of it leaves rewards, masks and later observations as they are."""
    options = {**own, "problems": MIXED, "observation": observation, "reward": "dense"}

    def run(*, spoil: bool) -> list[Any]:
        vector, single = make_vec(name, B, **options), make(name, **options)
        rng, told, done = np.random.default_rng(0), [], False
        seen, one = vector.reset(seed=2)[0], single.reset(seed=2)[0]
        for _ in range(30):
            told += [copy.deepcopy(seen), copy.deepcopy(one)]
            actions = some_actions(vector.action_masks(), rng)
            masks, own_mask = vector.action_masks(), single.action_masks()
            if spoil:
                for array in (*changeable(seen), *changeable(one), masks, own_mask):
                    array.fill(1)
                assert len(changeable(seen)) >= (len(DYNAMIC) if observation == "dict" else 1)
            seen, *rest, info = vector.step(actions)
            told += [rest, copy.deepcopy(info)]
            if spoil:
                for array in info.values():
                    array.fill(0)
            action = some_actions(single.action_masks()[None], rng)[0]
            one, *rest, info = single.step(action) if not done else (*single.reset(), 0.0, False, {})
            done = bool(len(rest) == 3 and rest[1])
            told += [rest[:2], copy.deepcopy(info)]
        return told

    assert_same(run(spoil=False), run(spoil=True))


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_copies_go_on_by_themselves(name: str, own: dict[str, Any]) -> None:
    """Copies and pickles go on as the original does, each by itself, and sample what they allow."""

    def going_on(env: Any) -> list[Any]:
        rng, told = np.random.default_rng(3), [env.episodes.observation()]
        for _ in range(25):
            masks = np.atleast_2d(env.action_masks())
            assert masks[np.arange(len(masks)), env.action_space.sample()].all()
            if len(masks) == 1 and env.episodes.over[0]:
                env.reset()
            actions = some_actions(np.atleast_2d(env.action_masks()), rng)
            told.append(env.step(actions if len(masks) > 1 else actions[0])[:3])
        return told

    for env in (make(name, problems=MIXED, reward="dense", **own), make_vec(name, 3, problems=MIXED, **own)):
        env.reset(seed=0)
        env.step(env.action_space.sample())
        copies = copy.deepcopy(env), pickle.loads(pickle.dumps(env))
        told = [going_on(one) for one in (*copies, env)]
        assert_same(told[0], told[2])
        assert_same(told[1], told[2])


def test_a_schedule_at_any_step() -> None:
    """`schedule()` holds what is placed, keeps support and colocation, and ends as `info` says."""
    for name, own in BARE:
        for groups in (None, "colocation"):
            env = make(name, problem=crowded(), groups=groups, **own)
            rng, done = np.random.default_rng(0), False
            seen, _ = env.reset()
            while not done:
                schedule = env.schedule()
                placed = seen["op_device"] >= 0
                np.testing.assert_array_equal(schedule.op_device[placed], seen["op_device"][placed])
                seen, _, done, _, info = env.step(some_actions(env.action_masks()[None], rng)[0])
            assert env.schedule().makespan_s == info["makespan_s"]
            np.testing.assert_array_equal(env.schedule().op_device, info["op_device"])
    graph = pg.OpGraph.build(["a", "b"], [], colocation=[0, 0])
    env = make("Assign", problem=pg.Problem.from_times(graph, np.ones((2, 2))))
    env.reset()
    env.step(1)
    assert env.schedule().op_device.tolist() == [1, 1]
