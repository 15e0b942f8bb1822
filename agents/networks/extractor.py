"""GraphExtractor: the graph network as a features extractor of stable-baselines3."""

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents.graph_input import EDGE_INPUTS, OP_INPUTS
from agents.networks.dual import relative
from agents.networks.graph_encoder import GraphEncoder
from placement_gym.envs.observation import ACTION_FEATURES, SELECT, table
from placement_gym.errors import InvalidOption


class GraphExtractor(BaseFeaturesExtractor):  # type: ignore[misc]
    """Padded observations of any environment -> [B, (n_described + n_selectable) * per_device + width].

    `n_described` actions have features of their own: devices for the op that is next, or pairs of op and device. The
    last `width` numbers are the embedding of the op that is next; where there is none, the mean over the ops. Where
    there are more actions than described ones, they are ops, too (`action="phased"`), and what may be selected of all
    `n_selectable` ops is seen by their embeddings.

    Message passing runs on the unpadded graphs of the batch joined into one; where all observations are of one
    graph, as in training on one problem, it runs once.

    Args:
        observation_space: That of the environment, with `observation="dict"`.
        width: Width of op embeddings.
        n_layers: Rounds of message passing.
        per_device: Width of the features of each action.

    Raises:
        InvalidOption: The space is no Dict.
    """

    def __init__(
        self, observation_space: spaces.Dict, *, width: int = 64, n_layers: int = 3, per_device: int = 16
    ) -> None:
        if not isinstance(observation_space, spaces.Dict):
            raise InvalidOption(
                f"observation_space is a {type(observation_space).__name__}; the graph network expects a Dict, "
                "which environments have under observation='dict'"
            )
        length = {key: (space.shape or (0,))[0] for key, space in observation_space.items()}
        n_features = len(ACTION_FEATURES)
        self.n_described, n_ops = length["action_features"] // n_features, length["op_device"]
        n_selectable = n_ops if length["action_mask"] > self.n_described else 0
        super().__init__(observation_space, (self.n_described + n_selectable) * per_device + width)
        self.n_ops = n_ops
        self.encoder = GraphEncoder(len(OP_INPUTS), len(EDGE_INPUTS), width=width, n_layers=n_layers)
        self.device = nn.Sequential(
            nn.Linear(width + 2 * n_features, width), nn.ReLU(), nn.Linear(width, per_device), nn.ReLU()
        )
        self.selectable = nn.Sequential(nn.Linear(width, per_device), nn.ReLU()) if n_selectable else None

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Dict of [B, ...] -> [B, features_dim]."""
        ops, first = self._op_embeddings(observation)
        op, n_devices = observation["op"].long().flatten(), observation["device_kind"].shape[1]
        embedding = ops[first + op.clamp(min=0)]
        own = embedding.unsqueeze(1).expand(-1, self.n_described, -1)
        selecting, mask = (observation["phase"] == SELECT).float(), observation["action_mask"].float()
        last = [embedding]
        if self.selectable is not None or bool((op < 0).any()):
            number, n_ops = torch.arange(self.n_ops, device=ops.device), observation["n_ops"].long()
            each = ops[first[:, None] + number.minimum(n_ops - 1)]
            mean = (each * (number < n_ops).unsqueeze(-1)).sum(dim=1) / n_ops
            last = [torch.where((op >= 0).unsqueeze(-1), embedding, mean)]
            if self.n_described > n_devices:
                own = each.repeat_interleave(n_devices, dim=1)
            if self.selectable is not None:
                allowed = mask[:, : self.n_ops] * selecting
                last.insert(0, (self.selectable(each) * allowed.unsqueeze(-1)).flatten(1))
        features = table("action_features", observation["action_features"])
        close = relative(features, mask[:, : self.n_described] * (1 - selecting))
        described = self.device(torch.cat([own, features, close], dim=-1))
        return torch.cat([described.flatten(1), *last], dim=-1)

    def _op_embeddings(self, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """([any, width], int64 [B]): embeddings of the ops of all graphs, and where each graph begins among them."""
        op_features = table("op_features", observation["op_features"])[..., : len(OP_INPUTS)]
        edge_features = table("edge_features", observation["edge_features"])[..., : len(EDGE_INPUTS)]
        edge_index = table("edge_index", observation["edge_index"])
        sizes, lengths = observation["n_ops"].long().flatten(), observation["n_edges"].long().flatten()
        b = len(sizes)
        if all(bool((part == part[:1]).all()) for part in (op_features, edge_index, edge_features, sizes, lengths)):
            b = 1
        first = torch.cumsum(sizes, 0) - sizes
        ops = torch.cat([op_features[i, : sizes[i]] for i in range(b)])
        edges = torch.cat([edge_index[i, :, : lengths[i]].long() + first[i] for i in range(b)], dim=1)
        weights = torch.cat([edge_features[i, : lengths[i]] for i in range(b)])
        return self.encoder(ops, edges, weights), first if b > 1 else torch.zeros_like(first)
