"""PlacementEncoder: embeddings of ops that know where the ops before were placed (Placeto)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

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
        # What a step from one op to another changes, as far as followers have asked.
        self.step_plans: dict[tuple[int, int], list[Around]] = {}
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
        x = self.embed(self.op_features).unsqueeze(1) + self.placed(placed)
        x = torch.cat([x[:op], x[op : op + 1] + self.current, x[op + 1 :]])
        return self.context(op, self.rounds(x)[-1])

    def rounds(self, x: Tensor) -> list[Tensor]:
        """Embeddings [n_ops, B, width] after 0, 1, ..., n_rounds rounds of messages."""
        n, b, _ = x.shape
        h = [x]
        for _ in range(self.n_rounds):
            down, up = self.message(h[-1]).relu().chunk(2, dim=-1)
            parts = [
                torch.sparse.mm(over, part.reshape(n, -1)).view(n, b, -1)
                for over, part in ((self.from_inputs, down), (self.from_readers, up))
            ]
            h.append(x + self.update(torch.cat(parts, dim=-1)).relu())
        return h

    def context(self, op: int, h: Tensor) -> Tensor:
        """What is said of an op, [B, 4 * width], by the embeddings [n_ops, B, width] of all."""
        n, b, _ = h.shape
        before, after = self.reach[:, op], self.reach[op]
        others = ~(before | after)
        others[op] = False
        weight = torch.stack([before, after, others]).to(h.dtype)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
        pools = (weight @ h.reshape(n, -1)).view(3, b, -1)
        return torch.cat([h[op], *pools], dim=-1)


@dataclass(frozen=True, slots=True)
class Around:
    """Ops and what they take messages from: (row among the ops, other op, weight of its message) of every pair.

    Attributes:
        ops: int64 [n], the ops.
        inputs: Pairs with inputs.
        readers: Pairs with readers.
    """

    ops: Tensor
    inputs: tuple[Tensor, Tensor, Tensor]
    readers: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def of(cls, encoder: PlacementEncoder, ops: Tensor) -> Self:
        """Of these ops of the encoder's graph."""
        row = torch.full((len(encoder.op_features),), -1, dtype=torch.int64, device=ops.device)
        row[ops] = torch.arange(len(ops), device=ops.device)

        def pairs(over: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            (of, other), weight = over.indices(), over.values()
            here = row[of] >= 0
            return row[of[here]], other[here], weight[here]

        return cls(ops, pairs(encoder.from_inputs), pairs(encoder.from_readers))

    @property
    def reached(self) -> Tensor:
        """int64 [m]: these ops and all that they take messages from, which are those that they give messages to."""
        reached: Tensor = torch.unique(torch.cat([self.ops, self.inputs[1], self.readers[1]]))
        return reached


class PlacementFollower:
    """What the encoder says, step after step of B episodes, without gradients: only what a step changes is computed.

    A step changes two ops: the one that was placed and the one that is placed now; k rounds later, that has reached the
    ops within k edges of them, whose embeddings alone are made anew.

    Args:
        encoder: Whose weights do not change meanwhile.
        n_episodes: B.
    """

    def __init__(self, encoder: PlacementEncoder, n_episodes: int) -> None:
        self.encoder, self.last = encoder, -1
        x = encoder.embed(encoder.op_features).unsqueeze(1) + encoder.placed.weight[0]
        self.h = [h.repeat(1, n_episodes, 1) for h in encoder.rounds(x)]
        self.messages = [encoder.message(h).relu() for h in self.h[:-1]]

    def __call__(self, op: int, placed: Tensor) -> Tensor:
        """As the encoder, of the next op of the episodes."""
        encoder, x = self.encoder, self.h[0]
        if self.last >= 0:
            x[self.last] = encoder.embed(encoder.op_features[self.last]) + encoder.placed(placed[self.last])
        x[op] = encoder.embed(encoder.op_features[op]) + encoder.placed(placed[op]) + encoder.current
        plan = self._plan(op)
        for k, (changed, then) in enumerate(pairwise(plan)):
            self.messages[k][changed.ops] = encoder.message(self.h[k][changed.ops]).relu()
            down, up = self.messages[k].chunk(2, dim=-1)
            parts = []
            for (row, other, weight), part in ((then.inputs, down), (then.readers, up)):
                mean = part.new_zeros(len(then.ops), *part.shape[1:])
                parts.append(mean.index_add_(0, row, part[other] * weight[:, None, None]))
            self.h[k + 1][then.ops] = x[then.ops] + encoder.update(torch.cat(parts, dim=-1)).relu()
        self.last = op
        return encoder.context(op, self.h[-1])

    def _plan(self, op: int) -> list[Around]:
        """Per round, from 0 on, the ops whose embeddings the step from the last op to this one changes."""
        key, plans = (self.last, op), self.encoder.step_plans
        if key not in plans:
            changed = [i for i in key if i >= 0]
            found = [Around.of(self.encoder, torch.tensor(changed, device=self.encoder.op_features.device))]
            for _ in range(self.encoder.n_rounds):
                found.append(Around.of(self.encoder, found[-1].reached))
            plans[key] = found
        return plans[key]
