"""Actions: samples, wrong ones, and what other libraries make of the spaces."""

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from environments import BARE, BARE_IDS, CASES, MAIN, assert_same, crowded, free, given, make, make_vec, some_actions
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import placement_gym as pg
from placement_gym.envs.actions import AllowedBatch, AllowedDiscrete
from placement_gym.envs.reward import PENALTY
from placement_gym.errors import InvalidAction

# The options on which masks depend.
MASKS = [case for case in MAIN if case.id.rsplit("-", 1)[1] in ("dense", "colocation", "groups", "mixed", "callable")]


@pytest.mark.parametrize(("name", "options"), MASKS)
def test_samples_are_legal_in_every_state(name: str, options: dict[str, Any]) -> None:
    """What the action spaces sample is in the mask, at every step, and before the first reset."""
    options = given(options)
    env, vector = make(name, **options), make_vec(name, 3, **options)
    env.action_space.seed(0)
    vector.action_space.seed(0)
    for k in range(15):
        action, actions = env.action_space.sample(), vector.action_space.sample()
        assert env.action_masks()[action]
        assert vector.action_masks()[np.arange(3), actions].all()
        assert env.action_space.contains(action)
        assert vector.action_space.contains(actions)
        if env.episodes.over[0] or k == 0:
            env.reset()
            action = env.action_space.sample()
        env.step(action)
        vector.step(actions)


def test_samples_are_even_draws() -> None:
    """Every allowed action is drawn about equally often; masks and probabilities of the caller come first."""
    mask = np.array([[0, 1, 0, 1, 1], [1, 0, 0, 0, 1]], bool)
    one, batch = AllowedDiscrete(5, lambda: mask[0]), AllowedBatch(2, 5, lambda: mask)
    one.seed(0)
    batch.seed(0)
    singles = np.bincount([one.sample() for _ in range(3000)], minlength=5)
    both = np.array([batch.sample() for _ in range(3000)])
    for counts, row in (
        (singles, 0),
        (np.bincount(both[:, 0], minlength=5), 0),
        (np.bincount(both[:, 1], minlength=5), 1),
    ):
        expected = 3000 * mask[row] / mask[row].sum()
        assert np.abs(counts - expected).max() < 150
        assert not counts[~mask[row]].any()
    assert both.dtype == np.int64
    assert one.sample(mask=np.array([1, 0, 0, 0, 0], np.int8)) == 0
    assert one.sample(probability=np.array([0.0, 0, 1, 0, 0])) == 2
    only = tuple(np.array(row, np.int8) for row in ([1, 0, 0, 0, 0], [0, 0, 1, 0, 0]))
    assert batch.sample(mask=only).tolist() == [0, 2]
    for space, plain in ((one, spaces.Discrete(5)), (batch, spaces.MultiDiscrete([5, 5]))):
        assert space == plain
        assert type(copy.deepcopy(space)) is type(pickle.loads(pickle.dumps(space))) is type(plain)


def rubbish(n: int) -> list[Any]:
    """What is no action of a space of n actions."""
    wrong: list[Any] = [
        1.5,
        0.0,
        "a",
        "0",
        None,
        [0],
        [],
        (0,),
        True,
        {},
        object(),
        b"0",
        0j,
        float("nan"),
        2**70,
        -(2**70),
    ]
    wrong += [np.array([0]), np.array(0.0), np.array(True), np.bool_(False), np.zeros((1, 1), int), np.float32(0)]
    return [*wrong, n, -1, np.int64(n), np.uint64(2**63), [0, [1]]]


@pytest.mark.parametrize("invalid", ["raise", "nearest", "penalty"])
@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_what_is_no_action_changes_nothing(name: str, own: dict[str, Any], invalid: str) -> None:
    """Other types, shapes and numbers raise InvalidAction whatever `invalid` is, and the episode goes on as before."""
    options = {**own, "problem": crowded(), "invalid": invalid, "reward": "dense"}
    env, vector = make(name, **options), make_vec(name, 3, **options)
    env.reset(seed=0)
    vector.reset(seed=0)
    rng, n = np.random.default_rng(0), len(env.action_masks())
    for _ in range(2):
        before = [one.episodes.get_state(row) for one in (env, vector) for row in range(one.episodes.n_rows)]
        seen = env.episodes.observation(), vector.episodes.observation()
        for action in rubbish(n):
            with pytest.raises(InvalidAction):
                env.step(action)
            for batch in ([0, action, 0], [action] * 3, action, [action]):
                with pytest.raises(InvalidAction):
                    vector.step(batch)
        for batch in ([0, 1], [[0], [0], [0]], np.zeros(3), np.zeros(3, bool), np.zeros((3, 1), int), [0, 0, 0, 0], 0):
            with pytest.raises(InvalidAction):
                vector.step(batch)
        assert_same((env.episodes.observation(), vector.episodes.observation()), seen)
        after = [one.episodes.get_state(row) for one in (env, vector) for row in range(one.episodes.n_rows)]
        for old, new in zip(before, after, strict=True):
            assert_same(old.arrays, new.arrays)
            assert (old.numbers, old.generator, old.over) == (new.numbers, new.generator, new.over)
        for kind in (int, np.int64, np.int8, np.uint16, np.array):
            copy.deepcopy(env).step(kind(some_actions(env.action_masks()[None], rng)[0]))
        env.step(int(some_actions(env.action_masks()[None], rng)[0]))
        vector.step(some_actions(vector.action_masks(), rng).tolist())


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_actions_outside_the_mask(name: str, own: dict[str, Any]) -> None:
    """They are refused and change nothing; or the nearest one is done, which is counted; or costs 0.1 beside."""
    options = {**own, "problem": crowded(2), "reward": "dense"}
    strict, near, dear = (make(name, **options, invalid=invalid) for invalid in ("raise", "nearest", "penalty"))
    rng, n_wrong, done = np.random.default_rng(0), 0, False
    seen = strict.reset(seed=0)[0]
    near.reset(seed=0)
    dear.reset(seed=0)
    while not done:
        mask = strict.action_masks()
        action = int(rng.integers(len(mask)))
        nearest = min(np.flatnonzero(mask).tolist(), key=lambda a: (abs(a - action), a))
        if not mask[action]:
            n_wrong += 1
            with pytest.raises(InvalidAction, match=f"action {action} .*is not in the action mask, which allows"):
                strict.step(action)
            assert_same(strict._observation(), seen)
        seen, reward, done, _, info = strict.step(nearest)
        for env, costs in ((near, 0.0), (dear, PENALTY)):
            other, earned, over, _, told = env.step(action)
            assert_same(other, seen)
            assert earned == reward - (0.0 if mask[action] else costs)
            assert over == done
            if done:
                assert told.pop("invalid_actions") == n_wrong
                assert_same(told, info)
    assert n_wrong > 2
    assert PENALTY == 0.1
    near.reset()
    while not near.episodes.over[0]:
        *_, info = near.step(near.action_space.sample())
    assert info["invalid_actions"] == 0


def test_refusals_say_what_is_allowed() -> None:
    """The op, the action, the allowed ones, and in the vector form the first row that is wrong."""
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 1.0)])
    problem = pg.Problem.from_times(graph, [[1.0, np.inf], [1.0, 1.0]])
    env, vector = make("Assign", problem=problem), make_vec("Assign", 3, problem=problem)
    env.reset()
    vector.reset()
    with pytest.raises(InvalidAction, match=r"^action 1 for op 'a' is not in the action mask, which allows \[0\]$"):
        env.step(1)
    with pytest.raises(InvalidAction, match=r"^episode 1: action 1 for op 'a' is not in"):
        vector.step([0, 1, 1])
    with pytest.raises(InvalidAction, match=r"^episode 2: action 7 for op 'a' is not in"):
        vector.step([0, 1, 7])
    wide = make(
        "SelectPlace",
        problem=pg.Problem.from_times(pg.OpGraph.build([f"{i}" for i in range(30)], []), np.ones((30, 31))),
    )
    wide.reset()
    with pytest.raises(InvalidAction, match=r"action 30 is not in .* 18, 19\] and 10 more$"):
        wide.step(30)


@pytest.mark.parametrize(("name", "options"), MAIN)
def test_gymnasium_checker_is_silent(name: str, options: dict[str, Any]) -> None:
    """Gymnasium's checker finds nothing to warn of, whatever the option."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(name, **{**given(options), "invalid": "nearest"}), skip_render_check=True)


@pytest.mark.parametrize(("name", "options"), MAIN)
def test_sb3_checker_is_silent(name: str, options: dict[str, Any]) -> None:
    """The checker of stable-baselines3 finds nothing to warn of, whatever the option."""
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_for_sb3(make(name, **{**given(options), "invalid": "nearest"}))


def learn(algorithm: str, name: str, options: dict[str, Any]) -> None:
    """A few hundred steps of an algorithm that knows no masks."""
    import stable_baselines3

    env = make(name, **options)
    policy = "MlpPolicy" if options.get("observation") == "flat" else "MultiInputPolicy"
    more = {
        "PPO": {"n_steps": 64, "batch_size": 64, "n_epochs": 1},
        "A2C": {},
        "DQN": {"learning_starts": 50, "buffer_size": 300},
    }[algorithm]
    small = {"net_arch": [16]}
    learner = getattr(stable_baselines3, algorithm)
    model = learner(policy, env, seed=0, device="cpu", policy_kwargs=small, **more).learn(256)
    assert model.num_timesteps >= 256
    action, _ = model.predict(env.reset()[0])
    env.step(action)


@pytest.mark.parametrize(
    ("algorithm", "case"), [("PPO", 0), ("A2C", 1), ("DQN", 2)], ids=["PPO-Assign", "A2C-SelectPlace", "DQN-joint"]
)
def test_sb3_learners_run_without_masks(algorithm: str, case: int) -> None:
    """Learners of stable-baselines3 run on environments that take any action of the space."""
    name, own = BARE[case]
    learn(
        algorithm, name, {**own, "problem": crowded(), "invalid": "nearest", "observation": ("flat", "dict")[case % 2]}
    )


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "DQN"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_sb3_learners_run_on_everything(name: str, options: dict[str, Any], algorithm: str) -> None:
    """The same with every option, for both ways to take an action outside the mask."""
    learn(algorithm, name, {"invalid": "nearest", **given(options)})


def test_maskable_ppo_reads_the_masks() -> None:
    """MaskablePPO learns with invalid="raise": every action that it takes is allowed."""
    from sb3_contrib import MaskablePPO

    for name, own in BARE[::2]:
        env = make(name, problem=free(), **own)
        seen, _ = env.reset()
        np.testing.assert_array_equal(env.action_masks(), seen["action_mask"] == 1)
        small = {"net_arch": [16]}
        MaskablePPO(
            "MultiInputPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=0, policy_kwargs=small, device="cpu"
        ).learn(64)
