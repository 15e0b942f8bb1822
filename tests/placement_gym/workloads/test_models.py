"""Models against torch's own layers, in double precision; published parameter counts; repetition and speed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import sqrt

import pytest
import torch
from models import TINY, tiny
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.testing import assert_close

import placement_gym as pg
from placement_gym.errors import InvalidOption
from placement_gym.programs import TensorOp, TensorProgram, training
from placement_gym.pytorch.programs import program_sources, random_sources, run_program

Values = Mapping[str, Tensor]


def _causal(tokens: int) -> Tensor:
    return torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)


def _part(v: Values, scope: str) -> dict[str, Tensor]:
    """Values of a scope, by what is left of their names."""
    return {name.removeprefix(f"{scope}."): value for name, value in v.items() if name.startswith(f"{scope}.")}


def _rms(v: Values, scope: str, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], v[f"{scope}.gain"], 1e-6)


def _norm(v: Values, scope: str, x: Tensor, epsilon: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], v[f"{scope}.gain"], v[f"{scope}.shift"], epsilon)


def _attention(
    v: Values,
    x: Tensor,
    memory: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    turn: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Heads by `F.linear`, with weights and biases flattened, and `scaled_dot_product_attention`."""
    n_heads = v["value.weight"].shape[1]

    def heads(name: str, y: Tensor) -> Tensor:
        bias = v[f"{name}.bias"].flatten() if f"{name}.bias" in v else None
        made = F.linear(y, v[f"{name}.weight"].flatten(1).T, bias)
        return made.unflatten(-1, (n_heads, -1)).transpose(1, 2)

    query, key = turn(heads("query", x)), turn(heads("key", memory))
    mixed = F.scaled_dot_product_attention(query, key, heads("value", memory), attn_mask=mask, scale=scale)
    return F.linear(mixed.transpose(1, 2).flatten(2), v["output.weight"].flatten(0, 1).T, v.get("output.bias"))


def _feed_forward(v: Values, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    hidden = function(F.linear(x, v["up.weight"].T, v.get("up.bias")))
    return F.linear(hidden, v["down.weight"].T, v.get("down.bias"))


def _chain_mm(v: Values) -> Tensor:
    return v["A"] @ v["B"] + torch.linalg.multi_dot([v["C"], v["D"], v["E"]])


def _ffnn(v: Values) -> Tensor:
    return F.softmax(F.relu(v["X"] @ v["W1"]) @ v["W2"], -1)


def _llama_block(v: Values) -> Tensor:
    def turn(x: Tensor) -> Tensor:
        """The two halves of a head, turned by doubled angles as in "rotate half"."""
        first, second = x.chunk(2, -1)
        cos, sin = v["cos"].repeat(1, 2), v["sin"].repeat(1, 2)
        return x * cos + torch.cat([-second, first], -1) * sin

    x = v["x"]
    y = _rms(v, "attention_norm", x)
    x = x + _attention(_part(v, "attention"), y, y, mask=v["mask"], turn=turn)
    ffn, y = _part(v, "ffn"), _rms(v, "ffn_norm", x)
    return x + (F.silu(y @ ffn["gate.weight"]) * (y @ ffn["up.weight"])) @ ffn["down.weight"]


def _llama_layer(v: Values) -> Tensor:
    return _rms(v, "final_norm", _llama_block(v)[:, -1]) @ v["head.weight"]


def _gpt(v: Values) -> Tensor:
    x = F.embedding(v["tokens"], v["tokens.table"]) + v["positions"]
    for layer in (_part(v, f"layer{k}") for k in range(2)):
        y = _norm(layer, "attention_norm", x)
        x = x + _attention(_part(layer, "attention"), y, y, mask=v["mask"])
        x = x + _feed_forward(_part(layer, "ffn"), _norm(layer, "ffn_norm", x), F.gelu)
    return F.linear(_norm(v, "final_norm", x), v["tokens.table"])


def _bert(v: Values) -> tuple[Tensor, Tensor]:
    x = F.embedding(v["tokens"], v["tokens.table"]) + F.embedding(v["segments"], v["segments.table"])
    x = _norm(v, "embedding_norm", x + v["positions"], 1e-12)
    for layer in (_part(v, f"layer{k}") for k in range(2)):
        x = _norm(layer, "attention_norm", x + _attention(_part(layer, "attention"), x, x), 1e-12)
        x = _norm(layer, "ffn_norm", x + _feed_forward(_part(layer, "ffn"), x, F.gelu), 1e-12)
    return x, torch.tanh(F.linear(x[:, 0], v["pooler.weight"].T, v["pooler.bias"]))


def _t5(v: Values) -> Tensor:
    def stack(v: Values, ids: Tensor, mask: Tensor, memory: Tensor | None) -> Tensor:
        x = F.embedding(ids, table)
        for layer in (_part(v, f"layer{k}") for k in range(2)):
            y = _rms(layer, "attention_norm", x)
            x = x + _attention(_part(layer, "attention"), y, y, mask=v["positions"] + mask, scale=1)
            if memory is not None:
                y = _rms(layer, "cross_norm", x)
                x = x + _attention(_part(layer, "cross_attention"), y, memory, scale=1)
            x = x + _feed_forward(_part(layer, "ffn"), _rms(layer, "ffn_norm", x), F.relu)
        return _rms(v, "final_norm", x)

    table, decoder = v["tokens.table"], _part(v, "decoder")
    memory = stack(_part(v, "encoder"), v["encoder.tokens"], torch.zeros_like(decoder["mask"]), None)
    return stack(decoder, decoder["tokens"], decoder["mask"], memory) @ table.T / sqrt(table.shape[1])


def _soft_moe(v: Values, x: Tensor) -> Tensor:
    """Expert by expert, with slots laid out in one row."""
    _, n_experts, n_slots = v["slots.weight"].shape
    scores = x @ v["slots.weight"].flatten(1)
    slots = F.softmax(scores, 1).mT @ x
    made = []
    for e in range(n_experts):
        own = {name: value[e] for name, value in v.items() if name != "slots.weight"}
        hidden = F.gelu(slots[:, e * n_slots : (e + 1) * n_slots] @ own["up.weight"] + own["up.bias"])
        made.append(hidden @ own["down.weight"] + own["down.bias"])
    return F.softmax(scores, 2) @ torch.cat(made, 1)


def _moe(v: Values) -> Tensor:
    x = F.linear(v["patches"], v["embedding.weight"].T, v["embedding.bias"]) + v["positions"]
    for layer in (_part(v, f"layer{k}") for k in range(2)):
        y = _norm(layer, "attention_norm", x)
        x = x + _attention(_part(layer, "attention"), y, y)
        x = x + _soft_moe(_part(layer, "moe"), _norm(layer, "moe_norm", x))
    return _norm(v, "final_norm", x)


def _vgg19(v: Values) -> Tensor:
    x = v["images"]
    for stage, n_convolutions in enumerate((2, 2, 4, 4, 4)):
        for k in range(n_convolutions):
            layer = _part(v, f"stage{stage}.layer{k}")
            x = F.relu(F.conv2d(x, layer["weight"], layer["bias"], padding=1))
        x = F.max_pool2d(x, 2)
    x = F.relu(F.linear(x.flatten(1), v["hidden0.weight"].flatten(1), v["hidden0.bias"]))
    x = F.relu(F.linear(x, v["hidden1.weight"].T, v["hidden1.bias"]))
    return F.linear(x, v["head.weight"].T, v["head.bias"])


def _resnet50(v: Values) -> Tensor:
    def convolved(v: Values, x: Tensor, stride: int = 1) -> Tensor:
        x = F.conv2d(x, v["weight"], stride=stride, padding=v["weight"].shape[-1] // 2)
        return F.batch_norm(x, None, None, v["norm.gain"], v["norm.shift"], training=True)

    x = F.max_pool2d(F.relu(convolved(_part(v, "stem"), v["images"], 2)), 3, stride=2, padding=1)
    for stage, n_blocks in enumerate((3, 4, 6, 3)):
        for k in range(n_blocks):
            block, stride = _part(v, f"stage{stage}.block{k}"), 2 if stage and not k else 1
            y = F.relu(convolved(_part(block, "reduce"), x))
            y = F.relu(convolved(_part(block, "filter"), y, stride))
            y = convolved(_part(block, "restore"), y)
            x = F.relu(y + (x if k else convolved(_part(block, "shortcut"), x, stride)))
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return F.linear(x, v["head.weight"].T, v["head.bias"])


PLAIN: dict[str, Callable[[Values], Tensor | tuple[Tensor, ...]]] = {
    "chain_mm": _chain_mm,
    "ffnn": _ffnn,
    "llama_block": _llama_block,
    "llama_layer": _llama_layer,
    "gpt": _gpt,
    "bert": _bert,
    "t5": _t5,
    "moe": _moe,
    "vgg19": _vgg19,
    "resnet50": _resnet50,
}


def _values(program: TensorProgram) -> dict[str, Tensor]:
    """Random tensors; a mask is causal, angles are those of rotary embeddings."""
    v = random_sources(program_sources(program), seed=2)
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
    """GPT of 96 layers at its default width: building computes nothing."""
    start = time.perf_counter()
    program = pg.workloads.gpt(n_layers=96)
    assert time.perf_counter() - start < 1
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
