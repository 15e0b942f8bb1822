"""Problems of environments: one, a sequence, a function; groups."""

from typing import Any

import numpy as np
import pytest
from environments import BARE, BARE_IDS, MIXED, SIZES, crowded, drawn, free, make, make_vec, play, some_actions

import placement_gym as pg
from placement_gym.envs import Sizes
from placement_gym.envs import problems as problems_module
from placement_gym.envs.observation import SELECT
from placement_gym.errors import InvalidOption, InvalidProblem


def test_where_problems_come_from(tmp_path: Any) -> None:
    """A problem, a path of one, sequences of both, and the toy where nothing is given."""
    problem = crowded()
    path = tmp_path / "one.npz"
    problem.save(path)
    for one in (problem, path, str(path)):
        for options in ({"problem": one}, {"problems": [one]}, {"problems": (one,)}):
            env = make("Assign", **options)
            assert env.problem.fingerprint == problem.fingerprint
            assert env.sizes == Sizes(problem.n_ops, problem.graph.n_edges, problem.n_devices)
    assert make("Assign").problem.n_ops == 12
    assert pg.envs.AssignEnv(problem).problem is problem
    assert pg.envs.AssignVectorEnv(2, problem).problem is problem


def test_seeds_say_which_problem() -> None:
    """Each reset draws one, evenly; row i of the vector form draws what the seed + i draws."""
    env, vector = make("Assign", problems=MIXED), make_vec("Assign", 6, problems=MIXED)
    names = [env.reset(seed=seed) and env.problem.name for seed in range(60)]
    assert names[:20] == [env.reset(seed=seed) and env.problem.name for seed in range(20)]
    assert min(names.count(problem.name) for problem in MIXED) > 10
    vector.reset(seed=7)
    assert [problem.name for problem in vector.problems] == names[7:13]
    assert [problem.name for problem in vector.get_attr("problem")] == names[7:13]
    env.reset(seed=0)
    later = [env.reset() and env.problem.name for _ in range(60)]
    assert min(later.count(problem.name) for problem in MIXED) > 10
    vector.reset(seed=0)
    for name in later[:5]:
        vector.reset()
        assert vector.problems[0].name == name
    env, vector = (f("Assign", *n, problems=drawn, sizes=SIZES) for f, n in ((make, ()), (make_vec, (3,))))
    vector.reset(seed=4)
    for i in range(3):
        env.reset(seed=4 + i)
        assert vector.problems[i].fingerprint == env.problem.fingerprint
        assert env.problem.fingerprint == drawn(np.random.default_rng(4 + i)).fingerprint
    assert len({problem.fingerprint for problem in vector.problems}) == 3


def test_wrong_problems_are_named() -> None:
    """What cannot be drawn from, and what does not fit into `sizes`, with names and numbers."""
    edges = free().graph.n_edges
    for options, error, said in (
        ({"problem": free(), "problems": [free()]}, InvalidOption, "are both given"),
        ({"problems": []}, InvalidOption, "problems is empty"),
        ({"problems": free()}, InvalidOption, "problems is one problem"),
        ({"problems": "one.npz"}, InvalidOption, "problems is one problem"),
        ({"problems": drawn}, InvalidOption, "it needs sizes"),
        ({"problem": 3}, InvalidOption, "problem is a int"),
        ({"problems": [free(), None]}, InvalidOption, r"problems\[1\] is a NoneType"),
        ({"problem": free(), "sizes": Sizes(5, 99, 9)}, InvalidProblem, "has n_ops 6; the environment is padded to 5"),
        (
            {"problem": free(), "sizes": Sizes(9, 2, 9)},
            InvalidProblem,
            f"n_edges {edges}; the environment is padded to 2",
        ),
        ({"problems": [*[free(0, 3)] * 30, free()], "sizes": Sizes(5, 99, 9)}, InvalidProblem, "has n_ops 6"),
        ({"problems": lambda rng: 3, "sizes": SIZES}, InvalidProblem, r"problems\(rng\) returned a int"),  # noqa: ARG005
        ({"problems": lambda rng: free(0, 9), "sizes": SIZES}, InvalidProblem, "has n_ops 9"),  # noqa: ARG005
    ):
        for build in (make, lambda name, **options: make_vec(name, 2, **options)):
            with pytest.raises(error, match=said):
                build("Assign", **options)  # type: ignore[operator]


def grouped(seed: int) -> tuple[pg.Problem, np.ndarray, np.ndarray]:
    """(problem with colocation in which each device runs all, random groups, groups with colocation joined in)."""
    problem = crowded(seed, 8, 3)
    times = np.where(np.isfinite(problem.op_time_s), problem.op_time_s, 1.0)
    problem = pg.Problem.from_times(problem.graph, times, op_memory_bytes=problem.op_memory_bytes, link_bytes_per_s=1.0)
    given = np.random.default_rng(seed).integers(0, 4, 8)
    joined = given.copy()
    a, b = np.flatnonzero(problem.graph.op_colocation >= 0)
    joined[joined == joined[a]] = joined[b]
    return problem, given, joined


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "own"), BARE, ids=BARE_IDS)
def test_an_action_places_a_group(name: str, own: dict[str, Any], seed: int) -> None:
    """As many placements as groups; ops of a group, and of a colocation group, are on one device from the first on."""
    problem, given, joined = grouped(seed)
    for groups, expected in ((given, joined), ("colocation", None)):
        if expected is None:
            expected = np.where(problem.graph.op_colocation >= 0, 99, np.arange(8))
        env = make(name, problem=problem, groups=groups, reward="dense", **own)
        seen, _ = env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        phases = 2 if seen["phase"][0] == SELECT else 1
        done, n_steps, returned = False, 0, 0.0
        while not done:
            seen, reward, done, _, info = env.step(some_actions(env.action_masks()[None], rng)[0])
            n_steps, returned = n_steps + 1, returned + reward
            homes: dict[int, int] = {}
            for op in np.flatnonzero(seen["op_device"] >= 0):
                assert homes.setdefault(int(expected[op]), int(seen["op_device"][op])) == seen["op_device"][op]
            if not env.episodes.process.complete:
                assert len(homes) == n_steps // phases
        if not env.episodes.process.complete:
            assert n_steps == phases * len(set(expected.tolist()))
        pg.Placement(info["op_device"]).check(problem)
        gained_s = env.episodes._first_s[0] - info["makespan_s"]
        assert returned == pytest.approx(gained_s / pg.envs.stack.reference_s(problem), abs=1e-9)
        assert info["makespan_s"] == pg.simulate(problem, info["op_device"]).makespan_s


def test_groups_of_metis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part for four ops, at most METIS_GROUPS, colocation kept."""
    pytest.importorskip("pymetis")
    problem, _, _ = grouped(0)
    env = make("Assign", problem=problem, groups="metis")
    _, rewards, info = play(env, env.reset()[0], np.random.default_rng(0))
    assert len(rewards) == problem.n_ops // 4
    twelve = make("Assign", problem=pg.workloads.layered(n_ops=12, n_devices=2), groups="metis")
    assert len(play(twelve, twelve.reset()[0], np.random.default_rng(0))[1]) == 3
    pg.Placement(info["op_device"]).check(problem)
    monkeypatch.setattr(problems_module, "METIS_GROUPS", 3)
    large = pg.workloads.layered(n_ops=40, n_devices=2)
    for name, own in BARE:
        env = make(name, problem=large, groups="metis", **own)
        part = pg.groups.metis_parts(large, 3)
        _, rewards, info = play(env, env.reset()[0], np.random.default_rng(0))
        assert 1 < len(set(part.tolist())) <= 3
        for group in set(part.tolist()):
            assert len(set(info["op_device"][part == group].tolist())) == 1


def test_wrong_groups_are_named() -> None:
    """Unknown names, arrays of another length or type, and groups that no device can run as a whole."""
    graph = pg.OpGraph.build(["a", "b"], [])
    split = pg.Problem.from_times(graph, [[1.0, np.inf], [np.inf, 1.0]])
    for groups, error, said in (
        ("layers", InvalidOption, "unknown groups 'layers'; known: colocation, metis"),
        ([0], InvalidOption, r"groups has shape \(1,\)"),
        ([[0, 1]], InvalidOption, r"groups has shape \(1, 2\)"),
        ([0.0, 1.0], InvalidOption, "dtype float64; expected 2 whole numbers"),
        ([True, False], InvalidOption, "dtype bool"),
        ([5, 5], InvalidProblem, "no device of 'problem' can run all ops of the group of 'a'"),
    ):
        for name, own in BARE:
            with pytest.raises(error, match=said):
                make(name, problem=split, groups=groups, **own)
    env = make("Assign", problem=free(0, 3), groups=[0, 1, 1], sizes=SIZES)
    seen, _ = env.reset(seed=0)
    with pytest.raises(InvalidOption, match="expected 4 whole numbers"):
        env.reset(options={"problem": free(0, 4)})
    np.testing.assert_array_equal(env.reset(seed=0)[0]["op_time"], seen["op_time"])
