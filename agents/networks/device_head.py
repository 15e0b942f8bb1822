"""DeviceHead: a score per device for the op that is placed next, whatever the number of ops and devices."""

import torch
from torch import Tensor, nn


class DeviceHead(nn.Module):
    """Scores each device by the op's embedding and the device's features, raw and relative to the other devices.

    Args:
        width: Width of op embeddings.
        n_features: Columns of the device features.
        hidden: Width of the hidden layers.
    """

    def __init__(self, width: int, n_features: int, *, hidden: int = 64) -> None:
        super().__init__()
        self.from_op = nn.Linear(width, hidden)
        self.from_device = nn.Linear(2 * n_features, hidden)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, op_embedding: Tensor, device_features: Tensor, mask: Tensor) -> Tensor:
        """Logits.

        Args:
            op_embedding: [..., width], of the op that is placed (broadcast over leading axes).
            device_features: [..., n_devices, n_features].
            mask: bool [..., n_devices], devices that are allowed.

        Returns:
            [..., n_devices], -inf where not allowed.
        """
        weight = mask.unsqueeze(-1).to(device_features.dtype)
        count = weight.sum(dim=-2, keepdim=True).clamp(min=1)
        mean = (device_features * weight).sum(dim=-2, keepdim=True) / count
        spread = (((device_features - mean) ** 2 * weight).sum(dim=-2, keepdim=True) / count).sqrt()
        relative = (device_features - mean) / (spread + 1e-6)
        hidden = self.from_device(torch.cat([device_features, relative.clamp(-5, 5)], dim=-1))
        hidden = hidden + self.from_op(op_embedding).unsqueeze(-2)
        logits: Tensor = self.out(hidden).squeeze(-1)
        return logits.masked_fill(~mask, -torch.inf)
