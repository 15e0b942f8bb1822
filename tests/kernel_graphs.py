"""Small op graphs with kernels, built by hand, and what they compute one op after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import placement_gym as pg
from placement_gym.op_kernel import GraphResult, Kernel, Kernels, Operand, Piece, Region, Shape, Source
from placement_gym.pytorch.functions import code_of

# What an op reads: an op's output by number, a part of it, or a source by name (or a part of it).
Input = int | str | tuple[int | str, Region]
MATRIX = (4, 4)


@dataclass(frozen=True)
class Step:
    """One op: its function, what it reads, and either an equation or code with the shape that it returns."""

    function: str
    inputs: Sequence[Input]
    equation: str = ""
    call: Callable[..., Any] | None = None
    shape: Shape = ()


def kernel_graph(
    steps: Mapping[str, Step], sources: Mapping[str, Shape], results: Sequence[int] | None = None
) -> pg.OpGraph:
    """The graph of the steps, by name; its results are the outputs of `results`, or of all ops that none reads."""
    kernels: list[Kernel] = []
    edges: list[tuple[int, int, float]] = []
    tensors: list[Any] = []
    for i, step in enumerate(steps.values()):
        operands = []
        for given in step.inputs:
            what, region = given if isinstance(given, tuple) else (given, None)
            whole = sources[what] if isinstance(what, str) else kernels[what].output_shapes[0]
            shape = whole if region is None else tuple(b - a for a, b in region)
            made_by = {"op": -1, "source": what} if isinstance(what, str) else {"op": what}
            operands.append(Operand(shape=shape, region=region, **made_by))  # type: ignore[arg-type]
        axes, _, output = step.equation.partition("->")
        size = {a: n for o, names in zip(operands, axes.split(","), strict=False) for a, n in zip(names, o.shape)}  # noqa: B905
        shape = tuple(size[a] for a in output) if step.equation else step.shape
        kernel = Kernel(step.function, tuple(operands), (shape,), ("float32",), step.equation, call=step.call)
        n_bytes = {operand.tensor: operand.n_bytes for operand in operands}
        for tensor in kernel.tensors:
            edges.append((tensor[0], i, float(n_bytes[tensor])))
            tensors.append(tensor)
        kernels.append(kernel)
    number: dict[Any, int] = {}
    read = {a for a, _, _ in edges}
    asked = [i for i in range(len(steps)) if i not in read] if results is None else results
    names = list(steps)
    return pg.OpGraph.build(
        names,
        edges,
        kinds=[step.function for step in steps.values()],
        output_bytes=[4.0 * np.prod(k.output_shapes[0]) for k in kernels],
        edge_tensor=[number.setdefault(tensor, len(number)) for tensor in tensors],
        kernels=Kernels(
            tuple(kernels),
            {name: Source("parameter", shape) for name, shape in sources.items()},
            {names[i]: GraphResult(kernels[i].output_shapes[0], "float32", (Piece(i),)) for i in asked},
        ),
    )


def relu(*inputs: int | str) -> Step:
    """An op of a microsecond."""
    return Step("relu", inputs, "ij->ij")


def calling(code: Callable[..., Tensor], *inputs: int | str) -> Step:
    """An op that runs Python code."""
    return Step("call", inputs, call=code, shape=MATRIX)


def sleeping(seconds: float, *inputs: int | str) -> Step:
    """An op that takes its time without using a core."""

    def sleep(*tensors: Tensor) -> Tensor:
        time.sleep(seconds)
        return tensors[0] + 1

    return calling(sleep, *inputs)


def chain(n_ops: int) -> pg.OpGraph:
    """Rectifiers, one after the other."""
    return kernel_graph({f"op{i}": relu(i - 1 if i else "x") for i in range(n_ops)}, {"x": MATRIX})


def run_in_order(graph: pg.OpGraph, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The results, computed one op after the other in topological order."""
    kernels = graph.kernels
    assert kernels is not None
    made: dict[int, tuple[Tensor, ...]] = {}
    for op in graph.order.tolist():
        operands = []
        for o in kernels.op_kernels[op].operands:
            whole = values[o.source] if o.op < 0 else made[o.op][o.output]
            operands.append(whole if o.region is None else whole[tuple(slice(a, b) for a, b in o.region)])
        made[op] = code_of(kernels.op_kernels[op])(operands)
    found = {}
    for name, result in kernels.results.items():
        found[name] = torch.full(result.shape, float("nan"))
        for piece in result.pieces:
            region = piece.region or tuple((0, n) for n in result.shape)
            found[name][tuple(slice(a, b) for a, b in region)] = made[piece.op][piece.output]
    return found


def random_kernel_graph(rng: np.random.Generator, n_ops: int, n: int = 6) -> pg.OpGraph:
    """A random DAG of products, sums, rectifiers and halves of [n, n] matrices; sources are whole or halves too."""
    half: dict[int, Region] = {0: ((0, n // 2), (0, n)), 1: ((n // 2, n), (0, n))}
    sources = {"a": (n, n), "b": (n, n), "tall": (2 * n, n)}
    steps: dict[str, Step] = {}

    def pick() -> Input:
        what = int(rng.integers(-3, len(steps)))
        if what >= 0:
            return what
        return "a" if what == -3 else "b" if what == -2 else ("tall", ((n // 2, n // 2 + n), (0, n)))

    def join(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(tensors))

    for i in range(n_ops):
        kind = rng.choice(["einsum", "add", "relu", "halves"])
        if kind == "einsum":
            step = Step("einsum", [pick(), pick()], "ij,jk->ik")
        elif kind == "add":
            step = Step("add", [pick(), pick()], "ij,ij->ij")
        elif kind == "relu" or not steps:
            step = Step("relu", [pick()], "ij->ij")
        else:
            parts = [(int(rng.integers(len(steps))), half[int(rng.integers(2))]) for _ in range(2)]
            step = Step("halves", parts, call=lambda *halves: join(halves), shape=(n, n))
        steps[f"op{i}"] = step
    asked = sorted(set(rng.integers(0, n_ops, 3).tolist()) | {n_ops - 1})
    return kernel_graph(steps, sources, asked)
