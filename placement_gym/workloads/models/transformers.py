"""Transformers: GPT-2, BERT, T5 and a Soft MoE encoder."""

from math import sqrt

from placement_gym.programs import ProgramBuilder, TensorProgram
from placement_gym.workloads.models.layers import (
    Attention,
    Tensor,
    add,
    attention,
    check_sizes,
    feed_forward,
    finished,
    layer_norm,
    linear,
    rms_norm,
    softmax,
)


def _embedded(p: ProgramBuilder, name: str, table: Tensor, shape: tuple[int, int]) -> Tensor:
    """Rows of a table for ids that are an input."""
    ids = p.input(name, shape, dtype="int64", n_values=p.shape(table)[0])
    return p.op("embedding", "vw,bs->bsw", table, ids, whole="v", name=f"{name}.embedding")


def _with_positions(p: ProgramBuilder, x: Tensor) -> Tensor:
    """A learned vector per position added."""
    return p.op("add", "bsw,sw->bsw", x, p.parameter("positions", p.shape(x)[1:]), name="positions.add")


def gpt(
    n_layers: int = 12,
    *,
    batch: int = 1,
    tokens: int = 1024,
    width: int = 768,
    n_heads: int = 12,
    vocabulary: int = 50257,
    training: bool = False,
) -> TensorProgram:
    """GPT-2 (Radford et al., 2019): scores of every next token; the head is the table of the embedding.

    Inputs: ids [batch, tokens]; mask [tokens, tokens], added to the scores. Hidden features are 4 x width; gelu is the
    exact one.

    Args:
        n_layers: Layers.
        batch: Sequences.
        tokens: Tokens of a sequence.
        width: Features of a token.
        n_heads: Heads.
        vocabulary: Tokens that there are.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1, or heads that do not fit the width.
    """
    sizes = {"batch": batch, "tokens": tokens, "width": width, "n_heads": n_heads, "vocabulary": vocabulary}
    check_sizes("gpt", n_layers=n_layers, **sizes)
    p = ProgramBuilder("gpt")
    table = p.parameter("tokens.table", [vocabulary, width])
    x = _with_positions(p, _embedded(p, "tokens", table, (batch, tokens)))
    form = Attention(n_heads, bias=True, added=((p.input("mask", [tokens, tokens]), "qk"),))
    for layer in range(n_layers):
        with p.scope(f"layer{layer}"):
            y = layer_norm(p, "attention_norm", x)
            x = add(p, x, attention(p, "attention", y, y, form), "attention_residual")
            y = feed_forward(p, "ffn", layer_norm(p, "ffn_norm", x), 4 * width, "gelu", bias=True)
            x = add(p, x, y, "ffn_residual")
    scores = p.op("einsum", "bsw,vw->bsv", layer_norm(p, "final_norm", x), table, name="head")
    return finished(p, scores, with_training=training)


def bert(
    n_layers: int = 12,
    *,
    batch: int = 1,
    tokens: int = 512,
    width: int = 768,
    n_heads: int = 12,
    vocabulary: int = 30522,
    training: bool = False,
) -> TensorProgram:
    """BERT (Devlin et al., 2019): the tokens' features, and the pooled ones of the first token.

    Inputs: ids of tokens and of their segments (0 or 1), [batch, tokens] each. Hidden features are 4 x width.

    Args:
        n_layers: Layers.
        batch: Sequences.
        tokens: Tokens of a sequence.
        width: Features of a token.
        n_heads: Heads.
        vocabulary: Tokens that there are.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1, or heads that do not fit the width.
    """
    sizes = {"batch": batch, "tokens": tokens, "width": width, "n_heads": n_heads, "vocabulary": vocabulary}
    check_sizes("bert", n_layers=n_layers, **sizes)
    p = ProgramBuilder("bert")
    x = _with_positions(p, _embedded(p, "tokens", p.parameter("tokens.table", [vocabulary, width]), (batch, tokens)))
    segments = _embedded(p, "segments", p.parameter("segments.table", [2, width]), (batch, tokens))
    x = layer_norm(p, "embedding_norm", add(p, x, segments, "segments.add"), 1e-12)
    form = Attention(n_heads, bias=True)
    for layer in range(n_layers):
        with p.scope(f"layer{layer}"):
            x = add(p, x, attention(p, "attention", x, x, form), "attention_residual")
            x = layer_norm(p, "attention_norm", x, 1e-12)
            x = add(p, x, feed_forward(p, "ffn", x, 4 * width, "gelu", bias=True), "ffn_residual")
            x = layer_norm(p, "ffn_norm", x, 1e-12)
    first = p.op("select", "bsw->bw", x, whole="s", options={"axis": 1, "index": 0}, name="first_token")
    pooled = p.op("tanh", "bo->bo", linear(p, "pooler", first, "bw,wo->bo", {"o": width}, bias=True), name="pooled")
    return finished(p, x, pooled, with_training=training)


def _t5_stack(p: ProgramBuilder, x: Tensor, n_layers: int, form: Attention, memory: Tensor | None) -> Tensor:
    """Encoder or, with a memory, decoder."""
    width = p.shape(x)[-1]
    cross = Attention(form.n_heads, scaled=False)
    for layer in range(n_layers):
        with p.scope(f"layer{layer}"):
            y = rms_norm(p, "attention_norm", x)
            x = add(p, x, attention(p, "attention", y, y, form), "attention_residual")
            if memory is not None:
                y = rms_norm(p, "cross_norm", x)
                x = add(p, x, attention(p, "cross_attention", y, memory, cross), "cross_residual")
            y = feed_forward(p, "ffn", rms_norm(p, "ffn_norm", x), 4 * width, "relu")
            x = add(p, x, y, "ffn_residual")
    return rms_norm(p, "final_norm", x)


def t5(
    n_layers: int = 6,
    *,
    batch: int = 1,
    tokens: int = 512,
    width: int = 512,
    n_heads: int = 8,
    vocabulary: int = 32128,
    training: bool = False,
) -> TensorProgram:
    """T5 (Raffel et al., 2020): encoder and decoder of n_layers each; scores of every next token of the target.

    Inputs: ids of the source and of the target, [batch, tokens] each; mask [tokens, tokens], added to the decoder's
    scores. Hidden features are 4 x width. Embeddings and head share one table. The relative position bias is a
    parameter [heads, query, key] that the layers of a stack share, without buckets.

    Args:
        n_layers: Layers of the encoder, and of the decoder.
        batch: Sequences.
        tokens: Tokens of source and target.
        width: Features of a token.
        n_heads: Heads.
        vocabulary: Tokens that there are.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1, or heads that do not fit the width.
    """
    sizes = {"batch": batch, "tokens": tokens, "width": width, "n_heads": n_heads, "vocabulary": vocabulary}
    check_sizes("t5", n_layers=n_layers, **sizes)
    p = ProgramBuilder("t5")
    table = p.parameter("tokens.table", [vocabulary, width])
    square = [n_heads, tokens, tokens]
    with p.scope("encoder"):
        form = Attention(n_heads, scaled=False, added=((p.parameter("positions", square), "nqk"),))
        memory = _t5_stack(p, _embedded(p, "tokens", table, (batch, tokens)), n_layers, form, None)
    with p.scope("decoder"):
        # The mask is the same in every layer, so it joins the position bias once.
        bias = p.op("add", "nqk,qk->nqk", p.parameter("positions", square), p.input("mask", square[1:]), name="bias")
        form = Attention(n_heads, scaled=False, added=((bias, "nqk"),))
        x = _t5_stack(p, _embedded(p, "tokens", table, (batch, tokens)), n_layers, form, memory)
    x = p.op("affine", "bsw->bsw", x, options={"factor": 1 / sqrt(width), "shift": 0.0}, name="head.scale")
    return finished(p, p.op("einsum", "bsw,vw->bsv", x, table, name="head"), with_training=training)


def _soft_moe(p: ProgramBuilder, x: Tensor, n_experts: int) -> Tensor:
    """Soft mixture of experts (Puigcerver et al., 2023, section 2.1); e expert, c slot of an expert.

    Each slot is a mean of all tokens (dispatch), each token a mean of all slots' results (combine). There are about as
    many slots as tokens, as in the paper. Without its normalisation of x and of the slots' vectors (section 2.3).
    """
    _, tokens, width = p.shape(x)
    sizes = {"e": n_experts, "c": max(tokens // n_experts, 1)}
    scores = linear(p, "slots", x, "bsw,wec->bsec", sizes)
    with p.scope("dispatch"):
        dispatch = softmax(p, scores, "bsec", "s")
    with p.scope("combine"):
        combine = softmax(p, scores, "bsec", "ec")
    slots = p.op("einsum", "bsw,bsec->becw", x, dispatch, name="dispatched")
    up = linear(p, "up", slots, "becw,ewf->becf", {"f": 4 * width}, bias=True)
    down = linear(p, "down", p.op("gelu", "becf->becf", up), "becf,efw->becw", {"w": width}, bias=True)
    return p.op("einsum", "becw,bsec->bsw", down, combine, name="combined")


def moe(
    n_layers: int = 12,
    n_experts: int = 8,
    *,
    batch: int = 1,
    tokens: int = 196,
    width: int = 768,
    n_heads: int = 12,
    training: bool = False,
) -> TensorProgram:
    """An encoder of image patches whose feed-forward parts are Soft MoEs (Puigcerver et al., 2023; sizes of ViT-B/16).

    Input: patches [batch, tokens, width]. Every layer has experts; hidden features are 4 x width; an expert has
    tokens // n_experts slots, at least one.

    Args:
        n_layers: Layers.
        n_experts: Experts of a layer.
        batch: Images.
        tokens: Patches of an image.
        width: Values of a patch, and features of a token.
        n_heads: Heads.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1, or heads that do not fit the width.
    """
    sizes = {"batch": batch, "tokens": tokens, "width": width, "n_heads": n_heads, "n_experts": n_experts}
    check_sizes("moe", n_layers=n_layers, **sizes)
    p = ProgramBuilder("moe")
    patches = p.input("patches", [batch, tokens, width])
    x = _with_positions(p, linear(p, "embedding", patches, "bsi,iw->bsw", {"w": width}, bias=True))
    form = Attention(n_heads, bias=True)
    for layer in range(n_layers):
        with p.scope(f"layer{layer}"):
            y = layer_norm(p, "attention_norm", x)
            x = add(p, x, attention(p, "attention", y, y, form), "attention_residual")
            y = layer_norm(p, "moe_norm", x)
            with p.scope("moe"):
                y = _soft_moe(p, y, n_experts)
            x = add(p, x, y, "moe_residual")
    return finished(p, layer_norm(p, "final_norm", x), with_training=training)
