"""Llama-7B (Touvron et al., 2023): one block of it, alone or with the head."""

from placement_gym.programs import ProgramBuilder, TensorProgram
from placement_gym.workloads.models.layers import (
    Attention,
    Tensor,
    add,
    attention,
    check_sizes,
    finished,
    gated_feed_forward,
    linear,
    rms_norm,
)


def _llama(p: ProgramBuilder, sizes: tuple[int, int, int], n_heads: int, ffn: int) -> Tensor:
    """One block; sizes are sequences, tokens and width."""
    _, tokens, width = sizes
    x = p.input("x", sizes)
    mask = p.input("mask", [tokens, tokens])
    half = max(width // n_heads // 2, 1)
    rotary = p.input("cos", [tokens, half]), p.input("sin", [tokens, half])
    form = Attention(n_heads, added=((mask, "qk"),), rotary=rotary)
    y = rms_norm(p, "attention_norm", x)
    x = add(p, x, attention(p, "attention", y, y, form), "attention_residual")
    return add(p, x, gated_feed_forward(p, "ffn", rms_norm(p, "ffn_norm", x), ffn), "ffn_residual")


def llama_block(
    *,
    batch: int = 1,
    tokens: int = 4096,
    width: int = 4096,
    n_heads: int = 32,
    ffn: int = 11008,
    training: bool = False,
) -> TensorProgram:
    """One block of Llama-7B (Touvron et al., 2023): attention and SwiGLU, each behind an RMSNorm and a residual.

    Inputs: x [batch, tokens, width]; mask [tokens, tokens], added to the scores (0, or a large negative number where a
    query, the row, must not see a key); cos and sin [tokens, half a head].

    Args:
        batch: Sequences.
        tokens: Tokens of a sequence.
        width: Features of a token.
        n_heads: Heads, of even size.
        ffn: Hidden features.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1, or heads that do not fit the width.
    """
    check_sizes("llama_block", batch=batch, tokens=tokens, width=width, n_heads=n_heads, ffn=ffn)
    p = ProgramBuilder("llama_block")
    return finished(p, _llama(p, (batch, tokens, width), n_heads, ffn), with_training=training)


def llama_layer(
    *,
    batch: int = 1,
    tokens: int = 4096,
    width: int = 4096,
    n_heads: int = 32,
    ffn: int = 11008,
    vocabulary: int = 32000,
    training: bool = False,
) -> TensorProgram:
    """A block of Llama-7B (`llama_block`), the final norm and the scores of the token after the last.

    Args:
        batch: Sequences.
        tokens: Tokens of a sequence.
        width: Features of a token.
        n_heads: Heads, of even size.
        ffn: Hidden features.
        vocabulary: Tokens that there are.
        training: Whether the backward pass is there too.

    Raises:
        InvalidOption: A size below 1, or heads that do not fit the width.
    """
    sizes = {"batch": batch, "tokens": tokens, "width": width, "n_heads": n_heads, "ffn": ffn}
    check_sizes("llama_layer", **sizes, vocabulary=vocabulary)
    p = ProgramBuilder("llama_layer")
    x = rms_norm(p, "final_norm", _llama(p, (batch, tokens, width), n_heads, ffn))
    last = p.op("select", "bsw->bw", x, whole="s", options={"axis": 1, "index": tokens - 1}, name="last_token")
    return finished(p, linear(p, "head", last, "bw,wv->bv", {"v": vocabulary}), with_training=training)
