"""The registered environments and the options that tests go through; problems and actions for them."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import random_problem

import placement_gym as pg
from placement_gym.envs import PlacementEnv, PlacementVectorEnv, Sizes
from placement_gym.rule import PRESETS

# Each environment with its own options; another environment is another line.
OWN: dict[str, list[dict[str, Any]]] = {
    "Assign": [{}, {"order": "topological"}],
    "SelectPlace": [{}, {"action": "joint"}, {"priority": "selection"}, {"action": "joint", "priority": "selection"}],
}
N_OPS, N_DEVICES = 6, 3
SIZES = Sizes(8, 40, 4)


@lru_cache
def crowded(seed: int = 0, n_ops: int = N_OPS, n_devices: int = N_DEVICES, *, memory: str = "claims") -> pg.Problem:
    """A small unlike problem in which support, colocation and memory bind, so that some episodes end overfull."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n_ops=n_ops, n_devices=n_devices, whole_numbers=bool(seed % 2), unsupported=True)
    able, colocation = np.isfinite(problem.op_time_s), np.full(n_ops, -1)
    mates = [(a, b) for a in range(n_ops) for b in range(a) if (able[a] & able[b]).any()]
    if mates:
        colocation[list(mates[rng.integers(len(mates))])] = 0
    held = rng.integers(0, 4, n_ops).astype(float)
    graph = replace(problem.graph, op_colocation=colocation.astype(np.int32), op_parameter_bytes=held)
    endless = replace(problem, name=f"crowded_{seed}", graph=graph, op_memory_bytes=held, memory_rule=memory)
    together = max(held[colocation == 0].sum(), held.max(), 1.2 * held.sum() / n_devices)
    return replace(endless, device_memory_bytes=np.full(n_devices, together + endless.op_working_bytes.max() + 0.5))


@lru_cache
def free(seed: int = 0, n_ops: int = N_OPS, n_devices: int = N_DEVICES) -> pg.Problem:
    """A small unlike problem in which nothing binds."""
    return random_problem(np.random.default_rng(seed), n_ops=n_ops, n_devices=n_devices, whole_numbers=False)


def drawn(rng: np.random.Generator) -> pg.Problem:
    """A problem of any size up to SIZES."""
    return crowded.__wrapped__(int(rng.integers(1000)), int(rng.integers(2, 9)), int(rng.integers(2, 5)))


MIXED = [crowded(0), crowded(1, 8, 2), crowded(2, 3, 4)]
# What all environments share: name -> options beside the problem.
SHARED: dict[str, dict[str, Any]] = {
    "dense": {"reward": "dense"},
    **{f"rule {name}": {"rule": name} for name in PRESETS},
    "queue priority": {"rule": pg.Rule(queue="priority")},
    **{f"objective {name}": {"objective": name} for name in ("max_load", "gpipe_load", "latency")},
    "load dense": {"objective": "max_load", "reward": "dense"},
    "colocation": {"groups": "colocation"},
    "groups": {"groups": np.array([0, 1, 1, 2, 0, 3]), "reward": "dense"},
    "noise": {"noise": 0.3},
    "flat": {"observation": "flat"},
    "nearest": {"invalid": "nearest"},
    "penalty": {"invalid": "penalty", "reward": "dense"},
    "mixed": {"problems": MIXED},
    "mixed flat": {"problems": MIXED, "observation": "flat", "reward": "dense", "noise": 0.1, "groups": "colocation"},
    "callable": {"problems": drawn, "sizes": SIZES, "reward": "dense"},
}
# Every environment with every option: pytest.param(name, options).
CASES = [
    pytest.param(name, {**own, **shared}, id="-".join([name, *map(str, own.values()), what]))
    for name, variants in OWN.items()
    for own in variants
    for what, shared in SHARED.items()
    if not (what == "queue priority" and own.get("priority") == "selection")
]
# Those with at most one option of their own that changes what actions are.
MAIN = [case for case in CASES if not {"topological", "joint-selection"} & {case.id.split("-", 1)[1].rsplit("-", 1)[0]}]
# Each environment and kind of action, (name, options).
BARE = [(name, own) for name, variants in OWN.items() for own in variants if not {"order", "priority"} & set(own)]
BARE_IDS = ["-".join([name, *(str(value) for value in own.values())]) for name, own in BARE]


def given(options: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The options with a problem, unless they bring their own; with groups, one in which any ops may be together."""
    if "problem" in options or "problems" in options:
        return options
    return {**options, "problem": free(seed) if isinstance(options.get("groups"), np.ndarray) else crowded(seed)}


def make(name: str, **options: Any) -> PlacementEnv:
    """The scalar form without wrappers."""
    return gym.make(f"placement_gym/{name}-v0", disable_env_checker=True, **options).unwrapped  # type: ignore[return-value]


def make_vec(name: str, num_envs: int, **options: Any) -> PlacementVectorEnv:
    """The native vector form."""
    return gym.make_vec(f"placement_gym/{name}-v0", num_envs=num_envs, **options).unwrapped  # type: ignore[return-value]


def some_actions(masks: NDArray[np.bool_], rng: np.random.Generator, *, legal: bool = True) -> NDArray[np.int64]:
    """An allowed action for each row of masks; or any action of the space."""
    if not legal:
        return rng.integers(0, masks.shape[1], len(masks))
    return np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])


def rollout(env: PlacementEnv, seed: int) -> tuple[list[Any], list[float], dict[str, Any]]:
    """(observations, rewards, last info) of an episode of random allowed actions."""
    seen, _ = env.reset(seed=seed)
    return play(env, seen, np.random.default_rng(seed))


def play(env: PlacementEnv, seen: Any, rng: np.random.Generator) -> tuple[list[Any], list[float], dict[str, Any]]:
    """(observations, rewards, last info) of random allowed actions to the end of the episode."""
    observations, rewards, done, info = [seen], [], False, {}
    while not done:
        seen, reward, done, cut, info = env.step(some_actions(env.action_masks()[None], rng)[0])
        assert not cut
        observations.append(seen)
        rewards.append(reward)
    return observations, rewards, info


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Raises if two observations, infos, arrays or lists of them differ, dtypes counted."""
    if isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b, where)
        return
    if isinstance(one, dict):
        assert set(one) == set(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where} {key}")
        return
    if isinstance(one, np.ndarray) and one.dtype == object:
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None), where
            if a is not None:
                assert_same(a, b, where)
        return
    one, other = np.asarray(one), np.asarray(other)
    assert one.dtype == other.dtype, where
    assert one.shape == other.shape, where
    if not np.array_equal(one, other):
        np.testing.assert_array_equal(one, other, err_msg=where)


def row_of(seen: Any, row: int) -> Any:
    """A row of a batch of observations."""
    return {key: value[row] for key, value in seen.items()} if isinstance(seen, dict) else seen[row]
