"""Models against torch's own layers, in double precision; published parameter counts; repetition and speed."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from models import TINY, tiny
from plain_models import PLAIN
from torch import Tensor
from torch.testing import assert_close

import placement_gym as pg
from placement_gym.errors import InvalidOption
from placement_gym.programs import TensorOp, TensorProgram, training
from placement_gym.pytorch.programs import random_sources, run_program


def _causal(tokens: int) -> Tensor:
    return torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)


def _values(program: TensorProgram) -> dict[str, Tensor]:
    """Random tensors; a mask is causal, angles are those of rotary embeddings."""
    v = random_sources(program.named_sources, seed=2)
    for name, value in v.items():
        if name.endswith("mask"):
            v[name] = _causal(len(value))
    if "cos" in v:
        tokens, half = v["cos"].shape
        angle = torch.outer(torch.arange(tokens).double(), 10000.0 ** (-torch.arange(half) / half))
        v["cos"], v["sin"] = angle.cos(), angle.sin()
    return v


@pytest.mark.parametrize("model", TINY)
def test_a_model_computes_what_torchs_own_layers_do(model: str) -> None:
    """Every output equals a plain implementation with torch's softmax, attention, norms and convolutions."""
    program = tiny(model)
    v = _values(program)
    expected = PLAIN[model](v)
    made = list(run_program(program, v).values())
    for one, other in zip(made, expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert_close(one, other, rtol=1e-10, atol=1e-10)
        assert float(one.std()) > 1e-6


@pytest.mark.parametrize("model", ["ffnn", "gpt", "moe", "resnet50"])
def test_a_models_gradients_are_those_of_torchs_own_layers(model: str) -> None:
    """Autograd of the plain implementation, which knows nothing of the program, gives the same gradients."""
    trained = training(tiny(model))
    v = _values(trained)
    leaves = {op.name: v[op.name].clone().requires_grad_(True) for op in trained.ops if op.kind == "parameter"}
    output = PLAIN[model]({**v, **leaves})
    assert isinstance(output, Tensor)
    (cotangent,) = (value for name, value in v.items() if name.startswith("gradient."))
    expected = torch.autograd.grad(output, list(leaves.values()), cotangent)
    made = list(run_program(trained, v).values())[1:]
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for name, one, other in zip(leaves, made, expected, strict=True):
        assert_close(one, other, rtol=1e-8, atol=1e-10 * scale, msg=lambda text, name=name: f"{name}: {text}")


def test_random_weights_keep_the_size_of_activations() -> None:
    """Nineteen layers without a norm neither explode nor vanish."""
    program = pg.workloads.vgg19(batch=2, image=32, width=16, hidden=64)
    (scores,) = run_program(program, random_sources(program.named_sources)).values()
    assert 0.1 < float(scores.std()) < 10


def _n_parameters(program: TensorProgram) -> int:
    return program.parameter_bytes // 4


def test_parameters_are_as_many_as_published() -> None:
    """At default sizes, heads, biases, gains and shifts included."""
    w = pg.workloads
    assert _n_parameters(w.vgg19()) == 143_667_240
    assert _n_parameters(w.resnet50()) == 25_557_032
    assert _n_parameters(w.gpt()) == 124_439_808  # GPT-2 small, whose head is tied
    assert _n_parameters(w.bert()) == 109_482_240  # BERT base with its pooler
    # T5 small has 60,506,624; of them two tables of 32 x 8 position biases, here two of [8, 512, 512].
    assert _n_parameters(w.t5()) == 60_506_624 - 2 * 32 * 8 + 2 * 8 * 512 * 512
    assert _n_parameters(w.llama_block()) == 202_383_360
    assert _n_parameters(w.llama_layer()) == 202_383_360 + 4096 + 4096 * 32000
    assert _n_parameters(w.ffnn()) == 2 * 32 * 65536
    assert _n_parameters(w.chain_mm()) == 0


def test_flops_are_as_many_as_published() -> None:
    """Of products alone: 2 per multiplication; VGG-19 19.6, ResNet-50 4.1 billion multiplications an image."""

    def products(program: TensorProgram) -> float:
        return sum(op.flops for op in program.ops if op.kind == "contraction")

    assert products(pg.workloads.chain_mm()) == 3 * 2 * 10000**3
    assert products(pg.workloads.ffnn()) == 2 * 2 * 32768 * 32 * 65536
    assert products(pg.workloads.vgg19(batch=1)) / 2e9 == pytest.approx(19.63, abs=0.01)
    assert products(pg.workloads.resnet50(batch=1)) / 2e9 == pytest.approx(4.09, abs=0.01)
    tokens, width, ffn = 4096, 4096, 11008
    assert products(pg.workloads.llama_block()) == 2 * tokens * (4 * width**2 + 2 * tokens * width + 3 * width * ffn)


def _layer(program: TensorProgram, scope: str) -> list[TensorOp]:
    """Ops of a scope, named and read relative to it; what is read from outside is -1."""
    numbers = [i for i, op in enumerate(program.ops) if f"{scope}." in op.name]
    place = {number: k for k, number in enumerate(numbers)}
    return [
        replace(
            program.ops[i],
            name=program.ops[i].name.replace(scope, "layer"),
            inputs=tuple(place.get(source, -1) for source in program.ops[i].inputs),
        )
        for i in numbers
    ]


@pytest.mark.parametrize("with_training", [False, True])
def test_layers_repeat(with_training: bool) -> None:
    """All layers of a stack are the same ops with the same names; the last one's result has other readers."""
    w = pg.workloads
    for program, scopes in [
        (w.gpt(4, training=with_training), [f"layer{k}" for k in range(4)]),
        (w.bert(4, training=with_training), [f"layer{k}" for k in range(4)]),
        (w.moe(4, training=with_training), [f"layer{k}" for k in range(4)]),
        (w.t5(4, training=with_training), [f"encoder.layer{k}" for k in range(4)]),
        (w.t5(4, training=with_training), [f"decoder.layer{k}" for k in range(4)]),
        (w.resnet50(training=with_training), [f"stage2.block{k}" for k in range(1, 6)]),
    ]:
        layers = [_layer(program, scope) for scope in scopes]
        if with_training:
            # The parts of the gradient of a layer's result, which are added there, come from its readers.
            layers.pop()
        assert len(layers[0]) > 10
        assert all(layer == layers[0] for layer in layers), (program.name, scopes[0])


@pytest.mark.parametrize("model", ["gpt", "bert", "t5", "moe"])
def test_ops_grow_linearly_with_layers(model: str) -> None:
    """One more layer adds as many ops as the one before, with the backward pass too."""
    build = getattr(pg.workloads, model)
    for with_training in (False, True):
        counts = [len(build(n, training=with_training).ops) for n in (2, 3, 4)]
        assert counts[2] - counts[1] == counts[1] - counts[0] > 30


def test_a_deep_model_is_built_within_a_second() -> None:
    """GPT of 96 layers at its default width: building computes nothing (time of this process alone, best of three)."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        program = pg.workloads.gpt(n_layers=96)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1
    assert len([op for op in program.ops if op.name.endswith(".attention.scores")]) == 96


def test_training_is_the_programs_backward_pass() -> None:
    """`training=True` is `programs.training` of the forward program: one gradient per parameter, of its shape."""
    for model in TINY:
        if model == "chain_mm":
            continue
        forward = getattr(pg.workloads, model)()
        trained = getattr(pg.workloads, model)(training=True)
        assert trained.ops == training(forward).ops
        parameters = [op for op in forward.ops if op.kind == "parameter"]
        gradients = trained.outputs[len(forward.outputs) :]
        assert [trained.ops[i].shape for i in gradients] == [op.shape for op in parameters]


@pytest.mark.parametrize("model", ["vgg19", "resnet50"])
def test_rows_and_columns_are_never_split(model: str) -> None:
    """In forward and backward ops alike, the last two labels of images and kernels are whole."""
    ops = [op for op in training(tiny(model)).ops if not op.is_source]
    images = [labels for op in ops for labels in (*op.input_labels, op.labels) if len(labels) == 4]
    assert len(images) > 100
    for op in ops:
        for labels in (*op.input_labels, op.labels):
            assert len(labels) < 4 or set(labels[2:]) <= op.whole, op.name


def test_the_halves_of_a_rotated_head_are_never_split() -> None:
    """Wherever queries and keys have a label for the two halves, it is whole."""
    ops = [op for op in pg.workloads.llama_block(training=True).ops if "r" in op.all_labels]
    assert len(ops) > 10
    assert all("r" in op.whole for op in ops)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pg.workloads.chain_mm(size=0), "chain_mm: size is 0; expected at least 1"),
        (lambda: pg.workloads.ffnn(hidden=-1), "ffnn: hidden is -1; expected at least 1"),
        (lambda: pg.workloads.gpt(0), "gpt: n_layers is 0; expected at least 1"),
        (lambda: pg.workloads.moe(n_experts=0), "moe: n_experts is 0; expected at least 1"),
        (lambda: pg.workloads.gpt(width=10, n_heads=4), "gpt: width is 10; expected a multiple of 4 with 4 heads"),
        (lambda: pg.workloads.llama_block(width=12, n_heads=4), "llama_block: width is 12; expected a multiple of 8 "),
        (lambda: pg.workloads.vgg19(image=31), "vgg19: image is 31; expected at least 32"),
        (lambda: pg.workloads.resnet50(image=0), "resnet50: image is 0; expected at least 1"),
    ],
)
def test_impossible_sizes_are_said(build: Callable[[], TensorProgram], message: str) -> None:
    """Model, size, what was got and what was expected."""
    with pytest.raises(InvalidOption, match=message):
        build()
