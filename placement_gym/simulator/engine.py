"""simulate and simulate_batch: the schedule of a placement, and the makespans of many. All scores come from here."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.arrays import FloatArray
from placement_gym.errors import InfeasiblePlacement, InvalidOption, unknown_name
from placement_gym.placement import Placement, infeasibility, unpadded
from placement_gym.problem import Problem
from placement_gym.rule import Rule, resolve_rule
from placement_gym.schedule import Schedule
from placement_gym.simulator.compiled import compile_problem
from placement_gym.simulator.reference import ReferenceSimulator

Engine = Literal["kernel", "reference"]
Memory = Literal["enforce", "report"]


def noise_factors(problem: Problem, noise: float, rng: np.random.Generator | None) -> tuple[FloatArray, FloatArray]:
    """(float64 [n_ops], float64 [n_edges]): one draw of the factors on durations, each log-normal with mean 1."""
    if not 0 <= noise < float("inf"):
        raise InvalidOption(f"noise is {noise}; expected a finite standard deviation >= 0")
    if noise == 0:
        return np.ones(problem.n_ops), np.ones(problem.graph.n_edges)
    if rng is None:
        raise InvalidOption("noise > 0 needs rng, a numpy.random.Generator")
    # Mean 1: the factor's logarithm has mean -noise^2 / 2.
    shape = -0.5 * noise**2
    return rng.lognormal(shape, noise, problem.n_ops), rng.lognormal(shape, noise, problem.graph.n_edges)


def _cannot_count(option: str, rule: Rule) -> str:
    return f"{option} is given, but queue {rule.queue!r} ignores it; leave it out, or use a rule with queue='priority'"


def ranks_of(problem: Problem, rule: Rule, priority: ArrayLike | None) -> FloatArray:
    """float64 [n_ops]: the ranks given for a `priority` queue, checked; zeros for a rule that needs none.

    Raises:
        InvalidOption: They are missing, of another shape, or given where they cannot count.
    """
    if priority is not None and rule.queue != "priority":
        raise InvalidOption(_cannot_count("priority", rule))
    if priority is None:
        if rule.queue == "priority":
            raise InvalidOption(
                "queue 'priority' needs priority, a number per op (Result.priority, or placement_gym.ranks.b_level_s)"
            )
        return np.zeros(problem.n_ops)
    ranks = np.asarray(priority, dtype=np.float64)
    if ranks.shape != (problem.n_ops,) or bool(np.isnan(ranks).any()):
        raise InvalidOption(f"priority has shape {ranks.shape} (or holds NaN); expected ({problem.n_ops},) numbers")
    return ranks


def simulate(
    problem: Problem,
    op_device: ArrayLike | Placement,
    *,
    rule: str | Rule = "physical",
    priority: ArrayLike | None = None,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    engine: Engine = "kernel",
    memory: Memory = "enforce",
) -> Schedule:
    """The schedule of a placement: when each op and each transfer starts and ends.

    Args:
        problem: The problem.
        op_device: int [n_ops], device of each op, or a `Placement`; -1 behind the last op is padding.
        rule: A preset's name or a `Rule`.
        priority: float [n_ops], ranks for the `priority` queue, largest first; other queues take none.
        noise: Standard deviation of the logarithm of the factor (mean 1) on every duration.
        rng: Where the noise comes from; needed if noise > 0.
        engine: "kernel", or "reference" for the slow definition (equal bit for bit).
        memory: "enforce" refuses a placement that does not fit into memory, before the run or after it; "report"
            returns its schedule, whose `excess_bytes` says by how much (and which `check` rejects).

    Raises:
        InfeasiblePlacement: The placement breaks support, colocation or (if enforced) memory.
        InvalidRule: The rule is unknown.
        InvalidOption: Wrong priority, noise, engine or memory.
    """
    for what, value, known in (("engine", engine, get_args(Engine)), ("memory", memory, get_args(Memory))):
        if value not in known:
            raise InvalidOption(unknown_name(what, value, known))
    resolved = resolve_rule(rule)
    given = op_device.op_device if isinstance(op_device, Placement) else op_device
    placement = Placement(unpadded(given, problem.n_ops))
    reason = infeasibility(problem, placement.op_device, memory=memory == "enforce")
    if reason is not None:
        raise InfeasiblePlacement(reason)
    ranks = ranks_of(problem, resolved, priority)
    op_factor, edge_factor = noise_factors(problem, noise, rng)
    if engine == "reference":
        trace = ReferenceSimulator(problem, placement.op_device, resolved, ranks, op_factor, edge_factor).run()
    else:
        factors = (op_factor, edge_factor) if noise > 0 else (None, None)
        trace = compile_problem(problem, resolved).trace(placement.op_device, ranks, *factors)
    schedule = Schedule(problem, placement, resolved, trace, ranks, exact=noise == 0)
    if memory == "enforce" and schedule.excess_bytes > 0:
        raise InfeasiblePlacement(str(schedule.overfull()))
    return schedule


def simulate_batch(
    problem: Problem,
    op_devices: ArrayLike,
    *,
    rule: str | Rule = "physical",
    priorities: ArrayLike | None = None,
    n_threads: int | None = None,
) -> FloatArray:
    """Makespans of many placements of one problem, on all cores.

    Args:
        problem: The problem.
        op_devices: int [B, n_ops], device of each op in each placement.
        rule: A preset's name or a `Rule`.
        priorities: float [n_ops] or [B, n_ops], ranks for the `priority` queue, largest first; other queues take
            none.
        n_threads: Threads; all cores where not given.

    Returns:
        float64 [B], makespan_s of each placement.

    Memory and colocation are not checked here: searches ask `CompiledProblem.weigh`.

    Raises:
        InfeasiblePlacement: A placement of the wrong length, on a device that is not there or cannot run the op.
        InvalidRule: The rule is unknown.
        InvalidOption: Wrong priorities or threads.
    """
    resolved = resolve_rule(rule)
    given_devices = np.asarray(op_devices)
    if given_devices.dtype.kind not in "iu":
        raise InfeasiblePlacement(f"op_devices has dtype {given_devices.dtype}; expected whole numbers")
    devices = np.ascontiguousarray(given_devices, dtype=np.int32)
    n = problem.n_ops
    if devices.ndim != 2 or devices.shape[1] != n:
        raise InfeasiblePlacement(f"op_devices has shape {devices.shape}; expected [B, {n}]")
    if devices.size and not (0 <= devices.min() and devices.max() < problem.n_devices):
        raise InfeasiblePlacement(
            f"op_devices holds {devices.min()}..{devices.max()}; expected device numbers 0..{problem.n_devices - 1}"
        )
    if not np.isfinite(problem.op_time_s).all():
        bad = np.argwhere(~np.isfinite(problem.op_time_s[np.arange(n), devices]))
        if bad.size:
            raise InfeasiblePlacement(f"placement {bad[0][0]}: " + str(infeasibility(problem, devices[bad[0][0]])))
    if n_threads is not None and n_threads < 1:
        raise InvalidOption(f"n_threads is {n_threads}; expected >= 1")
    ranks: FloatArray | None = None
    if priorities is not None and resolved.queue != "priority":
        raise InvalidOption(_cannot_count("priorities", resolved))
    if resolved.queue == "priority":
        given = None if priorities is None else np.asarray(priorities, dtype=np.float64)
        if given is None or given.shape not in ((n,), devices.shape) or bool(np.isnan(given).any()):
            got = None if given is None else given.shape
            raise InvalidOption(f"priorities has shape {got} (or holds NaN); expected ({n},) or {devices.shape}")
        ranks = np.ascontiguousarray(given)
    return compile_problem(problem, resolved).makespans_s(devices, ranks, n_threads)
