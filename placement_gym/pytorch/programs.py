"""A tensor program computed whole, in plain torch: what every split of it must equal."""

from collections.abc import Mapping

import torch
from torch import Tensor

from placement_gym.errors import ExecutionError
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import Kernel, Operand, Source
from placement_gym.programs.program import TensorProgram
from placement_gym.pytorch.functions import code_of, source_value


def random_sources(sources: Mapping[str, Source], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors on the CPU for sources, by name; the same seed gives the same tensors."""
    generator = torch.Generator().manual_seed(seed)
    return {name: source_value(source, generator) for name, source in sources.items()}


def run_program(program: TensorProgram, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a program, by the names of the ops that make them.

    Args:
        program: The program.
        values: A tensor per source, by name.
    """
    made: list[Tensor] = []
    for op in program.ops:
        if op.is_source:
            made.append(values[op.name])
            continue
        inputs = [made[i] for i in op.inputs]
        operands = tuple(Operand(i, program.ops[i].shape, program.ops[i].dtype) for i in op.inputs)
        kernel = Kernel(op.function, operands, (op.shape,), (op.dtype,), op.equation, op.options)
        made.append(code_of(kernel)(inputs)[0])
    return {program.ops[i].name: made[i] for i in program.outputs}


def run_graph(graph: OpGraph, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The results of an op graph that can be run, by name, computed op after op: what every execution must equal.

    Args:
        graph: With kernels.
        values: A tensor per source, by name.

    Raises:
        ExecutionError: The graph has no kernels, or a source has no tensor of its shape.
    """
    if graph.kernels is None:
        raise ExecutionError("the graph has no kernels; expected one made by programs.shard")
    for name, source in graph.kernels.sources.items():
        if name not in values or tuple(values[name].shape) != source.shape:
            got = tuple(values[name].shape) if name in values else "none"
            raise ExecutionError(f"tensor of source {name!r} is {got}; expected shape {source.shape}")
    made: dict[int, tuple[Tensor, ...]] = {}
    for op in graph.order.tolist():
        kernel = graph.kernels.op_kernels[op]
        inputs = []
        for operand in kernel.operands:
            tensor = values[operand.source] if operand.op < 0 else made[operand.op][operand.output]
            inputs.append(tensor if operand.region is None else tensor[tuple(slice(a, b) for a, b in operand.region)])
        made[op] = code_of(kernel)(inputs)
    results = {}
    for name, result in graph.kernels.results.items():
        results[name] = made[result.pieces[0].op][result.pieces[0].output].new_empty(result.shape)
        for piece in result.pieces:
            region = piece.region or tuple((0, size) for size in result.shape)
            results[name][tuple(slice(a, b) for a, b in region)] = made[piece.op][piece.output]
    return results
