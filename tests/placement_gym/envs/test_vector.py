"""The native vector form: rows that begin anew, their seeds and attributes, and what it hands out."""

import copy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from environments import (
    BARE,
    BARE_IDS,
    MIXED,
    SIZES,
    assert_same,
    crowded,
    drawn,
    free,
    make,
    make_vec,
    rollout,
    some_actions,
)
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import placement_gym as pg
from placement_gym.envs.observation import DYNAMIC, STATIC, Sizes
from placement_gym.envs.stack import ProblemStack
from placement_gym.errors import InvalidAction, InvalidOption

B = 3


# Of different sizes.
UNLIKE = [crowded(0), crowded(3), free(5, 4, 2)]


@pytest.mark.parametrize(
    ("mode", "observation"),
    [*((mode, "dict") for mode in AutoresetMode), (AutoresetMode.SAME_STEP, "flat")],
    ids=["next", "same", "disabled", "same-flat"],
)
@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_rows_begin_anew_as_in_gymnasium(mode: AutoresetMode, name: str, own: dict[str, Any], observation: str) -> None:
    """All that `SyncVectorEnv` over scalar forms returns is returned, whichever way ended rows begin anew."""
    rng = np.random.default_rng(0)
    options = {**own, "problems": UNLIKE, "sizes": pg.envs.Sizes(6, 40, 3), "observation": observation, "noise": 0.2}
    options["invalid"] = "penalty"
    theirs = SyncVectorEnv([lambda: make(name, **options)] * B, autoreset_mode=mode)
    ours = make_vec(name, B, autoreset_mode=mode, **options)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"] == mode
    assert ours.observation_space == theirs.observation_space
    assert ours.single_observation_space == theirs.single_observation_space
    assert_same(theirs.reset(seed=5)[0], ours.reset(seed=5)[0])
    n_ended, steps, over = 0, 0, np.zeros(B, bool)
    while n_ended < 8:
        if mode == AutoresetMode.DISABLED and over.any():
            if steps % 2:  # now and then a row begins anew of which the episode is not over
                over[rng.integers(B)] = True
            seeds = [int(rng.integers(99)), None, 7]
            results = [env.reset(seed=seeds, options={"reset_mask": over.copy()}) for env in (theirs, ours)]
        else:
            actions = rng.integers(0, ours.single_action_space.n, B)  # type: ignore[attr-defined]
            results = [env.step(actions.copy()) for env in (theirs, ours)]
            over = ours.episodes.over.copy()
            n_ended += int(results[0][2].sum())
            over = results[0][2].copy() if mode == AutoresetMode.DISABLED else over
        for info in (results[0][-1], results[0][-1].get("final_info", {})):
            if "overfull" in info:  # Gymnasium batches NumPy's bools as objects, None where there is none
                info["overfull"] = info["overfull"].astype(bool)
        for their, our in zip(*results, strict=True):
            assert_same(their, our)
        if len(results[0]) == 2:
            over[:] = False
        steps += 1


def test_ended_rows_are_refused_until_they_begin_anew() -> None:
    """Under DISABLED a step with an ended row changes nothing; other rows go on after the reset of that one."""
    vector = make_vec("Assign", 2, problem=free(), autoreset_mode="DISABLED")
    vector.reset(seed=0)
    first = np.array([True, False])
    for _ in range(3):
        vector.step(np.zeros(2, int))
    seen, _ = vector.reset(options={"reset_mask": first})
    assert seen["op_device"].max(axis=1).tolist() == [-1, 0]
    for _ in range(3):
        seen, _, ends, *_ = vector.step(np.zeros(2, int))
    assert ends.tolist() == [False, True]
    before = vector.get_state(0)
    with pytest.raises(InvalidAction, match="episode 1 is over"):
        vector.step(np.zeros(2, int))
    assert_same(dict(enumerate(before.arrays)), dict(enumerate(vector.get_state(0).arrays)))
    vector.reset(options={"reset_mask": ~first})
    _, _, ends, *_ = vector.step(np.zeros(2, int))
    assert not ends.any()
    env = make("Assign", problem=free(0, 1))
    env.reset()
    env.step(0)
    with pytest.raises(InvalidAction, match="the episode is over"):
        env.step(0)


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_seeds_of_rows(name: str, own: dict[str, Any]) -> None:
    """Equal seeds give equal rollouts, other seeds others; None goes on; without any seed rows are not alike."""
    options = {**own, "problem": free(), "noise": 0.5}
    first, again, other = (rollout(make(name, **options), seed) for seed in (5, 5, 6))
    assert_same(first, again)
    assert first[2]["makespan_s"] != other[2]["makespan_s"]
    vector, single = make_vec(name, 2, **options), make(name, **options)
    vector.reset(seed=[9, None])
    single.reset(seed=9)
    assert vector.call("np_random")[0].bit_generator.state == single.np_random.bit_generator.state
    assert vector.np_random_seed == vector.call("np_random_seed")
    assert vector.np_random_seed[0] == 9
    with_second = make(name, **options)
    with_second.reset(seed=vector.np_random_seed[1])
    assert vector.np_random[1].bit_generator.state == with_second.np_random.bit_generator.state
    states = [rng.bit_generator.state for rng in vector.call("np_random")]
    vector.reset()
    assert [rng.bit_generator.state for rng in vector.call("np_random")] != states
    fresh = make_vec(name, 2, **options), make_vec(name, 2, **options)
    for one in fresh:
        one.reset(options={"reset_mask": np.array([True, False])})
        one.reset()
    numbers = {rng.integers(2**60) for one in fresh for rng in one.call("np_random")}
    assert len(numbers) == 4


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_attributes_of_rows(name: str, own: dict[str, Any]) -> None:
    """`call` and `get_attr` give for each row what the scalar form gives; what they cannot give is named."""
    rng = np.random.default_rng(0)
    vector = make_vec(name, 2, problems=MIXED, noise=0.1, **own)
    singles = [make(name, problems=MIXED, noise=0.1, **own) for _ in range(2)]
    vector.reset(seed=1)
    for i, env in enumerate(singles):
        env.reset(seed=1 + i)
    actions = some_actions(vector.action_masks(), rng)
    vector.step(actions)
    for action, env in zip(actions, singles, strict=True):
        env.step(action)
    for what in ("action_masks", "noisy_makespans_s"):
        for row, env in zip(vector.call(what), singles, strict=True):
            np.testing.assert_array_equal(row, getattr(env, what)())
    for row, env in zip(vector.call("schedule"), singles, strict=True):
        np.testing.assert_array_equal(row.op_device, env.schedule().op_device)
        assert row.makespan_s == env.schedule().makespan_s
    for what in ("problem", "sizes", "rule", "render_mode", *own):
        assert vector.get_attr(what) == tuple(getattr(env, what) for env in singles)
    assert vector.call("noisy_makespans_s", 3)[0].shape == (3,)
    for what in ("no_such_thing", "_window"):
        with pytest.raises(InvalidOption, match=f"unknown attribute '{what}'"):
            vector.get_attr(what)
    with pytest.raises(InvalidOption, match="step\\(\\) acts on one episode"):
        vector.call("step", 0)
    with pytest.raises(InvalidOption, match="'problem' cannot be set"):
        vector.set_attr("problem", free())


def test_what_was_handed_out_stays() -> None:
    """No array of an earlier step or problem changes; with copy=False, DYNAMIC keys are read-only views that do."""
    for name, own in BARE:
        for options in ({"problems": MIXED}, {"problems": drawn, "sizes": SIZES}, {"problem": crowded()}):
            vector, rng, kept = make_vec(name, B, **own, **options), np.random.default_rng(0), []
            seen, _ = vector.reset(seed=0)
            for _ in range(25):
                kept.append((seen, copy.deepcopy(seen)))
                seen, *_ = vector.step(some_actions(vector.action_masks(), rng))
            for was, copied in kept:
                assert_same(was, copied)
            assert all(not seen[key].flags.writeable for key in STATIC)
            assert all(seen[key].flags.writeable for key in DYNAMIC)
            lean = make_vec(name, B, copy=False, **own, **options)
            first, _ = lean.reset(seed=0)
            static = {key: first[key].copy() for key in STATIC}
            assert_same(first, kept[0][1])
            second, *_ = lean.step(some_actions(lean.action_masks(), np.random.default_rng(0)))
            assert_same(second, kept[1][1])
            for key in DYNAMIC:
                assert not second[key].flags.writeable
                assert np.shares_memory(first[key], second[key])
            for _ in range(25):
                lean.step(some_actions(lean.action_masks(), rng))
            assert_same({key: first[key] for key in STATIC}, static)


def test_static_keys_are_written_into_arrays_that_nobody_holds() -> None:
    """For a user who holds the last observation only, a few arrays take turns; what is held stays as it is."""
    vector, rng = make_vec("Assign", B, problems=MIXED), np.random.default_rng(0)
    seen, _ = vector.reset(seed=0)
    kept = seen["op_time"][1][2:]  # a view of a view
    was, addresses = kept.copy(), set()
    for _ in range(100):
        seen, *_ = vector.step(some_actions(vector.action_masks(), rng))
        if len(set(vector.problems)) > 1:
            addresses.add(seen["op_time"].ctypes.data)
        for row, problem in enumerate(vector.problems):
            expected = pg.envs.observation.static_observation(problem, vector.sizes)
            assert_same(seen["op_time"][row], expected["op_time"])
    assert 2 <= len(addresses) <= 4
    assert_same(kept, was)


def test_a_problem_is_written_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making, resetting with a problem and drawing write a problem once; what no row uses makes room."""
    written: list[str] = []
    put = ProblemStack.put

    def counted(stack: ProblemStack, problem: pg.Problem, groups: Any) -> int:
        written.append(problem.name)
        return put(stack, problem, groups)

    monkeypatch.setattr(ProblemStack, "put", counted)
    vector = make_vec("Assign", 20, problem=crowded())
    assert len(written) == 2  # one for the spaces, one for the rows
    vector.reset(options={"problem": crowded(3)})
    assert len(written) == 3
    rng = np.random.default_rng(0)
    drawing = make_vec("Assign", 4, problems=drawn, sizes=SIZES)
    for _ in range(200):
        drawing.step(some_actions(drawing.action_masks(), rng))
    assert len(drawing.episodes._stack.entries) <= 8


def test_a_row_that_is_not_there_is_named() -> None:
    """Negative, too large, no number: nothing changes."""
    vector = make_vec("Assign", 3, problem=crowded())
    vector.reset(seed=0)
    state = vector.get_state(0)
    for row in (-1, 3, "a", None, 1.0):
        for call in (
            vector.get_state,
            vector.schedule,
            vector.noisy_makespans_s,
            partial(vector.set_state, state=state),
        ):
            with pytest.raises(InvalidOption, match="expected 0 to 2"):
                call(row)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_the_single_space_knows_no_mask(name: str, own: dict[str, Any]) -> None:
    """It is a row's space in any state: a learner that explores by it reaches every action."""
    vector = make_vec(name, 2, problem=crowded(), invalid="nearest", **own)
    space = vector.single_action_space
    space.seed(0)
    drawn_actions = {int(space.sample()) for _ in range(20 * int(space.n))}
    assert drawn_actions == set(range(int(space.n)))


def test_buffers_of_static_keys_are_few() -> None:
    """However many observations someone keeps; copies see their own problems."""
    vector, rng = make_vec("Assign", 4, problems=MIXED), np.random.default_rng(0)
    vector.reset(seed=0)
    kept = [vector.step(some_actions(vector.action_masks(), rng))[0] for _ in range(60)]
    assert len(vector.episodes._static._buffers) <= 3
    other = copy.deepcopy(vector)
    del kept
    for seed in range(12):
        seen, _ = other.reset(seed=seed)
        assert seen["n_ops"].ravel().tolist() == [problem.n_ops for problem in other.problems]
        assert not seen["op_features"].flags.writeable


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"problems": 5}, "problems is a int"),
        ({"problem": 5}, "problem is a int"),
        ({"problems": drawn, "sizes": (8, 40, 4)}, "sizes is a tuple"),
        ({"groups": [[0], [1, 2]]}, "groups is no array"),
        ({"rule": ["giph"]}, "rule is a list"),
        ({"noise": "a"}, "noise is 'a'"),
        ({"noise": True}, "noise is True"),
        ({"num_envs": 2.5}, "num_envs is 2.5"),
        ({"num_envs": True}, "num_envs is True"),
        ({"autoreset_mode": []}, "unknown autoreset_mode"),
        ({"order": np.zeros(3)}, "unknown order"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], said: str) -> None:
    """In one line that says what was got, and what is expected."""
    with pytest.raises(InvalidOption, match=said) as raised:
        gym.make_vec("placement_gym/Assign-v0", **{"num_envs": 2, **options})
    assert len(str(raised.value).splitlines()) == 1


def test_wrong_resets_of_the_vector_form_are_named() -> None:
    """Options that are no dict, seeds that are no whole numbers; sizes that no problem has."""
    vector = make_vec("Assign", 2, problem=crowded())
    for arguments in ({"options": 5}, {"seed": 1.5}, {"seed": [1, "a"]}, {"seed": [True, 1]}, {"seed": [1]}):
        with pytest.raises(InvalidOption):
            vector.reset(**arguments)  # type: ignore[arg-type]
    for sizes in (("6", 40, 3), (6.0, 40, 3), (0, 40, 3), (6, None, 3)):
        with pytest.raises(InvalidOption, match=r"Sizes\.n_"):
            Sizes(*sizes)  # type: ignore[arg-type]
