"""Placeto (Addanki et al., 2019): one op per step in a fixed order, message passing at every step; by REINFORCE.

Implementation details; each departure from the paper has a number and, where it is one, an option:

1. One pass over the ops per episode, in the order of Assign-v0, each op placed once, as DOPPLER (arXiv 2505.23131) ran
   it; the paper improves a placement step by step. No episode begins from an earlier placement.
2. The placement so far is among the op features at every step, and embeddings are computed anew from it
   (`PlacementEncoder`), within an episode only those that a step changes (`PlacementFollower`). Op features are
   normalised over the ops; released re-implementations feed raw costs.
3. Scores of devices: from the embedding alone as in the paper, plus, with `device_features`, a head that sees what the
   observation says of each device (earliest finish, load, ...), so that all learners see the same.
4. Support, memory and colocation are masked by the environment.
5. Advantages are normalised over the batch; episode 0 of a batch is greedy and has no part in the gradient.
6. The gradient is that of `steps_per_update` steps drawn evenly from the episode, at most all of them, because each
   needs messages of its own.
7. Imitation first: for `imitation_updates`, the policy learns to choose a device of earliest finish in the states that
   it meets itself (ties count as one).
8. Self-imitation (Oh et al., 2018): the best `n_elite` placements found are imitated along, weight `elite_weight`.
9. Entropy bonus and learning rate fall linearly over the budget; gradients are clipped by norm.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.learner import (
    Learner,
    LearnerConfig,
    Scorer,
    advantages,
    earliest_finish_loss,
    mean_entropy,
    normalised,
)
from agents.networks.device_head import DeviceHead
from agents.networks.placement_encoder import PlacementEncoder, PlacementFollower
from agents.rollout import Rollout
from placement_gym.envs.observation import ACTION_FEATURES


@dataclass(frozen=True, slots=True)
class PlacetoConfig(LearnerConfig):
    """Hyper-parameters beside those of `LearnerConfig`; numbers refer to the list above.

    Attributes:
        width: Width of embeddings.
        n_rounds: Rounds of messages per step.
        device_features: Detail 3.
        steps_per_update: Detail 6.

    Raises:
        InvalidOption: A number outside its range.
    """

    imitation_updates: int = 10
    width: int = 16
    n_rounds: int = 2
    device_features: bool = True
    steps_per_update: int = 16

    def __post_init__(self) -> None:
        LearnerConfig.__post_init__(self)
        self.check_least(width=1, n_rounds=0, steps_per_update=1)


class PlacetoPolicy(nn.Module):
    """Encoder and heads.

    Args:
        encoder: The encoder of the problem's graph.
        n_devices: Devices, numbered.
        config: Hyper-parameters.
    """

    def __init__(self, encoder: PlacementEncoder, n_devices: int, config: PlacetoConfig) -> None:
        super().__init__()
        context = 4 * config.width
        self.encoder = encoder
        self.by_placement = nn.Sequential(nn.Linear(context, 64), nn.ReLU(), nn.Linear(64, n_devices))
        self.by_device = DeviceHead(context, len(ACTION_FEATURES), hidden=64) if config.device_features else None

    def forward(self, op: int, placed: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, n_devices], -inf where not allowed; `placed` as for the encoder."""
        return self.score(self.encoder(op, placed), features, mask)

    def score(self, context: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Logits as `forward`, from what the encoder says."""
        logits: Tensor = self.by_placement(context).masked_fill(~mask, -torch.inf)
        return logits if self.by_device is None else logits + self.by_device(context, features, mask)


class Placeto(Learner[PlacetoConfig]):
    """The learner; see the module for what it does and `Learner` for its arguments."""

    name = "placeto"
    config_type = PlacetoConfig
    policy: PlacetoPolicy

    def _make_policy(self) -> PlacetoPolicy:
        features, edge_index, _ = self._graph
        n_devices, config = self.env.problem.n_devices, self.config
        encoder = PlacementEncoder(
            normalised(features), edge_index, n_devices, width=config.width, n_rounds=config.n_rounds
        )
        return PlacetoPolicy(encoder, n_devices, config)

    def _scorer(self) -> Scorer:
        process, n = self.env.episodes.process, self.env.problem.n_ops
        encode = PlacementFollower(self.policy.encoder, self.env.num_envs)

        def score(op: int, features: Tensor, mask: Tensor) -> Tensor:
            op_device = torch.from_numpy(process.op_device[:, :n]).t()
            return self.policy.score(encode(op, (op_device.long() + 1).to(self.device)), features, mask)

        return score

    def _update(self, spent: float) -> dict[str, float]:
        """One batch of episodes and one step of the optimiser."""
        rollout = self._roll_out()
        self._remember(rollout)
        steps = torch.randperm(len(rollout.ops), generator=self.generator)[: self.config.steps_per_update]
        features, masks, actions, weight = self._episodes(rollout)
        total_loss, total_entropy = 0.0, 0.0
        self.optimiser.zero_grad()
        for t in steps.tolist():
            placed = torch.zeros_like(actions)
            placed[rollout.ops[:t]] = actions[:t] + 1
            log_p = self.policy(int(rollout.ops[t]), placed, features[t], masks[t]).log_softmax(dim=-1)
            entropy = mean_entropy(log_p, masks[t])
            if self.imitating:
                loss = earliest_finish_loss(log_p, features[t], masks[t])
            else:
                taken = log_p.gather(-1, actions[t].unsqueeze(-1)).squeeze(-1)
                loss = -(taken * weight).sum() - self.config.entropy * (1 - spent) * entropy
            torch.autograd.backward(loss / len(steps))
            total_loss, total_entropy = total_loss + float(loss.detach()), total_entropy + float(entropy.detach())
        norm = self._descend()
        return self._metrics(
            rollout, loss=total_loss / len(steps), entropy=total_entropy / len(steps), gradient_norm=norm
        )

    def _episodes(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, masks and actions of a batch and of the elite behind it, and each episode's weight in the loss."""
        parts = [tuple(x.to(self.device) for x in (rollout.features, rollout.masks, rollout.actions))]
        weights = torch.from_numpy(advantages(rollout.returns)).float() / (self.env.num_envs - 1)
        weights[0] = 0.0
        elite = None if self.imitating else self._elite_steps()
        if elite is not None:
            parts.append(elite)
            n_elite = elite[2].shape[1]
            weights = torch.cat([weights, torch.full((n_elite,), self.config.elite_weight / n_elite)])
        features, masks, actions = (torch.cat(list(part), dim=1) for part in zip(*parts, strict=True))
        return features, masks, actions, weights.to(self.device)
