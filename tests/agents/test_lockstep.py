"""Lockstep: the same episodes as the environment's."""

import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from agents.lockstep import Lockstep
from placement_gym.envs import SelectPlaceVectorEnv, Sizes
from placement_gym.envs.observation import ACTION_FEATURES, table
from placement_gym.envs.select_place import priority_of
from placement_gym.errors import InvalidAction

PROBLEM = random_problem(np.random.default_rng(3), n_ops=10, n_devices=3, edge_share=0.3, unsupported=True)


@pytest.mark.parametrize("action", ["phased", "joint"])
@pytest.mark.parametrize("padded", [False, True])
def test_episodes_are_those_of_the_environment(action: str, padded: bool) -> None:
    """Features, masks and placements at every step of two rounds, whether or not the environment pads them."""
    n, d = PROBLEM.n_ops, PROBLEM.n_devices
    sizes = Sizes(14, 60, 5) if padded else None
    env = SelectPlaceVectorEnv(6, PROBLEM, action=action, rule="giph", priority="selection", sizes=sizes)
    lockstep, rng = Lockstep(env), np.random.default_rng(0)
    width = env.sizes.n_devices
    for _ in range(2):
        seen, _ = env.reset()
        lockstep.reset()
        for _ in range(n):
            if action == "joint":
                mask = seen["action_mask"].reshape(6, -1, width)[:, :n, :d].astype(bool)
                np.testing.assert_array_equal(lockstep.pair_mask, mask)
                pairs = seen["action_features"].reshape(6, -1, width, len(ACTION_FEATURES))
                np.testing.assert_array_equal(lockstep.pair_features, pairs[:, :n, :d])
                drawn = np.array([rng.choice(np.flatnonzero(row)) for row in mask.reshape(6, -1)])
                ops, devices = drawn // d, drawn % d
                lockstep.step(ops, devices)
                seen, _, _, _, info = env.step(ops * width + devices)
            else:
                np.testing.assert_array_equal(lockstep.ready, seen["action_mask"][:, :n])
                ops = np.array([rng.choice(np.flatnonzero(row)) for row in lockstep.ready])
                lockstep.select(ops)
                seen, *_ = env.step(ops)
                np.testing.assert_array_equal(lockstep.mask, seen["action_mask"][:, :d])
                np.testing.assert_array_equal(
                    lockstep.features, table("action_features", seen["action_features"])[:, :d]
                )
                devices = np.array([rng.choice(np.flatnonzero(row)) for row in lockstep.mask])
                lockstep.place(devices)
                seen, _, _, _, info = env.step(devices)
            np.testing.assert_array_equal(lockstep.op_device, seen["op_device"][:, :n])
        np.testing.assert_array_equal(lockstep.order, info["order"][:, :n])
        makespans_s, _ = lockstep.compiled.weigh(lockstep.op_device, priority_of(lockstep.order, n))
        np.testing.assert_array_equal(makespans_s, info["makespan_s"])
    assert lockstep.by_selection


def test_what_is_not_allowed_changes_nothing() -> None:
    """The first episode whose action is outside its mask is named; the environment is not played at all."""
    env = SelectPlaceVectorEnv(2, pg.workloads.layered(n_ops=20, n_devices=2, seed=1))
    before = env.reset()[0]["action_mask"].copy()
    lockstep = Lockstep(env)
    ops = np.array([lockstep.ready[0].argmax(), lockstep.ready[1].argmin()])
    with pytest.raises(InvalidAction, match=f"episode 1: action {ops[1]} is not in the action mask"):
        lockstep.select(ops)
    np.testing.assert_array_equal(lockstep.ready, before[:, : lockstep.n_ops])
    lockstep.select(lockstep.ready.argmax(axis=1))
    np.testing.assert_array_equal(env.action_masks(), before.astype(bool))
