"""DualPolicy: which op next (SEL), and where (PLC), from one encoding of the graph (DOPPLER, arXiv 2505.23131)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.graph_input import EDGE_INPUTS, OP_INPUTS
from agents.networks.graph_encoder import GraphEncoder
from agents.networks.paths import path_mean
from placement_gym.envs.observation import ACTION_FEATURES

# Columns behind the device features: what the placement that an episode follows, if any, says of op and device.
GUIDE_FEATURES = (
    "guide_device",  # 1 for the op's device
    "guide_readers",  # share of the op's readers on the device
    "guide_inputs",  # share of its inputs
    "guide_alike",  # share of ops that are alike
    "guide_idle",  # share of the time from the op's being ready to its finish in which the device is idle
    "guide_critical",  # 1 for all devices if the op is on the chain that sets the makespan
    "guided",  # 1
)
# Columns behind the op features where messages are passed at every step.
STEP_FEATURES = ("placed", "finish")


@dataclass(frozen=True, slots=True, eq=False)
class GraphTensors:
    """What networks read of a problem.

    Attributes:
        op_features: float32 [n_ops, n_features].
        edge_index: int64 [2, n_edges].
        edge_features: float32 [n_edges, 1].
        to_exit: int64 [rounds, n_ops + 1], see `networks.paths`.
        from_entry: int64 [rounds, n_ops + 1].
    """

    op_features: Tensor
    edge_index: Tensor
    edge_features: Tensor
    to_exit: Tensor
    from_entry: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What the heads need of every op; computed once per batch of episodes, or per step.

    Attributes:
        select: [..., n_ops, width], SEL's share of its hidden layer.
        place: [..., n_ops, width], PLC's share of its hidden layer.
        content: [..., n_ops, width], what an op adds to the device that it is placed on.
    """

    select: Tensor
    place: Tensor
    content: Tensor


class DualPolicy(nn.Module):
    """Encoder and both heads; any number of ops and devices.

    Args:
        width: Width of embeddings and hidden layers.
        n_layers: Rounds of message passing.
        n_ops: Ops of the one graph for which an embedding per op is learned too; 0 for none.
    """

    def __init__(self, width: int, n_layers: int, *, n_ops: int = 0) -> None:
        super().__init__()
        n_features = len(OP_INPUTS) + len(STEP_FEATURES)
        self.encoder = GraphEncoder(n_features, len(EDGE_INPUTS), width=width, n_layers=n_layers)
        self.table = nn.Parameter(torch.randn(n_ops, width) * 0.1) if n_ops else None
        self.norm = nn.LayerNorm(3 * width)
        self.to_select, self.to_place = nn.Linear(3 * width, width), nn.Linear(3 * width, width)
        self.to_content = nn.Linear(width, width, bias=False)
        self.from_candidate = nn.Linear(2 * len(OP_INPUTS), width)
        self.select_out = nn.Linear(width, 1)
        self.from_device = nn.Linear(2 * len(ACTION_FEATURES) + len(GUIDE_FEATURES), width)
        self.place_hidden, self.place_out = nn.Linear(width, width), nn.Linear(width, 1)

    def encode(self, graph: GraphTensors, progress: Tensor | None = None) -> Encoded:
        """Message passing and all that depends on the op alone.

        Args:
            graph: The problem.
            progress: [B, n_ops, len(STEP_FEATURES)], the placement so far; None for message passing once per episode.
        """
        n = len(graph.op_features)
        if progress is None:
            progress = graph.op_features.new_zeros(1, n, len(STEP_FEATURES))
        b = len(progress)
        features = torch.cat([graph.op_features.expand(b, n, -1), progress], dim=-1).flatten(0, 1)
        first = torch.arange(b, device=features.device)[:, None, None] * n
        edges = (graph.edge_index[None] + first).permute(1, 0, 2).flatten(1)
        h = self.encoder(features, edges, graph.edge_features.repeat(b, 1)).reshape(b, n, -1)
        if self.table is not None:
            h = h + self.table
        paths = [path_mean(h, graph.to_exit), path_mean(h, graph.from_entry)]
        seen = self.norm(torch.cat([h, *paths], dim=-1))
        parts = self.to_select(seen), self.to_place(seen), self.to_content(h)
        return Encoded(*(part.squeeze(0) for part in parts))

    def select_scores(self, ops: Tensor, candidates: Tensor) -> Tensor:
        """[M]: SEL's score of candidates.

        Args:
            ops: [M, width], rows of `Encoded.select`.
            candidates: [M, 2 * len(OP_INPUTS)], static features, raw and relative to the other candidates.
        """
        scores: Tensor = self.select_out((ops + self.from_candidate(candidates)).relu()).squeeze(-1)
        return scores

    def place_scores(self, ops: Tensor, content: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """[M, n_devices]: PLC's score of devices, -inf where not allowed.

        Args:
            ops: [M, width], rows of `Encoded.place`.
            content: [M, n_devices, width], means of `Encoded.content` of what is on each device.
            features: [M, n_devices, len(ACTION_FEATURES) + len(GUIDE_FEATURES)].
            mask: bool [M, n_devices].
        """
        n = len(ACTION_FEATURES)
        dynamic = features[..., :n]
        joined = torch.cat([features, relative(dynamic, mask)], dim=-1)
        hidden = (self.from_device(joined) + ops.unsqueeze(-2) + content).relu()
        scores: Tensor = self.place_out(self.place_hidden(hidden).relu()).squeeze(-1)
        return scores.masked_fill(~mask, -torch.inf)


def relative(features: Tensor, mask: Tensor) -> Tensor:
    """`features` [..., R, F] less their mean over the rows in `mask` [..., R], in standard deviations, at most 5."""
    weight = mask.unsqueeze(-1).to(features.dtype)
    count = weight.sum(dim=-2, keepdim=True).clamp(min=1)
    mean = (features * weight).sum(dim=-2, keepdim=True) / count
    spread = (((features - mean) ** 2 * weight).sum(dim=-2, keepdim=True) / count).sqrt()
    return ((features - mean) / (spread + 1e-6)).clamp(-5, 5)


def grouped_log_softmax(scores: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Log-probabilities of `scores` [M] or [M, D], normalised over all of equal `group` int64 [M]; -inf stays -inf."""
    flat = scores if scores.dim() == 2 else scores.unsqueeze(-1)
    most = flat.detach().amax(dim=-1)
    highest = most.new_full((n_groups,), -torch.inf).scatter_reduce(0, group, most, "amax")
    shifted = flat - highest[group].unsqueeze(-1)
    total = shifted.new_zeros(n_groups).index_add(0, group, shifted.exp().sum(dim=-1))
    log_p = shifted - total[group].log().unsqueeze(-1)
    return log_p if scores.dim() == 2 else log_p.squeeze(-1)
