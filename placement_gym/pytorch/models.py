"""Models in plain torch.nn to capture: each function returns (module, example inputs) and sizes are arguments."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name everyone uses)

Built = tuple[nn.Module, tuple[Tensor, ...]]


class SelfAttention(nn.Module):
    """Self-attention of `heads` heads over [batch, tokens, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] -> [batch, tokens, width]."""
        batch, tokens, width = x.shape
        q, k, v = (
            part(x).view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class DenseExperts(nn.Module):
    """A soft mixture of experts: every expert sees every token, a gate weighs them (Jacobs et al., 1991)."""

    def __init__(self, width: int, hidden: int, n_experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, n_experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(n_experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] -> [batch, tokens, width]."""
        weight = self.gate(x).softmax(dim=-1)
        return torch.stack([weight[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts)]).sum(dim=0)


class ExpertBlock(nn.Module):
    """Pre-norm transformer block with dense experts of unlike widths."""

    def __init__(self, width: int, heads: int, hidden: int, n_experts: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_experts = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.experts = DenseExperts(width, hidden, n_experts)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] -> [batch, tokens, width]."""
        x = x + self.attention(self.norm_attention(x))
        out: Tensor = x + self.experts(self.norm_experts(x))
        return out


class LanguageModel(nn.Module):
    """Embedding, blocks, norm and head."""

    def __init__(self, vocabulary: int, width: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, tokens] -> [batch, tokens, vocabulary]."""
        out: Tensor = self.head(self.norm(self.blocks(self.embedding(tokens))))
        return out


def mixture_of_experts(
    n_layers: int = 4, n_experts: int = 6, width: int = 1024, hidden: int = 4096, tokens: int = 512, batch: int = 4
) -> Built:
    """A transformer with dense experts: branches that one device must run one after the other."""
    blocks: list[nn.Module] = [ExpertBlock(width, 16, hidden, n_experts) for _ in range(n_layers)]
    return LanguageModel(8192, width, blocks), (torch.zeros(batch, tokens, dtype=torch.int64),)


class LlamaBlock(nn.Module):
    """Pre-norm block with a gated feed-forward net (Touvron et al., 2023), without rotary embedding."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = SelfAttention(width, heads)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] -> [batch, tokens, width]."""
        x = x + self.attention(self.norm_attention(x))
        y = self.norm_feed(x)
        out: Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return out


def llama(
    n_layers: int = 32, width: int = 4096, hidden: int = 11008, heads: int = 32, tokens: int = 2048, batch: int = 1
) -> Built:
    """A Llama-like language model; the defaults are those of 7 billion parameters."""
    blocks: list[nn.Module] = [LlamaBlock(width, heads, hidden) for _ in range(n_layers)]
    return LanguageModel(32000, width, blocks), (torch.zeros(batch, tokens, dtype=torch.int64),)


class InceptionBlock(nn.Module):
    """Four parallel branches of convolutions, joined by channel (Szegedy et al., 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.one = nn.Conv2d(channels, quarter, 1)
        self.three = nn.Sequential(
            nn.Conv2d(channels, quarter, 1), nn.ReLU(), nn.Conv2d(quarter, quarter, 3, padding=1)
        )
        self.five = nn.Sequential(nn.Conv2d(channels, quarter, 1), nn.ReLU(), nn.Conv2d(quarter, quarter, 5, padding=2))
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(channels, quarter, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] -> the same shape."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1).relu()


def inception(n_blocks: int = 9, channels: int = 512, size: int = 28, batch: int = 32) -> Built:
    """Inception blocks in a row, with a stem and a classifier."""
    module = nn.Sequential(
        nn.Conv2d(3, channels, 7, stride=2, padding=3), nn.ReLU(),
        *(InceptionBlock(channels) for _ in range(n_blocks)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000),
    )  # fmt: skip
    return module, (torch.zeros(batch, 3, 2 * size, 2 * size),)
