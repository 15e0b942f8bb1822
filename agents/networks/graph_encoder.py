"""GraphEncoder: embeddings of ops by message passing along and against the edges of the op graph."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing


class GraphLayer(MessagePassing):  # type: ignore[misc]
    """One round of messages along the edges and against them, with edge features; the input is added to the result.

    h_v' = h_v + relu(norm(W h_v + mean_{u->v} relu(A h_u + a e_uv) + mean_{v->w} relu(B h_w + b e_vw)))

    Mean aggregation as in GraphSAGE (Hamilton et al., 2017, eq. in section 3.1), edge features as in GINE (Hu et
    al., 2020, section 5), with separate weights for an op's inputs and for its readers.
    """

    def __init__(self, width: int, edge_width: int) -> None:
        super().__init__(aggr="mean")
        self.own = nn.Linear(width, width)
        self.from_inputs = nn.Linear(width + edge_width, width)
        self.from_readers = nn.Linear(width + edge_width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        """The ops' features after this round, float32 [n_ops, width].

        Args:
            h: float32 [n_ops, width], before this round.
            edge_index: int64 [2, n_edges], from and to.
            edge_features: float32 [n_edges, edge_width].
        """
        down = self.propagate(edge_index, h=h, edge=edge_features, layer=self.from_inputs, size=None)
        up = self.propagate(edge_index.flip(0), h=h, edge=edge_features, layer=self.from_readers, size=None)
        out: Tensor = h + self.norm(self.own(h) + down + up).relu()
        return out

    def message(self, h_j: Tensor, edge: Tensor, layer: nn.Module) -> Tensor:
        """float32 [n_edges, width]: what each edge brings, from the features `h_j` of the op that it comes from."""
        out: Tensor = layer(torch.cat([h_j, edge], dim=-1)).relu()
        return out


class GraphEncoder(nn.Module):
    """Computes an embedding of each op from the features of ops and edges.

    Args:
        n_features: Columns of the op features.
        n_edge_features: Columns of the edge features.
        width: Width of embeddings.
        n_layers: Rounds of message passing.
    """

    def __init__(self, n_features: int, n_edge_features: int, *, width: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.layers = nn.ModuleList(GraphLayer(width, n_edge_features) for _ in range(n_layers))

    def forward(self, op_features: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        """Embeddings, float32 [n_ops, width].

        Args:
            op_features: float32 [n_ops, n_features].
            edge_index: int64 [2, n_edges], from and to.
            edge_features: float32 [n_edges, n_edge_features].
        """
        h: Tensor = self.embed(op_features)
        for layer in self.layers:
            h = layer(h, edge_index, edge_features)
        return h
