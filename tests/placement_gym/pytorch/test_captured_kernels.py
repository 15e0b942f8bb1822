"""Kernels of captured graphs: run op by op they give what the module gives."""

import copy
import dataclasses
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sequential import run_graph
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.nn import functional as F  # noqa: N812  (the name everyone uses)
from torch.utils import _pytree as pytree

from placement_gym.errors import CaptureError
from placement_gym.graph import OpGraph
from placement_gym.pytorch.capture import capture, module_values
from placement_gym.pytorch.models import inception, llama, mixture_of_experts
from placement_gym.pytorch.traced import Named, TracedGraph, op_graph


def assert_runs_as(module: nn.Module, inputs: tuple[Any, ...]) -> OpGraph:
    """The captured graph gives the module's outputs, however tensors lie in memory between ops."""
    graph = capture(module, inputs)
    values = module_values(module, inputs)
    assert graph.kernels is not None
    for name, source in graph.kernels.sources.items():
        assert tuple(values[name].shape) == source.shape
    with torch.no_grad():
        plain, given = copy.deepcopy((module, inputs))
        expected = pytree.tree_leaves(plain.eval()(*given))
    for contiguous in (False, True):
        results = run_graph(graph, values, contiguous=contiguous)
        found = {f"output{i}": tensor for i, tensor in enumerate(expected) if isinstance(tensor, Tensor)}
        assert found.keys() <= results.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(results[name], tensor, rtol=1e-6, atol=1e-6)
    return graph


class Convolutions(nn.Module):
    """Convolution, batch norm with statistics of its own, in-place ops, buffers and constants of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean = torch.linspace(-1, 1, 4)
        self.norm.running_var = torch.linspace(0.5, 2, 4)
        self.register_buffer("scale", torch.full((4,), 3.0), persistent=False)
        self.plain = torch.ones(3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """[2, 3, 6, 6] -> tensors of many kinds, a number and nothing."""
        y = self.norm(self.convolution(x))
        y.relu_()
        left, right = y.chunk(2, dim=1)
        largest, at = left.max(1)
        assert isinstance(self.scale, Tensor)
        total = right.sum() + self.plain.sum() + self.scale.sum() + torch.tensor([1.0, 2.0]).sum()
        return {
            "view": largest.transpose(0, 1),
            "total": total,
            "input": x,
            "at": at,
            "buffer": self.scale,
            "nothing": None,
            "number": 3,
            "halves": right,
            "constant": torch.arange(4) + 1,
        }


class Mixer(nn.Module):
    """Attention, tied weights, dropout, an embedding and calls that keep a position."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.5)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.LayerNorm(8)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """[3, 5] -> scores, and a mask of tokens."""
        x = self.embedding(tokens) + torch.arange(5)[None, :, None] / 5
        x = self.dropout(self.norm(x))
        mixed, _ = self.attention(x, x, x, need_weights=False)
        q = mixed.view(3, 5, 2, 4).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).reshape(3, 5, 8)
        y = y.masked_fill(tokens[..., None] > 5, 0.0)
        return self.head(y), tokens.ge(3)


class ManyOutputs(nn.Module):
    """Ops of several outputs, of which some are not read, and one result twice."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """[4, 6] -> four tensors."""
        values, at = x.exp().topk(3)
        first, second, third = values.split(1, dim=1)
        normal, mean, deviation = torch.native_layer_norm(x, [6], None, None, 1e-5)
        joined = torch.cat([first, third, at.float(), normal + mean], dim=1)
        return [joined, joined, second.squeeze(1), deviation, x.t().exp().t().view(-1)]


class Accumulator(nn.Module):
    """Changes its buffer and its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        """[3] -> [3]."""
        assert isinstance(self.total, Tensor)
        self.total.mul_(0.5).add_(x)
        y = x * self.total
        y[1:] += 1
        return y


def _seeded(build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Built with weights and float inputs that depend on nothing else."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module, inputs = build()
    generator = torch.Generator().manual_seed(4)
    return module, tuple(
        torch.randn(x.shape, generator=generator)
        if x.is_floating_point()
        else torch.randint(11, x.shape, generator=generator)
        for x in inputs
    )


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), (torch.zeros(5, 6),)),
    "convolutions": lambda: (Convolutions(), (torch.zeros(2, 3, 6, 6),)),
    "mixer": lambda: (Mixer(), (torch.zeros(3, 5, dtype=torch.int64),)),
    "many_outputs": lambda: (ManyOutputs(), (torch.zeros(4, 6),)),
    "transformer": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (torch.zeros(2, 5, 8),)),
    "lstm": lambda: (nn.LSTM(4, 3, num_layers=2), (torch.zeros(5, 2, 4),)),
    "mixture_of_experts": lambda: mixture_of_experts(1, 2, width=32, hidden=64, tokens=8, batch=2),
    "llama": lambda: llama(2, width=16, hidden=32, heads=2, tokens=6, batch=2),
    "inception": lambda: inception(2, channels=8, size=6, batch=2),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights")  # torch's, about its own LSTM
@pytest.mark.parametrize("name", sorted(CASES))
def test_graph_run_op_by_op_equals_the_module(name: str) -> None:
    """Views, constants, in-place ops, tied weights, ops and modules of several outputs included."""
    assert_runs_as(*_seeded(CASES[name]))


def test_outputs_that_are_no_ops_own_are_free_ops() -> None:
    """A view is made beside the op that it views; it costs nothing."""
    graph = assert_runs_as(*_seeded(CASES["convolutions"]))
    assert graph.kernels is not None
    views = [op for op in range(graph.n_ops) if graph.op_kinds[op] == "view"]
    named = {graph.op_names[op]: op for op in views}
    positions = list(CASES["convolutions"]()[0].eval()(torch.zeros(2, 3, 6, 6)))
    expected = [f"output{positions.index(name)}.view" for name in ("view", "input", "buffer", "halves")]
    assert sorted(named) == sorted(expected)
    assert graph.op_flops[views].tolist() == graph.op_traffic_bytes[views].tolist() == [0.0] * 4
    largest = graph.op_kinds.index("max")
    assert graph.op_colocation[named[expected[0]]] == graph.op_colocation[largest] >= 0
    assert set(graph.kernels.results) == {
        f"output{positions.index(n)}" for n in positions if n not in ("nothing", "number")
    }


def test_changed_buffers_and_inputs_are_results_too() -> None:
    """Under their own names; the new value is made where the old one is read."""
    module, x = Accumulator(), torch.tensor([1.0, 2.0, 3.0])
    graph = assert_runs_as(module, (x,))
    results = run_graph(graph, module_values(module, (x,)))
    assert results["total"].tolist() == [1.0, 2.0, 3.0]
    assert module.total.tolist() == [0.0, 0.0, 0.0]
    assert graph.op_kinds[:2] == ("mul", "add")
    assert graph.op_colocation[0] == graph.op_colocation[1] >= 0


def test_meta_capture_runs_on_real_values() -> None:
    """A graph captured without weights takes the values of the same module with weights."""
    with torch.device("meta"):
        graph = capture(Mixer(), (torch.zeros(3, 5, dtype=torch.int64),))
    module, inputs = _seeded(CASES["mixer"])
    with torch.no_grad():
        scores, mask = module.eval()(*inputs)
    results = run_graph(graph, module_values(module, inputs))
    torch.testing.assert_close(results["output0"], scores)
    assert torch.equal(results["output1"], mask)


def test_signatures_tell_unlike_calls_apart() -> None:
    """Arguments that are no tensors and the views that a call reads through show; equal calls are equal."""

    class Calls(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            return (
                x.sum(0), x.sum(1), x.softmax(0), x.softmax(1), x + y, torch.add(x, y, alpha=2), x.t() + y.t(), x @ y,
                x @ y.t(), torch.cat([x, y]), torch.cat([x, y], 1), x.clamp(0, 1), x.clamp(0, 2), x.roll(1, 0),
                x.roll(1, 1),
            )  # fmt: skip

    graph = capture(Calls(), (torch.zeros(4, 4), torch.zeros(4, 4)))
    assert graph.kernels is not None
    signatures = [kernel.signature for kernel in graph.kernels.op_kernels]
    for a, b in itertools.combinations(signatures, 2):
        assert a != b
    assert "aten.sum.dim_IntList[](dim=(0,))(float32[4,4])->(float32[4])" in signatures
    two = capture(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), (torch.zeros(2, 4),))
    assert two.kernels is not None
    assert len({kernel.signature for kernel in two.kernels.op_kernels}) == 1


def test_inputs_of_any_structure_are_sources() -> None:
    """Dictionaries and lists of tensors, and plain numbers; an input never takes a parameter's name."""

    class Structured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor, more: dict[str, list[Tensor]], factor: int) -> Tensor:
            return x * self.x + more["a"][0] - factor * more["a"][1]

    inputs = (torch.arange(3.0), {"a": [torch.ones(3), torch.full((3,), 2.0)]}, 3)
    graph = assert_runs_as(Structured(), inputs)
    assert graph.kernels is not None
    assert list(graph.kernels.sources) == ["x", "input.x", "more_a_0", "more_a_1"]


def test_random_numbers_are_drawn_once() -> None:
    """A call that draws them is an op, not a constant that each reader makes for itself."""

    class Random(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            noise = torch.rand(4)
            return x + noise, x - noise

    x = torch.ones(4)
    graph = capture(Random(), (x,))
    assert graph.op_kinds == ("rand", "add", "sub")
    results = run_graph(graph, {"x": x})
    torch.testing.assert_close(results["output0"] + results["output1"], 2 * x)


def test_branches_within_the_graph_are_one_op() -> None:
    """torch.cond runs the branch that the values ask for."""

    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y * 2, (x,))
            return out

    assert "cond" in assert_runs_as(Branches(), (torch.ones(3),)).op_kinds
    assert "cond" in assert_runs_as(Branches(), (-torch.ones(3),)).op_kinds


def test_shapes_that_depend_on_data_are_refused() -> None:
    """The error names the op."""

    class Positive(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0] * 2

    with pytest.raises(CaptureError, match=r"op 'index' has the shape .* depends on data"):
        capture(Positive(), (torch.ones(3),))


def test_kernels_can_be_sent_to_another_process() -> None:
    """Pickled and back they compute the same."""
    module, inputs = _seeded(CASES["convolutions"])
    graph = capture(module, inputs)
    values = module_values(module, inputs)
    sent = dataclasses.replace(graph, kernels=pickle.loads(pickle.dumps(graph.kernels)))
    for name, tensor in run_graph(graph, values).items():
        assert torch.equal(run_graph(sent, values)[name], tensor)


def test_capture_leaves_the_mode_of_the_module() -> None:
    """Each part is in training or evaluation mode as before."""
    module = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    module[0].eval()
    capture(module, (torch.zeros(1, 2),))
    assert (module.training, module[0].training, module[1].training) == (True, False, True)


def test_chains_of_views_may_be_longer_than_pythons_stack() -> None:
    """The op behind 2,000 slices in a row reads through them; its options tell them all."""
    n = 2000
    trace = Graph()
    node = source = trace.placeholder("x")
    with FakeTensorMode():
        source.meta["val"] = torch.empty(n + 4)
        for i in range(n):
            node = trace.call_function(torch.ops.aten.slice.Tensor, (node, 0, 1))
            node.meta["val"] = torch.empty(n + 3 - i)
        node = trace.call_function(torch.ops.aten.neg.default, (node,))
        node.meta["val"] = torch.empty(4)
    traced = TracedGraph(GraphModule({}, trace), {source: Named("x", "input")}, {"y": node})
    graph = op_graph(traced, "slices")
    assert graph.op_kinds == ("neg",)
    results = run_graph(graph, {"x": torch.arange(-n - 3.0, 1.0)})
    assert torch.equal(results["y"], torch.tensor([3.0, 2.0, 1.0, 0.0]))
    assert graph.kernels is not None
    ((name, told),) = graph.kernels.op_kernels[0].options
    assert (name, told) == ("self", "aten.slice.Tensor(" * n + "#0" + ",0,1)" * n)
