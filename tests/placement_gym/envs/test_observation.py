"""Observations: one schema, by hand, whatever the padding; the flat form."""

import zlib
from typing import Any

import numpy as np
import pytest
from environments import (
    BARE,
    BARE_IDS,
    MIXED,
    SIZES,
    SOME,
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
from placement_gym.envs import Sizes
from placement_gym.envs.observation import (
    ACTION_FEATURES,
    BOUND,
    CONTEXT,
    DEVICE_FEATURES,
    DYNAMIC,
    EDGE_FEATURES,
    LINK_FEATURES,
    N_KINDS,
    OP_FEATURES,
    PAIR,
    SELECT,
    STATIC,
    static_observation,
    table,
)
from placement_gym.errors import InvalidOption


def by_hand() -> pg.Problem:
    """Three ops on two devices that differ in everything; `a` runs on the first only."""
    graph = pg.OpGraph.build(
        ["a", "b", "c"],
        [(0, 1, 2.0), (0, 2, 4.0)],
        kinds=["matmul", "add", "matmul"],
        output_bytes=[6.0, 3.0, 0.0],
        is_backward=[False, False, True],
    )
    return pg.Problem.from_times(
        graph,
        [[2.0, np.inf], [2.0, 6.0], [3.0, 3.0]],
        link_latency_s=[[0.0, 1.0], [3.0, 0.0]],
        link_bytes_per_s=[[np.inf, 2.0], [1.0, np.inf]],
        device_kinds=["accelerator", "cpu"],
        device_slots=[1, 2],
        device_memory_bytes=[10.0, 30.0],
        op_memory_bytes=[1.0, 2.0, 3.0],
    )


def test_static_keys_by_hand() -> None:
    """Every feature of a small problem; behind the last op, edge and device there is 0, or -1 for numbers of ops."""
    seen = static_observation(by_hand(), Sizes(5, 4, 3))
    assert tuple(seen) == STATIC
    # Mean times are 2, 4 and 3 s, which is 3 s on average; edges take 3.5 and 5 s; the longest path takes 10 s.
    ops = table("op_features", seen["op_features"])
    expected = {
        "log_time": np.log1p([2 / 3, 4 / 3, 1]),
        "time": [2 / 3, 4 / 3, 1],
        "b_level": [1, 0.4, 0.3],
        "t_level": [0, 0.55, 0.7],
        "in_time": [0, 3.5 / 3, 5 / 3],
        "out_time": [8.5 / 3, 0, 0],
        "memory": [0.05, 0.1, 0.15],
        "is_backward": [0, 0, 1],
        "output_bytes": [2, 1, 0],
    }
    assert_table(ops, OP_FEATURES, expected)
    edges = {"time": [3.5 / 3, 5 / 3], "bytes": [2 / 3, 4 / 3]}
    assert_table(table("edge_features", seen["edge_features"]), EDGE_FEATURES, edges)
    devices = {
        "relative_time": [7 / 9, 9 / 7],
        "share_supported": [1, 2 / 3],
        "memory": [10 / 6, 5],
        "slots": [1, 2],
    }
    assert_table(table("device_features", seen["device_features"]), DEVICE_FEATURES, devices)
    links = table("link_features", seen["link_features"]).reshape(3, 3, len(LINK_FEATURES))
    assert LINK_FEATURES == ("latency", "time")
    np.testing.assert_allclose(links[:2, :2], [[[0, 0], [1 / 3, 0.5]], [[1, 1], [0, 0]]], rtol=1e-6)
    assert not links[2].any()
    assert not links[:, 2].any()
    times = np.zeros((5, 3))
    times[:3, :2] = [[2 / 3, -1], [2 / 3, 2], [1, 1]]
    np.testing.assert_allclose(seen["op_time"].reshape(5, 3), times, rtol=1e-6)
    assert table("edge_index", seen["edge_index"]).tolist() == [[0, 0, -1, -1], [1, 2, -1, -1]]
    matmul, add, gpu, cpu = (1 + zlib.crc32(kind.encode()) % 63 for kind in ("matmul", "add", "accelerator", "cpu"))
    assert seen["op_kind"].tolist() == [matmul, add, matmul, 0, 0]
    assert seen["device_kind"].tolist() == [gpu, cpu, 0]
    assert len({matmul, add, gpu, cpu}) == 4
    assert [seen[key].tolist() for key in ("n_ops", "n_edges", "n_devices")] == [[3], [2], [2]]
    assert not any(array.flags.writeable for array in seen.values())


def assert_table(got: Any, names: tuple[str, ...], expected: dict[str, Any]) -> None:
    """Raises unless the columns are these, with zeros behind them."""
    assert tuple(expected) == names
    values = np.array([expected[name] for name in names]).T
    np.testing.assert_allclose(got[: len(values)], values, rtol=1e-6)
    assert not got[len(values) :].any()


def test_table_keeps_leading_axes() -> None:
    """Rows and columns of batches."""
    assert table("op_features", np.zeros((2, 7, 4 * len(OP_FEATURES)))).shape == (2, 7, 4, len(OP_FEATURES))
    assert table("edge_index", np.zeros((5, 8))).shape == (5, 2, 4)
    with pytest.raises(InvalidOption, match="unknown key"):
        table("op_kind", np.zeros(3))


@pytest.mark.parametrize(("name", "options"), SOME)
def test_all_observations_are_in_the_space(name: str, options: dict[str, Any]) -> None:
    """Keys are those that are documented; shapes, types and bounds hold at every step, in both forms."""
    options = given(options)
    env, vector = make(name, **options), make_vec(name, 2, **options)
    flat = options.get("observation") == "flat"
    assert flat or set(env.observation_space.spaces) == {*STATIC, *DYNAMIC}  # type: ignore[attr-defined]
    rng, (seen, _), (batch, _) = np.random.default_rng(0), env.reset(seed=0), vector.reset(seed=0)
    for _ in range(14):
        assert env.observation_space.contains(seen)
        assert vector.observation_space.contains(batch)
        assert flat or tuple(seen) == tuple(batch) == (*STATIC, *DYNAMIC)
        for array in seen.values() if not flat else [seen]:
            assert np.isfinite(array).all()
        assert env.action_masks().any()
        np.testing.assert_array_equal(
            (seen if flat else seen["action_mask"])[-len(env.action_masks()) :] > 0, env.action_masks()
        )
        if env.episodes.over[0]:
            seen, _ = env.reset()
        else:
            seen, *_ = env.step(some_actions(env.action_masks()[None], rng)[0])
        batch, *_ = vector.step(some_actions(vector.action_masks(), rng))


def test_extreme_problems_stay_in_the_space() -> None:
    """One op, one device, no edges, times of 0, and times that are 1e15 apart."""
    bare, pair = pg.OpGraph.build(["a"], []), pg.OpGraph.build(["a", "b"], [(0, 1, 1e12)])
    problems = [
        pg.Problem.from_times(bare, [[1.0]]),
        pg.Problem.from_times(bare, [[0.0, 0.0]]),
        pg.Problem.from_times(pair, [[1e-9, 1e6], [1e6, 1e-9]], link_bytes_per_s=1e-6, link_latency_s=1e9),
        pg.Problem.from_times(pair, [[0.0, 0.0], [0.0, 0.0]], link_bytes_per_s=1.0),
    ]
    for problem in problems:
        for name, own in BARE:
            for form in ("dict", "flat"):
                env = make(name, problem=problem, observation=form, reward="dense", **own)
                observations, rewards, _ = rollout(env, 0)
                assert all(env.observation_space.contains(seen) for seen in observations)
                assert np.isfinite(rewards).all()
    reach = static_observation(problems[2], Sizes(2, 1, 2))
    assert table("edge_features", reach["edge_features"])[0, 0] == BOUND


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_padding_changes_nothing(name: str, own: dict[str, Any], seed: int) -> None:
    """A problem padded to larger sizes has the same values in the first corner of every key, and nothing behind."""
    problem, wide = crowded(seed), Sizes(11, 50, 5)
    bare = make(name, problem=problem, reward="dense", **own)
    padded = make(name, problem=problem, reward="dense", sizes=wide, **own)
    mixed = make(name, problems=[problem, free(0, 11, 5)], reward="dense", sizes=wide, **own)
    while mixed.problem is not problem:
        mixed.reset()
    one, other = bare.reset()[0], padded.reset()[0]
    assert_same(mixed._observation(), other)
    rng, done = np.random.default_rng(seed), False
    shapes = {
        "op_features": (len(OP_FEATURES),),
        "op_time": ("d",),
        "edge_features": (len(EDGE_FEATURES),),
        "device_features": (len(DEVICE_FEATURES),),
        "link_features": ("d", len(LINK_FEATURES)),
        "edge_index": ("m",),
    }
    counts = {"d": (problem.n_devices, wide.n_devices), "m": (problem.graph.n_edges, wide.n_edges)}
    while not done:
        for key in (*STATIC, "phase", "op", "op_device", "context"):
            columns = shapes.get(key, ())
            small, large = (
                seen[key].reshape(-1, *[counts[c][k] if isinstance(c, str) else c for c in columns])
                for k, seen in enumerate((one, other))
            )
            corner = tuple(slice(length) for length in small.shape)
            np.testing.assert_array_equal(large[corner], small, err_msg=key)
            rest = np.ones(large.shape, bool)
            rest[corner] = False
            assert (large[rest] == (-1 if key in ("edge_index", "op_device") else 0)).all(), key
        allowed = [np.flatnonzero(seen["action_mask"]) for seen in (one, other)]
        assert len(allowed[0]) == len(allowed[1])
        if one["action_features"].any():
            rows = [
                table("action_features", seen["action_features"])[k]
                for seen, k in zip((one, other), allowed, strict=True)
            ]
            np.testing.assert_array_equal(*rows)
        described = [np.count_nonzero(seen["action_features"]) for seen in (one, other)]
        assert described[0] == described[1]
        # The k-th allowed action is the same one in both.
        k = rng.integers(len(allowed[0]))
        one, reward, done, _, info = bare.step(allowed[0][k])
        other, same, over, _, told = padded.step(allowed[1][k])
        assert (reward, done) == (same, over)
        assert_same(info, {key: value[: problem.n_ops] if value.ndim else value for key, value in told.items()})


def test_the_space_is_as_tight_as_the_numbers_are() -> None:
    """Numbers of ops and devices, -1 for none, counts and flags."""
    space = make("SelectPlace", problem=free(), sizes=Sizes(8, 20, 4)).observation_space
    bounds = {key: (int(box.low.min()), int(box.high.max())) for key, box in space.spaces.items()}  # type: ignore[attr-defined]
    assert bounds["op"] == bounds["edge_index"] == (-1, 7)
    assert bounds["op_device"] == (-1, 3)
    assert (bounds["n_ops"], bounds["n_edges"]) == ((0, 8), (0, 20))
    assert (bounds["n_devices"], bounds["phase"], bounds["action_mask"]) == ((0, 4), (SELECT, PAIR), (0, 1))
    assert bounds["op_kind"] == bounds["device_kind"] == (0, N_KINDS - 1)


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_context_says_how_far_the_episode_is(name: str, own: dict[str, Any]) -> None:
    """Steps go from 0 to 1 by equal shares; the value begins at 0, falls never, and ends at the objective."""
    assert CONTEXT == ("steps_done", "value")
    for options in ({}, {"groups": "colocation"}, {"objective": "max_load"}):
        env = make(name, problem=crowded(), **options, **own)
        observations, rewards, info = rollout(env, 0)
        steps, values = np.array([seen["context"] for seen in observations]).T
        if not env.episodes.process.complete:
            np.testing.assert_allclose(steps, np.linspace(0, 1, len(steps)), rtol=1e-6)
            assert values[0] == 0
            assert (np.diff(values[:-1]) >= 0).all()
        if not info["overfull"]:
            assert values[-1] == pytest.approx(info["objective_s"] / pg.envs.stack.reference_s(env.problem), rel=1e-6)
            assert values[-1] == pytest.approx(values[0] - sum(rewards), rel=1e-5)


def compressed(x: Any) -> Any:
    """What the flat observation does with every number."""
    return np.sign(x) * np.log1p(np.abs(x))


@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_flat_observation_by_its_parts(name: str, own: dict[str, Any]) -> None:
    """The op, the context, action features as they are and against the allowed ones, and the mask."""
    options = {**own, "problems": MIXED}
    full, flat = (make_vec(name, 3, observation=form, **options) for form in ("dict", "flat"))
    rng = np.random.default_rng(0)
    batch, _ = full.reset(seed=0)
    vectors, _ = flat.reset(seed=0)
    for _ in range(20):
        for row in range(3):
            seen = row_of(batch, row)
            actions = table("action_features", seen["action_features"]).astype(float)
            op = int(seen["op"][0])
            ops = table("op_features", seen["op_features"])
            relative = np.zeros(actions.shape)
            allowed = np.flatnonzero(seen["action_mask"])
            if actions.any():
                chosen = actions[allowed]
                relative[allowed] = (chosen - chosen.mean(axis=0)) / (chosen.std(axis=0) + 1e-6)
            parts = [ops[op] if op >= 0 else np.zeros(len(OP_FEATURES)), seen["context"], actions.ravel()]
            n, k = len(OP_FEATURES) + len(CONTEXT) + actions.size, actions.size
            vector = vectors[row]
            np.testing.assert_allclose(vector[:n], compressed(np.concatenate(parts)), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(vector[n : n + k], compressed(np.clip(relative, -5, 5)).ravel(), atol=2e-2)
            np.testing.assert_array_equal(vector[n + k :], seen["action_mask"])
        actions_done = some_actions(full.action_masks(), rng)
        batch, *_ = full.step(actions_done)
        vectors, *_ = flat.step(actions_done)
    assert actions.shape[1] == len(ACTION_FEATURES)
    assert SIZES.n_ops == 8
