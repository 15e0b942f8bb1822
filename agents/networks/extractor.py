"""GraphExtractor: the graph network as a features extractor of stable-baselines3."""

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents.networks.graph_encoder import GraphEncoder
from placement_gym.envs.observation import DEVICE_FEATURES, OP_FEATURES, table


class GraphExtractor(BaseFeaturesExtractor):  # type: ignore[misc]
    """Padded observations -> [B, n_devices * per_device + width].

    Message passing runs on the unpadded graphs of the batch joined into one; where all observations are of one
    graph, as in training on one problem, it runs once.

    Args:
        observation_space: That of Assign-v0.
        width: Width of op embeddings.
        n_layers: Rounds of message passing.
        per_device: Width of the features of each device.
    """

    def __init__(
        self, observation_space: spaces.Dict, *, width: int = 64, n_layers: int = 3, per_device: int = 16
    ) -> None:
        n_features = len(DEVICE_FEATURES)
        n_devices = (observation_space["device_features"].shape or (0,))[0] // n_features
        super().__init__(observation_space, n_devices * per_device + width)
        self.encoder = GraphEncoder(len(OP_FEATURES), 1, width=width, n_layers=n_layers)
        self.device = nn.Sequential(
            nn.Linear(width + 2 * n_features, width), nn.ReLU(), nn.Linear(width, per_device), nn.ReLU()
        )

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        """Dict of [B, ...] -> [B, n_devices * per_device + width]."""
        embedding = self._op_embedding(observation)
        features = table("device_features", observation["device_features"])
        weight = observation["action_mask"].unsqueeze(-1).float()
        count = weight.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (features * weight).sum(dim=1, keepdim=True) / count
        spread = (((features - mean) ** 2 * weight).sum(dim=1, keepdim=True) / count).sqrt()
        relative = ((features - mean) / (spread + 1e-6)).clamp(-5, 5)
        own = embedding.unsqueeze(1).expand(-1, features.shape[1], -1)
        per_device = self.device(torch.cat([own, features, relative], dim=-1))
        return torch.cat([per_device.flatten(1), embedding], dim=-1)

    def _op_embedding(self, observation: dict[str, Tensor]) -> Tensor:
        """[B, width]: embedding of the op that is next in each observation."""
        op = observation["op"].long().flatten()
        keys = ("op_features", "edge_index", "edge_features")
        static = [*(table(key, observation[key]) for key in keys), observation["n_ops"], observation["n_edges"]]
        if all(bool((part == part[:1]).all()) for part in static):
            op_features, edge_index, edge_features, n_ops, n_edges = (part[0] for part in static)
            n, m = int(n_ops), int(n_edges)
            one: Tensor = self.encoder(op_features[:n], edge_index[:, :m].long(), edge_features[:m])
            return one[op]
        op_features, edge_index, edge_features, n_ops, n_edges = static
        sizes, lengths = n_ops.long().flatten(), n_edges.long().flatten()
        first = torch.cumsum(sizes, 0) - sizes
        ops = torch.cat([op_features[b, : sizes[b]] for b in range(len(sizes))])
        edges = torch.cat([edge_index[b, :, : lengths[b]].long() + first[b] for b in range(len(sizes))], dim=1)
        weights = torch.cat([edge_features[b, : lengths[b]] for b in range(len(sizes))])
        many: Tensor = self.encoder(ops, edges, weights)
        return many[first + op]
