"""The random graph that speed is measured on."""

import numpy as np
from numpy.typing import NDArray

import placement_gym as pg

BYTES_PER_US, LATENCY_US, N_DEVICES = 7600, 25, 4


def random_graph(n_ops: int, seed: int = 0) -> tuple[NDArray[np.float64], list[tuple[int, int, float]]]:
    """(op times in microseconds, edges): two inputs per op among the 60 ops before it, sizes of 10 kB to 1 MB."""
    rng = np.random.default_rng(seed)
    heads = np.repeat(np.arange(1, n_ops), 2)
    tails = heads - rng.integers(1, np.minimum(heads, 60) + 1)
    size = rng.uniform(1e4, 1e6, len(heads))
    return rng.uniform(10, 100, n_ops), list(zip(tails.tolist(), heads.tolist(), size.tolist(), strict=True))


def problem_of(n_ops: int) -> pg.Problem:
    """The random graph on four alike devices."""
    time_us, edges = random_graph(n_ops)
    return pg.Problem.from_times(
        pg.OpGraph.build([str(i) for i in range(n_ops)], edges),
        np.repeat(time_us[:, None] * 1e-6, N_DEVICES, axis=1),
        link_latency_s=LATENCY_US * 1e-6,
        link_bytes_per_s=BYTES_PER_US * 1e6,
    )
