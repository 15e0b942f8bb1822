"""Synthetic problems from a seed: layered, series-parallel, fork-join and random DAGs on alike or unlike devices."""

import numpy as np

from placement_gym.errors import InvalidProblem
from placement_gym.graph import OpGraph
from placement_gym.problem import Problem

Pairs = list[tuple[int, int]]


def _build(
    name: str, n_ops: int, pairs: Pairs, rng: np.random.Generator, n_devices: int, ccr: float, spread: float
) -> Problem:
    """Log-normal op times of mean 1 ms and output sizes such that a mean transfer takes `ccr` ms at 10 GB/s."""
    bytes_per_s = 10e9
    work = rng.lognormal(-0.5, 1.0, n_ops) * 1e-3
    output_bytes = np.round(rng.lognormal(-0.5, 1.0, n_ops) * ccr * 1e-3 * bytes_per_s)
    graph = OpGraph.build(
        [f"op{i}" for i in range(n_ops)],
        [(a, b, float(output_bytes[a])) for a, b in pairs],
        output_bytes=output_bytes,
        parameter_bytes=np.round(rng.lognormal(0.0, 1.0, n_ops) * 1e6),
    )
    speed = rng.uniform(1.0, 1.0 + spread, (1, n_devices)) * rng.uniform(1.0, 1.0 + spread, (n_ops, n_devices))
    pair = (n_devices, n_devices)
    return Problem.from_times(
        graph,
        work[:, None] * (speed if spread > 0 else np.ones_like(speed)),
        link_latency_s=10e-6,
        link_bytes_per_s=bytes_per_s / rng.uniform(1.0, 1.0 + spread, pair) if spread > 0 else bytes_per_s,
        name=name,
    )


def _check(n_ops: int, n_devices: int) -> None:
    if n_ops < 1 or n_devices < 1:
        raise InvalidProblem(f"n_ops is {n_ops} and n_devices {n_devices}; expected at least 1 each")


def layered(
    *,
    n_ops: int = 100,
    n_devices: int = 4,
    seed: int = 0,
    width: int = 8,
    degree: int = 2,
    ccr: float = 0.5,
    spread: float = 0.0,
) -> Problem:
    """Ops in layers of `width`; each op reads `degree` ops of the layer before.

    Args:
        n_ops: Number of ops.
        n_devices: Number of devices.
        seed: Seed of everything random.
        width: Ops per layer.
        degree: Inputs per op.
        ccr: Communication to computation ratio: mean transfer time over mean op time.
        spread: Devices, (op, device) pairs and links differ by a factor of up to 1 + spread each; 0: all alike.

    Raises:
        InvalidProblem: No ops or no devices.
    """
    _check(n_ops, n_devices)
    rng = np.random.default_rng(seed)
    pairs: Pairs = []
    for op in range(width, n_ops):
        first = (op // width - 1) * width
        pairs += [(int(a), op) for a in sorted(rng.choice(np.arange(first, first + width), min(degree, width), False))]
    return _build(f"layered_{n_ops}_{seed}", n_ops, pairs, rng, n_devices, ccr, spread)


def random_dag(
    *,
    n_ops: int = 100,
    n_devices: int = 4,
    seed: int = 0,
    degree: float = 2.0,
    reach: int = 20,
    ccr: float = 0.5,
    spread: float = 0.0,
) -> Problem:
    """Each op reads a Poisson number (mean `degree`) of the `reach` ops before it; other arguments as in `layered`."""
    _check(n_ops, n_devices)
    rng = np.random.default_rng(seed)
    pairs: Pairs = []
    for op in range(1, n_ops):
        before = np.arange(max(0, op - reach), op)
        pairs += [(int(a), op) for a in sorted(rng.choice(before, min(int(rng.poisson(degree)), len(before)), False))]
    return _build(f"random_dag_{n_ops}_{seed}", n_ops, pairs, rng, n_devices, ccr, spread)


def fork_join(
    *,
    n_ops: int = 100,
    n_devices: int = 4,
    seed: int = 0,
    width: int = 6,
    length: int = 2,
    ccr: float = 0.5,
    spread: float = 0.0,
) -> Problem:
    """A chain of forks into `width` branches of `length` ops, each joined again; other arguments as in `layered`."""
    _check(n_ops, n_devices)
    rng = np.random.default_rng(seed)
    pairs: Pairs = []
    fork, op = 0, 1
    while op < n_ops:
        ends = []
        for _ in range(width):
            last = fork
            for _ in range(length):
                if op < n_ops:
                    pairs.append((last, op))
                    last, op = op, op + 1
            if last != fork:
                ends.append(last)
        if op < n_ops:
            pairs += [(end, op) for end in ends]
            fork, op = op, op + 1
    return _build(f"fork_join_{n_ops}_{seed}", n_ops, pairs, rng, n_devices, ccr, spread)


def series_parallel(
    *,
    n_ops: int = 100,
    n_devices: int = 4,
    seed: int = 0,
    parallel_share: float = 0.6,
    ccr: float = 0.5,
    spread: float = 0.0,
) -> Problem:
    """Grown from one edge by replacing random edges by two in series or in parallel; arguments as in `layered`.

    A parallel copy gets an op of its own at once, so the graph has no doubled edges.
    """
    _check(n_ops, n_devices)
    rng = np.random.default_rng(seed)
    arcs: Pairs = [(0, 1)] if n_ops > 1 else []
    for op in range(2, n_ops):
        i = int(rng.integers(len(arcs)))
        a, b = arcs[i]
        if rng.random() >= parallel_share:
            arcs.pop(i)
        arcs += [(a, op), (op, b)]
    return _build(f"series_parallel_{n_ops}_{seed}", n_ops, arcs, rng, n_devices, ccr, spread)
