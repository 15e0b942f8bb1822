"""Language models of transformers: captured from a configuration, run op by op."""

import copy
import sys
from collections.abc import Mapping

import pytest
import torch
from sequential import run_graph
from torch import Tensor, nn

from placement_gym.errors import InvalidOption, MissingDependency
from placement_gym.pytorch.capture import module_values
from placement_gym.pytorch.hugging_face import capture_hugging_face, hugging_face
from placement_gym.pytorch.training import capture_training, training_values

SMALL: dict[str, Mapping[str, int]] = {
    "gpt2": {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 50},
    "bert": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50,
    },
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 50},
    "llama": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 32, "vocab_size": 50,
    },
}  # fmt: skip


def _small(model: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """With weights and tokens that depend on nothing else."""
    pytest.importorskip("transformers", reason="the optional package transformers is not installed")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module, inputs = hugging_face(model, config=SMALL[model], batch=2, tokens=6)
        return module, tuple(torch.randint(50, x.shape) for x in inputs)


@pytest.mark.parametrize("model", ["gpt2", *(pytest.param(m, marks=pytest.mark.slow) for m in ("bert", "llama", "t5"))])
def test_model_run_op_by_op_equals_the_module(model: str) -> None:
    """And the graph captured without weights is the same graph."""
    module, inputs = _small(model)
    graph = capture_hugging_face(model, config=SMALL[model], batch=2, tokens=6)
    with torch.no_grad():
        expected = module.eval()(*inputs)
    results = run_graph(graph, module_values(module, inputs))
    torch.testing.assert_close(results["output0"], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_training_step_equals_that_of_torch() -> None:
    """One step of AdamW on a small GPT-2 whose head and embedding are one tensor, dropout off."""
    module, inputs = _small("gpt2")
    module.double()
    graph = capture_training(module, inputs, optimizer="adamw", learning_rate=0.01)
    results = run_graph(graph, training_values(graph, module, inputs))
    plain = copy.deepcopy(module).eval()  # dropout off
    loss = plain(*inputs).mean()
    loss.backward()
    torch.optim.AdamW(plain.parameters(), 0.01, weight_decay=0.0).step()
    torch.testing.assert_close(results["loss"], loss.detach(), rtol=1e-10, atol=1e-10)
    new = {name: value for name, value in results.items() if name in plain.state_dict() and value.dim() == 2}
    assert len(new) == 6  # tokens, positions and the four matrices of a layer
    for name, value in new.items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_full_size_is_captured_without_weights() -> None:
    """A layer of Llama's default configuration, which has 7 billion parameters in 32 of them."""
    pytest.importorskip("transformers", reason="the optional package transformers is not installed")
    graph = capture_hugging_face("llama", config={"num_hidden_layers": 1}, tokens=64, optimizer="adamw")
    assert graph.op_parameter_bytes.sum() == pytest.approx(12 * 464_531_456, rel=1e-6)
    forward = graph.op_flops[~graph.op_is_backward].sum()
    assert 1.9 * forward < graph.op_flops[graph.op_is_backward].sum() <= 2 * forward


def test_unknown_models_and_settings_are_named() -> None:
    """The known ones are listed."""
    pytest.importorskip("transformers", reason="the optional package transformers is not installed")
    with pytest.raises(InvalidOption, match=r"unknown language model of transformers 'gtp2'; known: .*gpt2"):
        hugging_face("gtp2")
    with pytest.raises(InvalidOption, match=r"unknown setting of gpt2 'layers'; known: .*n_layer"):
        hugging_face("gpt2", config={"layers": 2})


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to install it."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"needs the package transformers: pip install .*\[transformers\]"):
        capture_hugging_face("gpt2")
