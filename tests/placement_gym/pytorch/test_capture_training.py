"""Captured training steps: run op by op they change parameters as torch's optimisers do."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sequential import run_graph
from torch import Tensor, nn

from placement_gym.errors import CaptureError, InvalidOption
from placement_gym.graph import OpGraph
from placement_gym.pytorch.models import LanguageModel, LlamaBlock, llama
from placement_gym.pytorch.training import capture_training, training_values
from placement_gym.pytorch.updates import OptimizerName

RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.02


def optimizer_of(name: OptimizerName, module: nn.Module) -> torch.optim.Optimizer:
    """Torch's own."""
    match name:
        case "sgd":
            return torch.optim.SGD(module.parameters(), RATE, weight_decay=DECAY)
        case "momentum":
            return torch.optim.SGD(module.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
        case "adam":
            return torch.optim.Adam(module.parameters(), RATE, weight_decay=DECAY)
        case "adamw":
            return torch.optim.AdamW(module.parameters(), RATE, weight_decay=DECAY)


def captured(name: OptimizerName, module: nn.Module, inputs: tuple[Any, ...], **options: Any) -> OpGraph:
    """The step with the options of these tests."""
    return capture_training(
        module, inputs, optimizer=name, learning_rate=RATE, momentum=MOMENTUM, weight_decay=DECAY, **options
    )


def assert_trains_as(name: OptimizerName, module: nn.Module, inputs: tuple[Any, ...], **options: Any) -> OpGraph:
    """Three steps, each with what the one before left, equal torch's; buffers included."""
    graph = captured(name, module, inputs, **options)
    values = training_values(graph, module, inputs)
    plain = copy.deepcopy(module).train()
    optimizer = optimizer_of(name, plain)
    loss_of: Callable[[Any], Tensor] = options.get("loss") or (lambda output: output.mean())
    for _ in range(3):
        optimizer.zero_grad()
        loss = loss_of(plain(*inputs))
        loss.backward()
        optimizer.step()
        results = run_graph(graph, values)
        torch.testing.assert_close(results["loss"], loss.detach(), rtol=1e-10, atol=1e-10)
        held = plain.state_dict()
        trained = [parameter for parameter in plain.parameters() if parameter.grad is not None]
        assert len(results.keys() & dict(plain.named_parameters(remove_duplicate=False)).keys()) == len(trained)
        for key in results.keys() & held.keys():
            torch.testing.assert_close(results[key], held[key], rtol=1e-10, atol=1e-10)
        values.update({key: value for key, value in results.items() if key != "loss"})
    return graph


class Convolutions(nn.Module):
    """Batch norm and an average of its own that change in place, in-place relu, a part without gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.head, self.unused = nn.Linear(16, 3), nn.Linear(2, 2)
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        """[5, 3, 6, 6] -> [5, 3]."""
        y = self.norm(self.convolution(x))
        y.relu_()
        assert isinstance(self.average, Tensor)
        self.average.mul_(0.9).add_(y.mean((0, 2, 3)).detach(), alpha=0.1)
        with torch.no_grad():
            size = y.square().sum()
        out: Tensor = self.head(y.flatten(1) / size)
        return out


class Mixer(nn.Module):
    """Tied embedding and head, two uses of the table, attention with a mask, a frozen layer and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        # The gradient of the keys' bias is zero but for rounding, which Adam makes large.
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0, bias=False)
        self.dropout = nn.Dropout(0.0)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """[3, 5] -> scores [3, 5, 11]."""
        mask = torch.full((5, 5), float("-inf"), dtype=self.head.weight.dtype).triu(1)
        x = self.layer(self.dropout(self.embedding(tokens)), src_mask=mask)
        return {"tokens": tokens, "scores": self.head(self.frozen(x) + x.max(1, keepdim=True)[0])}


def next_token_loss(output: dict[str, Tensor]) -> Tensor:
    """Cross entropy of each token with the one after it."""
    return nn.functional.cross_entropy(output["scores"][:, :-1].flatten(0, 1), output["tokens"][:, 1:].flatten())


def _built(build: Callable[[], nn.Module], *shape: int, ids: bool = False) -> tuple[nn.Module, tuple[Tensor, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = build().double()
        return module, (torch.randint(11, shape) if ids else torch.randn(shape, dtype=torch.float64),)


def mlp() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Two layers."""
    return _built(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), 5, 6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_multilayer_perceptron_trains_as_with_torch(name: OptimizerName) -> None:
    """Under every optimiser, weight decay included."""
    assert_trains_as(name, *mlp())


def test_batch_norm_trains_as_with_torch() -> None:
    """Running statistics and buffers of the module's own are results; what has no gradient is left alone."""
    graph = assert_trains_as("adam", *_built(Convolutions, 5, 3, 6, 6))
    assert graph.kernels is not None
    assert {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "average"} <= set(
        graph.kernels.results
    )
    assert not any(name.startswith("unused") for name in graph.kernels.results)
    reads = [i for i, kernel in enumerate(graph.kernels.op_kernels) if "average" in {o.source for o in kernel.operands}]
    makes = graph.kernels.results["average"].pieces[0].op
    assert graph.op_colocation[makes] == graph.op_colocation[reads[0]] >= 0  # the buffer stays where it is


def test_transformer_trains_as_with_torch() -> None:
    """Attention, tied weights, a frozen layer, a loss of the caller's own."""
    graph = assert_trains_as("adamw", *_built(Mixer, 3, 5, ids=True), loss=next_token_loss)
    assert graph.kernels is not None
    assert "frozen.weight" in graph.kernels.sources
    assert "frozen.weight" not in graph.kernels.results


@pytest.mark.slow
def test_llama_trains_as_with_torch() -> None:
    """Gated feed-forward, root mean square norm."""
    blocks: list[nn.Module] = [LlamaBlock(8, 2, 16) for _ in range(2)]
    assert_trains_as("momentum", *_built(lambda: LanguageModel(11, 8, blocks), 2, 4, ids=True))


def test_backward_begins_with_the_gradient_of_the_loss() -> None:
    """Forward ops read no backward op; updates are backward, read the state and stay with their parameter."""
    module, inputs = mlp()
    graph = captured("adam", module, inputs)
    kinds = graph.op_kinds
    first = kinds.index("ones_like")
    assert graph.op_is_backward.tolist() == [i >= first for i in range(graph.n_ops)]
    assert kinds[:first] == ("addmm", "tanh", "addmm", "mean")
    updates = [i for i, kind in enumerate(kinds) if kind == "adam"]
    assert len(updates) == 4
    sizes = sorted(8.0 * parameter.numel() for parameter in module.parameters())
    assert sorted(graph.op_parameter_bytes[updates]) == [2 * size + 4 for size in sizes]  # mean, square and step
    assert graph.op_parameter_bytes.sum() == sum(3 * size + 4 for size in sizes)
    weight = graph.op_names.index(next(name for name in graph.op_names if name.startswith("2.weight.adam")))
    forward = 2
    assert graph.op_colocation[weight] == graph.op_colocation[forward] >= 0
    assert sum(name.startswith("2.") and kinds[i] == "mm" for i, name in enumerate(graph.op_names)) == 2


def test_backward_costs_twice_the_forward_pass() -> None:
    """Of a matrix product whose input has a gradient: two of its size."""
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    graph = capture_training(module, (torch.zeros(4, 8),))
    backward = graph.op_is_backward
    assert graph.op_flops[~backward].sum() == 2 * 2 * 4 * 8 * 8
    assert graph.op_flops[backward].sum() == 3 * 2 * 4 * 8 * 8  # the input itself has no gradient


def test_large_models_are_captured_without_weights() -> None:
    """On the meta device: a layer of 7 billion parameters' model, as many bytes of state as Adam has."""
    with torch.device("meta"):
        module, inputs = llama(n_layers=1)
    graph = capture_training(module, inputs, optimizer="adamw")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert graph.op_parameter_bytes.sum() == pytest.approx(12 * parameters, rel=1e-6)
    assert any(name.startswith("blocks.0.down.mm") for name in np.array(graph.op_names)[graph.op_is_backward])


LINEAR = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("module", "options", "error", "said"),
    [
        (LINEAR, {"optimizer": "lion"}, InvalidOption, "unknown optimizer 'lion'; known: adam, adamw"),
        (nn.Linear(2, 2).requires_grad_(False), {}, CaptureError, "expected a scalar tensor that depends on a param"),
        (nn.Embedding(2, 2), {}, CaptureError, "Embedding cannot be exported at .*indices"),
        (LINEAR, {"loss": lambda y: y}, CaptureError, "the loss is .*; expected a scalar"),
        (LINEAR, {"loss": lambda y: y.wrong}, CaptureError, "Linear cannot be differentiated at .*test_capture"),
        (nn.Sequential(LINEAR, nn.RReLU()), {}, CaptureError, "Sequential draws random numbers in training"),
    ],
)
def test_what_cannot_be_trained_is_named(
    module: nn.Module, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    """One error that says what is wrong."""
    with pytest.raises(error, match=said):
        capture_training(module, (torch.zeros(1, 2),), **options)


def test_dropout_is_off() -> None:
    """An op graph draws no random numbers: the step is that of the module without dropout."""
    module, inputs = _built(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Dropout1d(0.5), nn.Linear(8, 3)), 5, 6
    )
    graph = captured("sgd", module, inputs)
    results = run_graph(graph, training_values(graph, module, inputs))
    torch.testing.assert_close(results["loss"], module.eval()(*inputs).mean().detach(), rtol=1e-10, atol=1e-10)
