"""The kernel equals the reference bit for bit, and every schedule proves itself."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from plain_kernel import put_in_place
from strategies import ALL_RULES, Placed, order_for, placed_problems, random_placement, random_problem

import placement_gym as pg
from placement_gym.contention import CONTENTIONS, register
from placement_gym.trace import Trace


def assert_same_trace(one: Trace, other: Trace) -> None:
    """Fails unless both traces hold the same floats."""
    for f in fields(Trace):
        np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name, strict=True)


@settings(max_examples=200, deadline=None)
@given(placed_problems(), st.sampled_from(ALL_RULES))
def test_kernel_equals_reference(placed: Placed, rule: pg.Rule) -> None:
    """Every time of every op and transfer is the same float on every mix of options, and the schedule is legal."""
    problem, op_device, drawn = placed
    priority = order_for(rule, drawn)
    slow = pg.simulate(problem, op_device, rule=rule, priority=priority, engine="reference")
    fast = pg.simulate(problem, op_device, rule=rule, priority=priority)
    assert_same_trace(slow.trace, fast.trace)
    assert fast.makespan_s == slow.makespan_s
    fast.check()


@pytest.mark.parametrize("rule", ALL_RULES, ids=str)
def test_every_rule_on_a_larger_graph(rule: pg.Rule) -> None:
    """All 90 mixes of options agree on a graph large enough for long queues."""
    rng = np.random.default_rng(0)
    problem = random_problem(rng, n_ops=60, n_devices=3, edge_share=0.1)
    op_device, priority = random_placement(rng, problem), order_for(rule, rng.integers(0, 9, 60).astype(float))
    slow = pg.simulate(problem, op_device, rule=rule, priority=priority, engine="reference")
    fast = pg.simulate(problem, op_device, rule=rule, priority=priority)
    assert_same_trace(slow.trace, fast.trace)
    fast.check()


@settings(max_examples=60, deadline=None)
@given(placed_problems(), st.sampled_from(ALL_RULES), st.integers(0, 2**31))
def test_noise_is_the_same_in_both(placed: Placed, rule: pg.Rule, seed: int) -> None:
    """With one seed, noisy runs of kernel and reference are the same; the schedule is still legal."""
    problem, op_device, drawn = placed
    priority = order_for(rule, drawn)
    slow, fast = (
        pg.simulate(
            problem,
            op_device,
            rule=rule,
            priority=priority,
            noise=0.3,
            rng=np.random.default_rng(seed),
            engine=engine,  # type: ignore[arg-type]
        )
        for engine in ("reference", "kernel")
    )
    assert_same_trace(slow.trace, fast.trace)
    fast.check()


@settings(max_examples=60, deadline=None)
@given(placed_problems(), st.sampled_from(ALL_RULES), st.integers(0, 2**31), st.sampled_from([1, 2, 5]))
def test_batch_equals_one_by_one(placed: Placed, rule: pg.Rule, seed: int, n_threads: int) -> None:
    """`simulate_batch` gives the makespans of `simulate`, on any number of threads, with shared or own priorities."""
    problem, _, _ = placed
    rng = np.random.default_rng(seed)
    op_devices = np.stack([random_placement(rng, problem) for _ in range(7)])
    for drawn in (rng.random(problem.n_ops), rng.random(op_devices.shape)):
        priorities = order_for(rule, drawn)
        batch = pg.simulate_batch(problem, op_devices, rule=rule, priorities=priorities, n_threads=n_threads)
        single = [
            pg.simulate(problem, p, rule=rule, priority=order_for(rule, r)).makespan_s
            for p, r in zip(op_devices, np.broadcast_to(drawn, op_devices.shape), strict=True)
        ]
        np.testing.assert_array_equal(batch, single)


@pytest.mark.parametrize("n_devices", [1, 4])
def test_the_kernel_keeps_within_its_arrays(monkeypatch: pytest.MonkeyPatch, n_devices: int) -> None:
    """In plain Python, where an index past an end is an error, it does the same, also where all happens at once."""
    rng = np.random.default_rng(n_devices)
    mixed = random_problem(rng, n_ops=12, n_devices=n_devices, edge_share=0.4)
    cases = [(mixed, random_placement(rng, mixed))]
    # Twelve ops at once; or six, then all their transfers, then all readers; that backwards; and a single transfer.
    wide = [(i % 6, 6 + i // 6, 1.0 + i % 2) for i in range(36)]
    for n_ops, edges in (
        (12, []),
        (12, wide),
        (12, [(11 - a, 11 - b, size) for a, b, size in wide]),
        (3, [(0, 2, 1.0)]),
    ):
        graph = pg.OpGraph.build([str(i) for i in range(n_ops)], edges)
        problem = pg.Problem.from_times(graph, np.ones((n_ops, n_devices)), device_slots=12)
        cases.append((problem, np.arange(n_ops, dtype=np.int32) // 2 % n_devices))
    for problem, op_device in cases:
        ranks = rng.integers(0, 4, problem.n_ops).astype(float)
        for rule in ALL_RULES:
            priority = order_for(rule, ranks)
            slow = pg.simulate(problem, op_device, rule=rule, priority=priority, engine="reference")
            with monkeypatch.context() as patch:
                put_in_place(patch.setattr)
                assert_same_trace(slow.trace, pg.simulate(problem, op_device, rule=rule, priority=priority).trace)


def test_noise_has_mean_one() -> None:
    """The noise factor is log-normal with mean 1, so noise does not slow the mean op down."""
    problem = pg.Problem.from_times(pg.OpGraph.build([str(i) for i in range(20000)], []), np.ones((20000, 1)))
    schedule = pg.simulate(problem, np.zeros(20000, int), noise=0.2, rng=np.random.default_rng(0))
    assert schedule.makespan_s / 20000 == pytest.approx(1.0, abs=0.01)


def _checker(device_node: NDArray[np.int32]) -> NDArray[np.int32]:
    """A rule from outside: odd devices share one channel for sending, and each pair has its own two ways."""
    d = len(device_node)
    src, dst = np.indices((d, d))
    odd = np.where(src % 2 == 1, 0, -1)
    return np.stack([odd, 1 + np.minimum(src, dst) * d + np.maximum(src, dst)], axis=-1)


def _cross_options(seeds: range) -> None:
    register("test_checker", _checker)
    try:
        rules = [*ALL_RULES]
        rules += [replace(rule, contention="test_checker") for rule in ALL_RULES if rule.contention == "port"]
        for seed in seeds:
            rng = np.random.default_rng(seed)
            if seed % 4 == 0:  # a problem for four cases: making one takes as long as a case
                problem = random_problem(
                    rng,
                    n_ops=int(rng.integers(1, 16)),
                    n_devices=int(rng.integers(1, 6)),
                    edge_share=rng.choice([0.1, 0.3, 0.6]),
                    whole_numbers=bool(rng.random() < 0.6),
                    unsupported=bool(rng.random() < 0.3),
                )
            op_device, drawn = random_placement(rng, problem), rng.integers(0, 4, problem.n_ops).astype(float)
            rule = rules[seed % len(rules)]
            priority = order_for(rule, drawn)
            slow = pg.simulate(problem, op_device, rule=rule, priority=priority, engine="reference")
            fast = pg.simulate(problem, op_device, rule=rule, priority=priority)
            assert_same_trace(slow.trace, fast.trace)
            fast.check()
    finally:
        del CONTENTIONS["test_checker"]


def test_2000_random_cases() -> None:
    """Options crossed, `nic` and a rule from outside included."""
    _cross_options(range(2000))


@pytest.mark.slow
def test_20000_random_cases() -> None:
    """As above, far more others."""
    _cross_options(range(2000, 22000))
