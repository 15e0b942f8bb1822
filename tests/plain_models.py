"""The models of the workloads in plain torch, from torch's own layers; they know nothing of programs."""

from collections.abc import Callable, Mapping
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Values = Mapping[str, Tensor]


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
