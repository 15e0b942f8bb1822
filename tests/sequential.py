"""The ops of a graph with kernels, run one after the other: what any executor must equal."""

from collections.abc import Mapping

from torch import Tensor

from placement_gym.graph import OpGraph
from placement_gym.pytorch.functions import code_of


def run_graph(graph: OpGraph, values: Mapping[str, Tensor], *, contiguous: bool = False) -> dict[str, Tensor]:
    """The results of a graph, its ops run one after the other; `contiguous` is how a copy may arrive."""
    assert graph.kernels is not None
    made: dict[int, tuple[Tensor, ...]] = {}
    for op in graph.order.tolist():
        kernel = graph.kernels.op_kernels[op]
        operands = [values[o.source] if o.op < 0 else made[o.op][o.output] for o in kernel.operands]
        for operand, tensor in zip(kernel.operands, operands, strict=True):
            assert tuple(tensor.shape) == operand.shape
            assert str(tensor.dtype) == f"torch.{operand.dtype}"
        outputs = code_of(kernel)(operands)
        assert tuple(tuple(tensor.shape) for tensor in outputs) == kernel.output_shapes
        assert tuple(str(tensor.dtype).removeprefix("torch.") for tensor in outputs) == kernel.output_dtypes
        made[op] = tuple(tensor.contiguous() for tensor in outputs) if contiguous else outputs
    return {name: made[r.pieces[0].op][r.pieces[0].output] for name, r in graph.kernels.results.items()}
