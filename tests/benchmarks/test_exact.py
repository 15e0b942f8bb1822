"""Exact baselines: dynamic programme over ideals, programmes for loads, scheduling model for the makespan."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.exact import dp, mip
from placement_gym.exact.max_load.pipeline import _Programme
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.result import Result

pytestmark = pytest.mark.benchmark
pytest.importorskip("ortools")
Figure = Callable[..., bool]


def throughput_instances(shared_data: Path) -> dict[str, pg.Problem]:
    """The published instances for the throughput, by "LayerGraphs/name" or "OperatorGraphs/name"."""
    folder = shared_data / "dnn_partitioning" / "throughput-inputs"
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.json"))}
    return {name: pg.workloads.read_dnn_partitioning(path) for name, path in paths.items()}


def chains(width: int, length: int, seed: int = 0) -> pg.Problem:
    """`width` chains of `length` ops between one first and one last op, on 6 accelerators and a CPU 10 times slower.

    It has (length + 1) ** width ideals and a few at the ends.
    """
    rng = np.random.default_rng(seed)
    n_ops = width * length + 2
    size = rng.uniform(0.0, 0.1, n_ops)
    edges = []
    for chain in range(width):
        ops = [0, *range(1 + chain * length, 1 + (chain + 1) * length), n_ops - 1]
        edges += [(a, b, float(size[a])) for a, b in pairwise(ops)]
    time_s = rng.uniform(0.1, 1.0, (n_ops, 1)) * np.array([[1.0] * 6 + [10.0]])
    return pg.Problem.from_times(
        pg.OpGraph.build([f"op{i}" for i in range(n_ops)], edges),
        time_s,
        link_bytes_per_s=1.0,
        device_kinds=["accelerator"] * 6 + ["cpu"],
        name=f"{width} chains of {length}",
    )


def cpu_s(problem: pg.Problem, tries: int) -> tuple[float, Result]:
    """(CPU seconds of `dp`, best of several tries, its result)."""
    seconds, result = [], None
    for _ in range(tries):
        began = time.process_time()
        result = dp(problem, max_ideals=4_000_000)
        seconds.append(time.process_time() - began)
    assert result is not None
    return min(seconds), result


def wall_s(problem: pg.Problem, **options: Any) -> tuple[float, Result]:
    """(wall-clock seconds of `mip`, heuristics and evaluation included, its result)."""
    began = time.perf_counter()
    result = mip(problem, **{"objective": "max_load", **options})
    return time.perf_counter() - began, result


def test_dynamic_programme_on_published_instances(figure: Figure, shared_data: Path) -> None:
    """CPU seconds per instance after a first call that compiles; the largest error against the published optima."""
    instances = throughput_instances(shared_data)
    known = json.loads((shared_data.parent / "reference" / "dnn_partitioning.json").read_text())["instances"]
    dp(next(iter(instances.values())))
    held, errors = [], []
    for name, problem in instances.items():
        seconds, result = cpu_s(problem, tries=3)
        assert result.status == "optimal"
        held.append(figure(f"dp, CPU seconds, {name}", seconds, "s", "< 0.3", n_ops=problem.n_ops, best_of=3))
        published = known[f"throughput-inputs/{name}"]["max_load"]["optimum_chain_of_ideals"]
        errors.append(abs(result.objective * 1e3 / published - 1))
    held.append(figure("dp, largest relative error", max(errors), "", "<= 1e-9", n_instances=len(errors)))
    assert all(held)


def test_memory_of_the_dynamic_programme(figure: Figure, shared_data: Path) -> None:
    """Peak memory of a fresh process that reads and solves the instance with most ideals, everything included."""
    folder = shared_data / "dnn_partitioning" / "throughput-inputs" / "LayerGraphs"
    # Not ru_maxrss, in which a child begins with what its parent had.
    code = (
        "import re, sys, placement_gym as pg;"
        "[pg.exact.dp(pg.workloads.read_dnn_partitioning(path)) for path in sys.argv[1:]];"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) / 2**20)"
    )
    small, large = (str(folder / f"{name}.json") for name in ("bert24_inference", "inceptionv3_inference"))
    base, total = (
        float(subprocess.run([sys.executable, "-c", code, *paths], check=True, capture_output=True, text=True).stdout)
        for paths in ((small,), (small, large))
    )
    context = {"before": base, "about": "whole process; before: after a tiny instance"}
    assert figure("dp, peak memory, inceptionv3_inference", total, "GiB", "< 1", **context)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_growth_with_the_ideals(figure: Figure, width: int) -> None:
    """CPU seconds on parallel chains with about 1e3 to 1e6 ideals."""
    dp(chains(width, 2))
    for wanted in (1e3, 1e4, 1e5, 1e6):
        problem = chains(width, round(wanted ** (1 / width)) - 1)
        ideals = _Programme.of(problem).ideals(4_000_000)
        assert ideals is not None
        count = len(ideals.units)
        seconds, result = cpu_s(problem, tries=1 if wanted > 1e4 else 3)
        figure(
            f"dp, {width} chains, about {wanted:.0e} ideals",
            seconds,
            "CPU s",
            n_ideals=count,
            n_ops=problem.n_ops,
            status=result.status,
        )


def test_contiguous_programme(figure: Figure, shared_data: Path) -> None:
    """Wall seconds until proven, every instance of at most 1,300 ops, two workers."""
    held = []
    for name, problem in throughput_instances(shared_data).items():
        if problem.n_ops > 1300:
            continue
        solver = Solver(time_limit_s=60.0, workers=2)
        seconds, result = wall_s(problem, objective="max_load", contiguous=True, solver=solver)
        context = {
            "status": result.status,
            "gap": result.class_gap,
            "objective_s": result.objective,
            "n_ops": problem.n_ops,
        }
        proven = seconds if result.status == "optimal" else max(seconds, 60.0)
        held.append(figure(f"contiguous programme, seconds until proven, {name}", proven, "s", "< 60", **context))
    assert all(held)


@pytest.mark.parametrize(
    ("name", "limit_s", "target"),
    [
        ("LayerGraphs/bert24_inference", 120, "<= 1"),
        ("LayerGraphs/bert24_training", 60, "<= 0.01"),
        ("LayerGraphs/gnmt_inference", 60, "<= 1"),
        ("LayerGraphs/gnmt_training", 60, "<= 1"),
        ("LayerGraphs/resnet50_inference", 300, "<= 1"),
        ("LayerGraphs/resnet50_training", 300, "<= 1"),
        ("OperatorGraphs/bert_l-3_inference", 60, "<= 0.01"),
        ("OperatorGraphs/bert_l-3_training", 60, "<= 0.01"),
    ],
)
def test_free_programme(figure: Figure, shared_data: Path, name: str, limit_s: float, target: str) -> None:
    """Gap of the best placement of any kind, two workers."""
    path = shared_data / "dnn_partitioning" / "throughput-inputs" / f"{name}.json"
    problem = pg.workloads.read_dnn_partitioning(path)
    seconds, result = wall_s(problem, objective="max_load", solver=Solver(time_limit_s=limit_s, workers=2))
    context = {"seconds": seconds, "limit_s": limit_s, "objective_s": result.objective, "status": result.status}
    assert figure(f"free programme, gap, {name}", 100 * result.gap, "%", target, **context)


@pytest.mark.parametrize(
    ("name", "limit_s", "published_ms"),
    [
        ("LayerGraphs/bert24_inference", 60, 100.2185),
        ("LayerGraphs/resnet50_inference", 60, None),
        ("LayerGraphs/inceptionv3_inference", 120, None),
        ("OperatorGraphs/bert_l-3_inference", 60, 408.49),
        ("OperatorGraphs/bert_l-12_inference", 120, 867.8394712360762),
        ("OperatorGraphs/resnet50_inference", 60, 839.5362863359463),
    ],
)
def test_latency_programme(
    figure: Figure, shared_data: Path, name: str, limit_s: float, published_ms: float | None
) -> None:
    """Best latency and its gap, one subgraph per accelerator, two workers.

    The best published values of two instances, 865.519 and 1014.927 ms, are of splits that exceed memory: no target.
    """
    path = shared_data / "dnn_partitioning" / "latency-inputs" / f"{name}.json"
    problem = pg.workloads.read_dnn_partitioning(path)
    seconds, result = wall_s(problem, objective="latency", solver=Solver(time_limit_s=limit_s, workers=2))
    context = {"seconds": seconds, "limit_s": limit_s, "status": result.status}
    figure(f"latency programme, gap, {name}", 100 * result.class_gap, "%", **context)
    target = None if published_ms is None else f"<= {published_ms * (1 + 1e-9)}"
    assert figure(f"latency programme, {name}", result.objective * 1e3, "ms", target, **context)


@pytest.mark.parametrize("rule", ["giph", "link", "physical"])
def test_makespan_of_twenty_ops(figure: Figure, rule: str) -> None:
    """20 ops on 4 devices, four kinds of graphs, seeds 0 to 2: seconds until proven, the worst; how many are proven."""
    seconds, proven = {}, 0
    for workload in (
        pg.workloads.layered,
        pg.workloads.fork_join,
        pg.workloads.series_parallel,
        pg.workloads.random_dag,
    ):
        for seed in range(3):
            problem = workload(n_ops=20, n_devices=4, seed=seed)
            solver = Solver(time_limit_s=60.0, workers=2)
            took, result = wall_s(problem, objective="makespan", rule=rule, solver=solver)
            proven += result.status == "optimal"
            seconds[f"{workload.__name__} {seed}"] = took if result.status == "optimal" else max(took, 60.0)
    worst = figure(
        f"makespan of 20 ops, seconds until proven, worst, rule {rule}",
        max(seconds.values()),
        "s",
        "< 60",
        seconds=seconds,
    )
    assert figure(f"makespan of 20 ops, proven of 12, rule {rule}", proven, "", ">= 12")
    assert worst


@pytest.mark.parametrize(
    "graph",
    ["chain_mm_112nodes", "ffnn_192nodes", "transformer_block_215nodes", "full_transformer_layer_261nodes"],
)
def test_makespan_of_a_published_graph(figure: Figure, shared_data: Path, graph: str) -> None:
    """What is proven within 20 s of DOPPLER's graphs, rule giph."""
    problem = pg.workloads.read_doppler(shared_data / "doppler" / f"{graph}.txt")
    seconds, result = wall_s(problem, objective="makespan", rule="giph", solver=Solver(time_limit_s=20.0, workers=2))
    context = {"seconds": seconds, "objective_s": result.objective, "lower_bound_s": result.lower_bound}
    figure(f"makespan, gap after 20 s, {graph}, rule giph", 100 * result.gap, "%", **context)
