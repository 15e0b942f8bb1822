"""PlacementEncoder: embeddings of ops that know where the ops before were placed (Placeto)."""

import torch
from torch import Tensor, nn


def mean_over(rows: Tensor, columns: Tensor, n: int) -> Tensor:
    """Sparse [n, n]: row i takes the mean over the columns that are paired with it; int64 [n_pairs] both."""
    weight = 1.0 / torch.bincount(rows, minlength=n).clamp(min=1)[rows]
    return torch.sparse_coo_tensor(torch.stack([rows, columns]), weight, (n, n), check_invariants=True).coalesce()


def reachable(edge_index: Tensor, n: int) -> Tensor:
    """Bool [n, n]: whether there is a way from op i (row) to op j along int64 [2, n_edges]; not from i to itself."""
    reach = torch.zeros(n, n, dtype=torch.bool)
    readers: list[list[int]] = [[] for _ in range(n)]
    missing = [0] * n
    for a, b in edge_index.t().tolist():
        readers[b].append(a)
        missing[a] += 1
    done = [op for op in range(n) if missing[op] == 0]
    for op in done:
        for source in readers[op]:
            reach[source] |= reach[op]
            reach[source, op] = True
            missing[source] -= 1
            if missing[source] == 0:
                done.append(source)
    return reach


class PlacementEncoder(nn.Module):
    """Message passing with the placement so far among the op features, and pools around the current op.

    x_v = W f_v + placed[device of v, or none] + current (if v is placed now);
    h_v' = x_v + relu(U [mean_{u->v} relu(A h_u), mean_{v->w} relu(B h_w)]), the same weights in every round. What is
    said of the current op is [h_v, mean of h over what v waits for, over what waits for v, over the others], as in
    Placeto (Addanki et al., 2019, section 3.2, with means for sums and messages in rounds for full sweeps).

    Args:
        op_features: [n_ops, n_features].
        edge_index: int64 [2, n_edges].
        n_devices: Devices, numbered.
        width: Width of embeddings.
        n_rounds: Rounds of messages.
    """

    op_features: Tensor
    from_inputs: Tensor
    from_readers: Tensor
    reach: Tensor

    def __init__(self, op_features: Tensor, edge_index: Tensor, n_devices: int, *, width: int, n_rounds: int) -> None:
        super().__init__()
        n, n_features = op_features.shape
        self.n_rounds = n_rounds
        self.embed = nn.Linear(n_features, width)
        self.placed = nn.Embedding(n_devices + 1, width)
        self.current = nn.Parameter(torch.randn(width))
        self.message = nn.Linear(width, 2 * width)
        self.update = nn.Linear(2 * width, width)
        source, reader = edge_index.cpu()
        self.register_buffer("op_features", op_features.cpu(), persistent=False)
        self.register_buffer("from_inputs", mean_over(reader, source, n), persistent=False)
        self.register_buffer("from_readers", mean_over(source, reader, n), persistent=False)
        self.register_buffer("reach", reachable(edge_index.cpu(), n), persistent=False)

    def forward(self, op: int, placed: Tensor) -> Tensor:
        """What is said of the current op.

        Args:
            op: The current op.
            placed: int64 [n_ops, B], 0 for an op not placed yet, else device + 1.

        Returns:
            [B, 4 * width].
        """
        n, b = placed.shape
        x = self.embed(self.op_features).unsqueeze(1) + self.placed(placed)
        x = torch.cat([x[:op], x[op : op + 1] + self.current, x[op + 1 :]])
        h = x
        for _ in range(self.n_rounds):
            message = self.message(h).relu()
            down, up = message.chunk(2, dim=-1)
            parts = [
                torch.sparse.mm(over, part.reshape(n, -1)).view(n, b, -1)
                for over, part in ((self.from_inputs, down), (self.from_readers, up))
            ]
            h = x + self.update(torch.cat(parts, dim=-1)).relu()
        before, after = self.reach[:, op], self.reach[op]
        others = ~(before | after)
        others[op] = False
        weight = torch.stack([before, after, others]).to(h.dtype)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
        pools = (weight @ h.reshape(n, -1)).view(3, b, -1)
        return torch.cat([h[op], *pools], dim=-1)
