"""Objectives: worked by hand, and the max-load against the simulator's time per sample of a long stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import random_placement

import placement_gym as pg
from placement_gym import objectives
from placement_gym.errors import InfeasiblePlacement, InvalidOption


def chain_of_three(**options: object) -> pg.Problem:
    """Three ops of 1 s in a row on an accelerator and a CPU; the tensors take 2 s and 3 s."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 2.0), (1, 2, 3.0)], **options)  # type: ignore[arg-type]
    return pg.Problem.from_times(graph, np.ones((3, 2)), link_bytes_per_s=1.0, device_kinds=["accelerator", "cpu"])


def test_max_load_and_latency_by_hand() -> None:
    """Accelerators pay for what enters and leaves, the CPU does not; a subgraph gives results when it is done."""
    problem = chain_of_three()
    # b on the accelerator: 2 in, 1 of work, 3 out; the CPU runs a and c.
    assert objectives.device_loads_s(problem, [1, 0, 1]).tolist() == [6.0, 2.0]
    assert objectives.max_load_s(problem, [1, 0, 1]) == 6.0
    assert objectives.latency_s(problem, [1, 0, 1]) == 1.0 + 6.0 + 1.0
    # a and c on the accelerator are two subgraphs, because the way from one to the other leaves it.
    assert objectives.contiguous_pieces(problem, np.array([0, 1, 0], dtype=np.int32)).tolist() == [0, 0, 1]
    assert objectives.latency_s(problem, [0, 1, 0]) == (1 + 2) + 1 + (3 + 1)


def test_gpipe_load_by_hand() -> None:
    """The largest forward and the largest backward load may be those of different devices."""
    problem = chain_of_three(is_backward=[False, False, True])
    # Accelerator: a, 2 s out, c; CPU: b. The tensor of b is a forward op's, though a backward op reads it.
    assert objectives.gpipe_load_s(problem, [0, 1, 0]) == (1 + 2 + 3) + 1
    assert objectives.max_load_s(problem, [0, 1, 0]) == 1 + 2 + 3 + 1
    assert objectives.gpipe_load_s(problem, [0, 0, 1]) == (1 + 1 + 3) + 1
    assert objectives.max_load_s(problem, [0, 0, 1]) == 1 + 1 + 3


def test_subgraphs_of_one_accelerator_take_turns() -> None:
    """A set may be cut further than contiguity asks; pieces pay to each other and run in their order."""
    problem = chain_of_three()
    assert objectives.latency_s(problem, [0, 0, 0]) == 3
    assert objectives.latency_s(problem, [0, 0, 0], [0, 1, 1]) == (1 + 2) + (2 + 2)
    apart = pg.Problem.from_times(
        pg.OpGraph.build(["a", "b"], []), np.array([[1.0], [2.0]]), device_kinds=["accelerator"]
    )
    assert objectives.latency_s(apart, [0, 0], [1, 0]) == 3
    with pytest.raises(InfeasiblePlacement, match="in a circle"):
        objectives.latency_s(problem, [0, 0, 0], [1, 0, 0])
    with pytest.raises(InfeasiblePlacement, match=r"expected whole numbers of shape \(3,\)"):
        objectives.latency_s(problem, [0, 0, 0], [0, 1])


def test_an_unknown_objective_lists_the_known() -> None:
    """The names are those of the module."""
    schedule = pg.simulate(chain_of_three(), [0, 0, 0])
    assert objectives.objective_s("makespan", schedule) == schedule.makespan_s
    assert objectives.objective_s("latency", schedule) == 3
    with pytest.raises(InvalidOption, match="known: gpipe_load, latency, makespan, max_load"):
        objectives.objective_s("speed", schedule)  # type: ignore[arg-type]


Stream = tuple[pg.Problem, NDArray[np.int32], NDArray[np.int64]]


def stream(problem: pg.Problem, op_device: NDArray[np.int32], n_samples: int, *, overlap: bool) -> Stream:
    """(problem of `n_samples` copies of the graph, its placement, the sample of each op).

    Without `overlap` each tensor that crosses is an op on the accelerator that sends it and one on each accelerator
    that fetches it; with it, tensors are the simulator's own transfers.
    """
    graph, accelerator = problem.graph, objectives.pays_for_transfers(problem)
    time_s, device = list(problem.op_time_s[np.arange(problem.n_ops), op_device]), op_device.tolist()
    edges: list[tuple[int, int, float]] = []
    send: dict[int, int] = {}
    fetch: dict[tuple[int, int], int] = {}
    for e in range(graph.n_edges):
        a, b, size = int(graph.edge_src[e]), int(graph.edge_dst[e]), float(graph.edge_bytes[e])
        tensor, here, there = int(graph.edge_tensor[e]), device[a], device[b]
        if here == there or overlap:
            edges.append((a, b, size))
            continue
        source = a
        if accelerator[here]:
            if tensor not in send:
                send[tensor] = len(device)
                device.append(here)
                time_s.append(size)
                edges.append((a, send[tensor], 0.0))
            source = send[tensor]
        if accelerator[there]:
            if (tensor, there) not in fetch:
                fetch[tensor, there] = len(device)
                device.append(there)
                time_s.append(size)
                edges.append((source, fetch[tensor, there], 0.0))
            source = fetch[tensor, there]
        edges.append((source, b, 0.0))
    n = len(device)
    unrolled = pg.OpGraph.build(
        [f"{i}" for i in range(n * n_samples)],
        [(a + n * m, b + n * m, size) for m in range(n_samples) for a, b, size in edges],
    )
    speed = problem.link_bytes_per_s if overlap else np.inf
    longer = pg.Problem.from_times(
        unrolled, np.tile(np.array(time_s)[:, None], (n_samples, problem.n_devices)), link_bytes_per_s=speed
    )
    return longer, np.tile(np.array(device, dtype=np.int32), n_samples), np.repeat(np.arange(n_samples), n)


def seconds_per_sample(
    problem: pg.Problem, op_device: NDArray[np.int32], n_samples: int, *, overlap: bool, rule: str | pg.Rule
) -> float:
    """Of a stream, older samples first."""
    longer, devices, sample = stream(problem, op_device, n_samples, overlap=overlap)
    return pg.simulate(longer, devices, rule=rule, priority=-sample.astype(float)).makespan_s / n_samples


@given(st.integers(0, 2**32 - 1))
def test_a_stream_tends_to_the_max_load(seed: int) -> None:
    """Transfers as ops on the accelerators: time per sample falls to the max-load. With overlap it is never above."""
    rng = np.random.default_rng(seed)
    n_ops, n_accelerators, n_cpus = int(rng.integers(1, 9)), int(rng.integers(1, 4)), int(rng.integers(0, 3))
    n_devices = n_accelerators + n_cpus
    size = rng.exponential(0.5, n_ops)
    edges = [(a, b, size[a]) for a in range(n_ops) for b in range(a + 1, n_ops) if rng.random() < 0.4]
    speed = np.ones((n_devices, n_devices))
    speed[n_accelerators:, n_accelerators:] = np.inf
    problem = pg.Problem.from_times(
        pg.OpGraph.build([str(i) for i in range(n_ops)], edges),
        rng.exponential(1.0, (n_ops, n_devices)),
        link_bytes_per_s=speed,
        device_kinds=["accelerator"] * n_accelerators + ["cpu"] * n_cpus,
    )
    op_device = random_placement(rng, problem)
    max_load_s = objectives.max_load_s(problem, op_device)
    # To fill and drain the pipeline takes about one sample's time; as ops are not interrupted, older samples now and
    # then wait for younger ones, which adds a few times as much, however long the stream is.
    fill_s = 4 * objectives.device_loads_s(problem, op_device).sum()
    rule = pg.Rule(queue="priority", transfers="edge", contention="none")
    for n_samples in (20, 80):
        found = seconds_per_sample(problem, op_device, n_samples, overlap=False, rule=rule)
        assert max_load_s * (1 - 1e-9) <= found <= max_load_s + fill_s / n_samples * (1 + 1e-9)
    # The model has one sending per tensor, and CPUs that send and fetch any number of tensors beside their work.
    for contention in ("none",) if n_cpus else ("none", "port"):
        rule = pg.Rule(queue="priority", transfers="multicast", contention=contention)  # type: ignore[arg-type]
        found = seconds_per_sample(problem, op_device, 80, overlap=True, rule=rule)
        assert found <= max_load_s + fill_s / 80 * (1 + 1e-9)
