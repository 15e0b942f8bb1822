"""SegmentEncoder: embeddings of ops by max-pooling over neighbours, then attention along the order of placing (GDP)."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing


class MaxPoolLayer(MessagePassing):  # type: ignore[misc]
    """h_v' = h_v + relu(norm(W [h_v, max over neighbours u of relu(A h_u)])), GraphSAGE's pooling.

    Hamilton et al., 2017, eq. 3, with edges taken both ways; what has no neighbour takes 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__(aggr="max")
        self.pooled = nn.Linear(width, width)
        self.own = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        """H [n_ops, width], edge_index int64 [2, n_edges] -> [n_ops, width]."""
        both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        around = self.propagate(both, h=self.pooled(h).relu(), size=None)
        out: Tensor = h + self.norm(self.own(torch.cat([h, around], dim=-1))).relu()
        return out

    def message(self, h_j: Tensor) -> Tensor:
        """[n_edges, width]."""
        return h_j


class SegmentAttention(nn.Module):
    """One layer of a transformer over a sequence in segments: each attends to itself and to the segment before.

    Attention and memory of one segment are those of Transformer-XL (Dai et al., 2019, section 3.2), but gradients
    pass into the memory. Cost is linear in the length.

    Args:
        width: Width of embeddings.
        n_heads: Heads; divides the width.
        segment: Length of a segment.
    """

    def __init__(self, width: int, n_heads: int, segment: int) -> None:
        super().__init__()
        self.n_heads, self.segment = n_heads, segment
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (nn.Linear(width, k * width) for k in (1, 2, 1))
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        """[length, width] -> [length, width]."""
        n, width = h.shape
        s = min(self.segment, n)
        n_segments = -(-n // s)
        padded = nn.functional.pad(self.before(h), (0, 0, 0, n_segments * s - n)).view(n_segments, s, width)
        there = (torch.arange(n_segments * s, device=h.device) < n).view(n_segments, s)
        last = torch.cat([torch.zeros_like(padded[:1]), padded[:-1]])
        last_there = torch.cat([torch.zeros_like(there[:1]), there[:-1]])

        def heads(x: Tensor) -> Tensor:
            return x.view(n_segments, -1, self.n_heads, width // self.n_heads).transpose(1, 2)

        key, value = self.key_value(torch.cat([last, padded], dim=1)).chunk(2, dim=-1)
        mask = torch.cat([last_there, there], dim=1)[:, None, None, :]
        seen = nn.functional.scaled_dot_product_attention(
            heads(self.query(padded)), heads(key), heads(value), attn_mask=mask
        )
        h = h + self.out(seen.transpose(1, 2).reshape(n_segments * s, width)[:n])
        out: Tensor = h + self.inner(self.between(h))
        return out


def positions(n: int, n_waves: int, device: torch.device) -> Tensor:
    """[n, 2 * n_waves]: sines and cosines of the position, with periods 2, 4, 8, ..."""
    period = 2.0 ** torch.arange(1, n_waves + 1, device=device)
    # Half a step off, for the sine of period 2 is 0 at all whole numbers.
    angle = 2 * torch.pi * (torch.arange(n, device=device).unsqueeze(1) + 0.25) / period
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class SegmentEncoder(nn.Module):
    """Op features -> op embeddings.

    Args:
        n_features: Columns of the op features.
        width: Width of embeddings.
        n_layers: Layers of max-pooling over neighbours.
        n_heads: Heads of attention; divides the width.
        segment: Ops per segment.
        n_waves: Waves of the position in the order.
    """

    def __init__(
        self, n_features: int, *, width: int, n_layers: int, n_heads: int, segment: int, n_waves: int = 8
    ) -> None:
        super().__init__()
        self.n_waves = n_waves
        self.embed = nn.Linear(n_features, width)
        self.layers = nn.ModuleList(MaxPoolLayer(width) for _ in range(n_layers))
        self.place = nn.Linear(2 * n_waves, width)
        self.attention = SegmentAttention(width, n_heads, segment)

    def forward(self, op_features: Tensor, edge_index: Tensor, order: Tensor) -> Tensor:
        """[n_ops, n_features], int64 [2, n_edges], int64 [n_ops] (ops in their order) -> [n_ops, width]."""
        h: Tensor = self.embed(op_features)
        for layer in self.layers:
            h = layer(h, edge_index)
        sequence = self.attention(h[order] + self.place(positions(len(order), self.n_waves, h.device)))
        return torch.empty_like(sequence).index_copy(0, order, sequence)
