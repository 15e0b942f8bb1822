"""The native vector form: rows that begin anew, their seeds and attributes, and what it hands out."""

import copy
from typing import Any

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
from placement_gym.envs.observation import DYNAMIC, STATIC
from placement_gym.errors import InvalidAction, InvalidOption

B = 3


# SyncVectorEnv batches infos of one shape only, so its problems have one number of ops.
ALIKE = [crowded(0), crowded(3), crowded(5)]


@pytest.mark.parametrize(
    ("mode", "observation"),
    [*((mode, "dict") for mode in AutoresetMode), (AutoresetMode.SAME_STEP, "flat")],
    ids=["next", "same", "disabled", "same-flat"],
)
@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_rows_begin_anew_as_in_gymnasium(mode: AutoresetMode, name: str, own: dict[str, Any], observation: str) -> None:
    """All that `SyncVectorEnv` over scalar forms returns is returned, whichever way ended rows begin anew."""
    rng = np.random.default_rng(0)
    options = {**own, "problems": ALIKE, "sizes": pg.envs.Sizes(6, 40, 3), "observation": observation, "noise": 0.2}
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
