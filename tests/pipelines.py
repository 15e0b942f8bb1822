"""Random problems for pipelines."""

import numpy as np

import placement_gym as pg


def random_pipeline_problem(rng: np.random.Generator) -> pg.Problem:
    """Up to 7 ops: free ones, backward ops, colocation groups; up to 4 devices of up to 3 kinds, memory, support."""
    n_ops, n_devices = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    n_forward = n_ops if rng.random() < 0.4 else int(rng.integers(0, n_ops + 1))
    size = rng.exponential(rng.choice([0.05, 1.0]), n_ops) * (rng.random(n_ops) < 0.8)
    share = rng.choice([0.2, 0.5])
    # Backward ops come after forward ones, and nothing leads back.
    edges = [(a, b, size[a]) for a in range(n_ops) for b in range(a + 1, n_ops) if rng.random() < share]
    kind = rng.integers(0, 3, n_devices)
    base = rng.exponential(1.0, (n_ops, 1)) * (rng.random((n_ops, 1)) < 0.6)
    time = (base * rng.uniform(0.5, 2.0, (n_ops, 3) if rng.random() < 0.5 else (1, 3)))[:, kind]
    colocation = np.where(rng.random(n_ops) < 0.5, rng.integers(0, 3, n_ops), -1) if rng.random() < 0.7 else -1
    # A group that no device can run as a whole is no problem at all, so support varies where there are no groups.
    if np.max(colocation) < 0:
        barred = rng.random((n_ops, 3)) < 0.2
        barred[np.arange(n_ops), kind[rng.integers(0, n_devices, n_ops)]] = False
        time[barred[:, kind]] = np.inf
    is_cpu = kind == 2
    speed = np.ones((n_devices, n_devices))
    speed[np.ix_(is_cpu, is_cpu)] = np.inf
    return pg.Problem.from_times(
        pg.OpGraph.build(
            [f"op{i}" for i in range(n_ops)],
            edges,
            is_backward=np.arange(n_ops) >= n_forward,
            colocation=colocation,
        ),
        time,
        link_bytes_per_s=speed,
        op_memory_bytes=(claims := rng.integers(0, 3, n_ops)),
        device_kinds=["cpu" if one else "accelerator" for one in is_cpu],
        # All devices together hold all claims, or there is no such problem.
        device_memory_bytes=np.maximum(
            np.array([14.0 if np.max(colocation) >= 0 else 4.0, 14.0, np.inf])[kind], claims.sum() / n_devices
        )
        if rng.random() < 0.5
        else np.inf,
    )
