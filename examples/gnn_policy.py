"""GnnPolicy: one graph network for all environments; no weight depends on a problem's or a padding's size."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINEConv
from torch_geometric.utils import scatter, softmax

from placement_gym.envs import to_pyg
from placement_gym.envs.observation import (
    ACTION_FEATURES,
    CONTEXT,
    DEVICE_FEATURES,
    EDGE_FEATURES,
    N_KINDS,
    OP_FEATURES,
)


def compressed(x: Tensor) -> Tensor:
    """The sign of x times log(1 + |x|): features may be large."""
    return x.sign() * x.abs().log1p()


class GnnPolicy(nn.Module):
    """A score for each action, whatever it is about, and a value for each graph.

    Ops exchange messages along edges, in both directions. A device knows its features and the ops that it has. An
    action is scored by its op, its device, its features (as they are, and relative to the allowed actions) and the
    context; what it has none of is 0.

    Args:
        width: Width of all embeddings.
        n_layers: Rounds of messages.
    """

    def __init__(self, width: int = 32, n_layers: int = 2) -> None:
        super().__init__()
        self.op_kind, self.device_kind = nn.Embedding(N_KINDS, width), nn.Embedding(N_KINDS, width)
        self.from_op = nn.Linear(len(OP_FEATURES) + 2, width)  # and: is it placed, is it the one that is placed next
        self.from_device = nn.Linear(len(DEVICE_FEATURES), width)

        def convolutions() -> nn.ModuleList:
            nets = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(n_layers)]
            return nn.ModuleList(GINEConv(net, edge_dim=len(EDGE_FEATURES)) for net in nets)

        self.forth, self.back = convolutions(), convolutions()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers))
        n_seen = 2 * width + 2 * len(ACTION_FEATURES) + len(CONTEXT)
        self.score = nn.Sequential(nn.Linear(n_seen, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))
        self.value = nn.Sequential(nn.Linear(n_seen, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))

    def forward(self, graph: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """(logits float32 [all actions], -inf where not allowed; values float32 [graphs]).

        Args:
            graph: What `to_pyg` returns; `graph.action_graph` says whose action it is, `graph.action_number` which.
        """
        n_graphs, allowed, of = len(graph.context), graph.action_mask, graph.action_graph
        ops, devices = self._ops(graph), self._devices(graph)
        devices = devices + scatter(ops[graph.placed_op], graph.placed_device, 0, len(devices), "mean")
        mean = scatter(graph.action_x[allowed], of[allowed], 0, n_graphs, "mean")
        off = graph.action_x - mean[of]
        spread = scatter(off[allowed] ** 2, of[allowed], 0, n_graphs, "mean").sqrt()
        relative = (off / (spread[of] + 1e-6)).clamp(-5, 5)
        seen = [
            ops[graph.action_op] * graph.action_has_op[:, None],
            devices[graph.action_device] * graph.action_has_device[:, None],
            compressed(graph.action_x),
            relative,
            compressed(graph.context)[of],
        ]
        actions = torch.cat(seen, dim=1)
        logits = self.score(actions).squeeze(1).masked_fill(~allowed, -torch.inf)
        weight = softmax(logits.detach(), of, num_nodes=n_graphs)[:, None]
        return logits, self.value(scatter(weight * actions, of, 0, n_graphs)).squeeze(1)

    def _ops(self, graph: Any) -> Tensor:  # noqa: ANN401
        """[ops, width] after all rounds of messages."""
        flags = graph.x.new_zeros(len(graph.x), 2)
        flags[graph.placed_op, 0] = 1.0
        flags[graph.op[graph.has_op], 1] = 1.0
        h: Tensor = self.from_op(torch.cat([compressed(graph.x), flags], dim=1)) + self.op_kind(graph.op_kind)
        edges, features = graph.edge_index, compressed(graph.edge_attr)
        for forth, back, norm in zip(self.forth, self.back, self.norms, strict=True):
            h = norm(h + forth(h, edges, features) + back(h, edges.flip(0), features))
        return h

    def _devices(self, graph: Any) -> Tensor:  # noqa: ANN401
        """[devices, width], without the ops on them."""
        device: Tensor = self.from_device(compressed(graph.device_x)) + self.device_kind(graph.device_kind)
        return device

    def distribution(self, seen: Mapping[str, Any], n_actions: int) -> tuple[torch.distributions.Categorical, Tensor]:
        """(distribution over the numbers of actions [B], values float32 [B]).

        Args:
            seen: An observation of a vector form.
            n_actions: Of the environment.
        """
        graph = to_pyg(seen)
        logits, values = self(graph)
        table = logits.new_full((len(values), n_actions), -torch.inf)
        table[graph.action_graph, graph.action_number] = logits
        return torch.distributions.Categorical(logits=table), values
