"""Sharded programs: how they resemble the published graphs of DOPPLER, and how long they take to plan."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import placement_gym as pg

pytestmark = pytest.mark.benchmark
Figure = Callable[..., bool]
# Published file, program, shards per op.
GRAPHS = (
    ("chain_mm_112nodes", pg.workloads.chain_mm, 16),
    ("ffnn_192nodes", pg.workloads.ffnn, 16),
    ("transformer_block_215nodes", pg.workloads.llama_block, 4),
    ("full_transformer_layer_261nodes", pg.workloads.llama_layer, 4),
)


def depth(graph: pg.OpGraph) -> int:
    """Ops on the longest path."""
    level = np.ones(graph.n_ops, dtype=np.int64)
    for op in graph.order.tolist():
        for e in graph.in_edges[graph.in_start[op] : graph.in_start[op + 1]].tolist():
            level[op] = max(level[op], level[graph.edge_src[e]] + 1)
    return int(level.max())


@pytest.mark.parametrize(("file", "build", "n"), GRAPHS)
def test_sharded_graphs_resemble_the_published(
    figure: Figure, shared_data: Path, file: str, build: Callable[[], pg.programs.TensorProgram], n: int
) -> None:
    """Ops, edges and depth beside those of the published file, which differs in what `kinds` says."""
    published = pg.workloads.read_doppler(shared_data / "doppler" / f"{file}.txt").graph
    graph = pg.programs.shard(build(), n=n)
    kinds = {kind: graph.op_kinds.count(kind) for kind in dict.fromkeys(graph.op_kinds)}
    for name, size in (("ops", lambda g: g.n_ops), ("edges", lambda g: g.n_edges), ("depth", depth)):
        figure(f"{file}, {name}", size(graph), "", published=size(published), kinds=kinds)
        figure(f"{file}, {name} over published", size(graph) / size(published), "x")


def test_planning_time(figure: Figure) -> None:
    """Planning and lowering 96 layers of GPT-2, four shards per op."""
    program = pg.workloads.gpt(n_layers=96)
    began = time.perf_counter()
    graph = pg.programs.shard(program, n=4)
    seconds = time.perf_counter() - began
    assert figure("planning and lowering of gpt, 96 layers, n=4", seconds, "s", "<= 20", ops=graph.n_ops)
