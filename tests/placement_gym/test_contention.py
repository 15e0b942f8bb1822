"""Contention rules: what they give, and that a rule from outside works in every part."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints

import gymnasium as gym
import numpy as np
import pytest
from by_hand import ByHand
from numpy.typing import NDArray
from strategies import order_for, random_placement, random_problem

import placement_gym as pg
from placement_gym.contention import CONTENTIONS, channels_of, register, register_installed
from placement_gym.errors import InvalidRule

TWO_NODES = np.array([0, 0, 1, 1], dtype=np.int32)


def shared_bus(device_node: NDArray[np.int32]) -> NDArray[np.int32]:
    """All devices share one bus."""
    return np.zeros((len(device_node), len(device_node), 1), np.int32)


@pytest.fixture
def bus() -> Iterator[str]:
    """A rule registered from outside."""
    register("test_bus", shared_bus)
    yield "test_bus"
    del CONTENTIONS["test_bus"]


def _two_transfers(contention: str, pairs: list[tuple[int, int]]) -> float:
    """Makespan of transfers of 10 s that are ready at once, one for each (src, dst)."""
    names = [f"{end}{i}" for i in range(len(pairs)) for end in ("from", "to")]
    graph = pg.OpGraph.build(names, [(2 * i, 2 * i + 1, 10.0) for i in range(len(pairs))])
    problem = pg.Problem.from_times(
        graph, np.zeros((len(names), 4)), link_bytes_per_s=1.0, device_node=TWO_NODES, device_slots=2
    )
    placed = [device for pair in pairs for device in pair]
    schedule = pg.simulate(problem, placed, rule=pg.Rule(contention=contention))
    schedule.check()
    return schedule.makespan_s


@pytest.mark.parametrize(
    ("pairs", "seconds"),
    [
        ([(0, 2), (1, 3)], {"none": 10, "link": 10, "egress": 10, "port": 10, "half_duplex": 10, "nic": 20}),
        ([(0, 1), (2, 3)], {"none": 10, "link": 10, "egress": 10, "port": 10, "half_duplex": 10, "nic": 10}),
        ([(0, 2), (3, 1)], {"none": 10, "link": 10, "egress": 10, "port": 10, "half_duplex": 10, "nic": 10}),
        ([(0, 1), (0, 2)], {"none": 10, "link": 10, "egress": 20, "port": 20, "half_duplex": 20, "nic": 20}),
        ([(0, 2), (1, 2)], {"none": 10, "link": 10, "egress": 10, "port": 20, "half_duplex": 20, "nic": 20}),
        ([(0, 1), (1, 0)], {"none": 10, "link": 10, "egress": 10, "port": 10, "half_duplex": 20, "nic": 10}),
        ([(0, 2), (1, 0)], {"none": 10, "link": 10, "egress": 10, "port": 10, "half_duplex": 20, "nic": 10}),
        ([(0, 1), (0, 1)], {"none": 10, "link": 20, "egress": 20, "port": 20, "half_duplex": 20, "nic": 20}),
    ],
)
def test_by_hand(pairs: list[tuple[int, int]], seconds: dict[str, int]) -> None:
    """Two transfers of 10 s take 10 s where they share no channel and 20 s where they do."""
    assert {name: _two_transfers(name, pairs) for name in seconds} == seconds


def test_a_rule_from_outside_works_everywhere(bus: str) -> None:
    """Kernel, reference, check, environments, searches, list scheduling and the exact makespan read its channels."""
    assert _two_transfers(bus, [(0, 1), (2, 3)]) == 20
    for seed in range(40):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, n_ops=9, n_devices=3)
        op_device, priority = random_placement(rng, problem), rng.random(9)
        for transfers in ("edge", "tensor", "multicast"):
            rule = pg.Rule(transfers=transfers, contention=bus, queue=("fifo", "priority")[seed % 2])  # type: ignore[arg-type]
            if seed % 4 > 1:
                rule = replace(rule, instant="event", latency="holds", makespan="last_event")
            slow, fast = (
                pg.simulate(problem, op_device, rule=rule, priority=order_for(rule, priority), engine=engine)  # type: ignore[arg-type]
                for engine in ("reference", "kernel")
            )
            fast.check()
            assert slow.makespan_s == fast.makespan_s
    problem = random_problem(np.random.default_rng(1), n_ops=5, n_devices=2, edge_share=0.5)
    rule = pg.Rule(contention=bus)
    best = pg.exact.brute_force(problem, rule=rule).objective
    assert pg.baselines.simulated_annealing(problem, rule=rule, simulator_calls=200, seed=0).objective >= best
    assert pg.baselines.m_etf(problem, rule=rule).objective >= best


@pytest.mark.parametrize("environment", ["Assign-v0", "SelectPlace-v0"])
@pytest.mark.parametrize("contention", ["nic", "test_bus"])
def test_environments_go_by_it(bus: str, environment: str, contention: str) -> None:
    """An episode ends with the simulator's makespan under the rule, and its clock waits for the rule's channels."""
    problem = random_problem(np.random.default_rng(2), n_ops=8, n_devices=3, edge_share=0.4)
    env = gym.make(f"placement_gym/{environment}", problem=problem, rule=pg.Rule(contention=contention))
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=0)
    done = False
    while not done:
        mask = np.asarray(observation["action_mask"] if "action_mask" in observation else info["action_mask"])
        observation, _, done, _, info = env.step(int(rng.choice(np.flatnonzero(mask.ravel()))))
    placed = info["schedule"].op_device if "schedule" in info else info["op_device"]
    expected = pg.simulate(problem, placed, rule=pg.Rule(contention=contention)).makespan_s
    assert info["makespan_s"] == pytest.approx(expected)


def test_the_clock_waits_for_shared_channels(bus: str) -> None:
    """Two inputs from two devices take turns on a bus and not on ports of their own."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 2, 10.0), (1, 2, 10.0)])
    problem = pg.Problem.from_times(graph, np.zeros((3, 3)), link_bytes_per_s=1.0)
    for contention, seconds in (("egress", 10.0), (bus, 20.0)):
        episode = ByHand(problem, pg.Rule(contention=contention))
        for op, device in ((0, 0), (1, 1), (2, 2)):
            episode.put(op, device)
        assert episode.finish_s == [0.0, 0.0, seconds]


@pytest.mark.parametrize("contention", ["nic", "test_bus"])
def test_the_exact_makespan_equals_brute_force(bus: str, contention: str) -> None:
    """The constraint programme reads channels of any rule."""
    for seed in range(6):
        problem = random_problem(np.random.default_rng(seed), n_ops=5, n_devices=2 + seed % 2, edge_share=0.5)
        rule = pg.Rule(contention=contention)
        solver = pg.exact.Solver(time_limit_s=20.0, workers=1)
        result = pg.exact.mip(problem, objective="makespan", rule=rule, solver=solver)
        assert result.objective == pytest.approx(pg.exact.brute_force(problem, rule=rule).objective)
        assert result.lower_bound <= result.objective


def test_what_is_refused(bus: str) -> None:
    """Unknown names, names taken and arrays of another form are refused in words."""
    with pytest.raises(InvalidRule, match="unknown contention 'nix'; known: egress"):
        pg.Rule(contention="nix")
    with pytest.raises(InvalidRule, match="exists already"):
        register("port", shared_bus)


@pytest.mark.parametrize(
    "given",
    [np.zeros((4, 4)), np.zeros((4, 4, 1)), np.zeros((3, 4, 1), int), np.zeros((4, 3, 1), int), np.full((4, 4, 1), -2)],
)
def test_wrong_channels_are_refused(given: NDArray[np.generic]) -> None:
    """Of two dimensions, no whole numbers, of other devices, and below -1; at once, or for other devices than two."""
    with pytest.raises(InvalidRule, match="expected whole numbers >= -1 of shape"):
        register("test_wrong", lambda _: given)  # type: ignore[arg-type,return-value]
    # The name was not taken.
    register("test_wrong", lambda nodes: np.full((2, 2, 1), -1) if len(nodes) == 2 else given)  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(InvalidRule, match="expected whole numbers >= -1 of shape"):
            channels_of("test_wrong", TWO_NODES)
    finally:
        del CONTENTIONS["test_wrong"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("not_there:rule", r"contention rule 'given' of an installed package: cannot import 'not_there:rule' \(Module"),
        ("numpy:no_rule", r"cannot import 'numpy:no_rule' \(AttributeError"),
        ("numpy", "contention rule 'given' is a module; expected a function of device_node"),
    ],
)
def test_an_installed_rule_that_is_none_is_named(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the rule and what its package's entry point says."""
    point = EntryPoint("given", value, "placement_gym.contention")
    monkeypatch.setattr("placement_gym.contention.entry_points", lambda group: EntryPoints([point]).select(group=group))
    with pytest.raises(InvalidRule, match=said):
        register_installed()
    assert "given" not in CONTENTIONS


def test_a_rule_without_channels_is_none() -> None:
    """Whatever it pads with; in the kernel, in the reference and in the check, where a latency holds channels, too."""
    register("test_pads", lambda device_node: np.full((len(device_node),) * 2 + (2,), -1))
    try:
        for seed in range(20):
            rng = np.random.default_rng(seed)
            problem = random_problem(rng, n_ops=9, n_devices=3)
            op_device, priority = random_placement(rng, problem), rng.random(9)
            for queue in ("fifo", "lifo", "priority"):
                rule = pg.Rule(queue=queue, contention="none", instant="event", latency="holds")  # type: ignore[arg-type]
                none = pg.simulate(problem, op_device, rule=rule, priority=order_for(rule, priority))
                for engine in ("reference", "kernel"):
                    pads = pg.simulate(
                        problem,
                        op_device,
                        rule=replace(rule, contention="test_pads"),
                        priority=order_for(rule, priority),
                        engine=engine,  # type: ignore[arg-type]
                    )
                    pads.check()
                    np.testing.assert_array_equal(pads.trace.op_start_s, none.trace.op_start_s)
                    assert pads.trace.last_event_s == none.trace.last_event_s
    finally:
        del CONTENTIONS["test_pads"]


def test_channels_by_hand() -> None:
    """Numbered from 0 in the order of the rule's own numbers; -1 on the diagonal and where a rule has none."""
    one_node = np.zeros(2, np.int32)
    assert channels_of("none", one_node).shape == (2, 2, 0)
    assert channels_of("link", one_node).tolist() == [[[-1], [0]], [[1], [-1]]]
    assert channels_of("egress", one_node).tolist() == [[[-1], [0]], [[1], [-1]]]
    assert channels_of("port", one_node).tolist() == [[[-1, -1], [0, 3]], [[1, 2], [-1, -1]]]
    # Sending cards 4 and 5, receiving cards 6 and 7, where devices are of two nodes.
    apart = [[[-1] * 4, [0, 3, 4, 7]], [[1, 2, 5, 6], [-1] * 4]]
    assert channels_of("nic", np.array([3, 9], np.int32)).tolist() == apart
    assert channels_of("nic", one_node).tolist() == [[[-1] * 4, [0, 3, -1, -1]], [[1, 2, -1, -1], [-1] * 4]]
