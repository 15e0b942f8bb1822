"""GDP (Zhou et al., 2019): the devices of all ops in one shot, from a graph network and attention over ops; by PPO.

Implementation details; each departure from the paper has a number and, where it is one, an option:

1. Max-pooling over neighbours (GraphSAGE), then one layer of attention over the ops in the order of Assign-v0, in
   segments with memory (`SegmentEncoder`). Op features are normalised over the ops. Like ops are told apart by waves of
   their position in the order; the paper's numbers of neighbours depend on how ops are numbered.
2. One shot: scores depend on nothing but the graph. Support, memory and colocation are repaired while sampling: op
   after op, the device is drawn from the op's own distribution among those that the environment's mask leaves, and
   that conditional probability is the one that learns.
3. PPO (Schulman et al., 2017): `n_epochs` steps per batch on probability ratios per op, clipped at `clip_range`.
4. Advantages are normalised over the batch; episode 0 of a batch is greedy and has no part in the gradient.
5. Imitation first: for `imitation_updates`, the policy learns the teacher's placement, which is episode 0 of the first
   batch. The teacher is a placement given by the caller (any baseline's), else the one in which each op goes where it
   finishes first. The first of equals is taken, so that the placement is one.
6. Self-imitation (Oh et al., 2018): the best `n_elite` placements found are imitated along, weight `elite_weight`.
7. Entropy bonus and learning rate fall linearly over the budget; gradients are clipped by norm.
8. One graph at a time: the paper's superposition, which adapts one network to many graphs, is left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.agent import order_of
from agents.learner import Learner, LearnerConfig, Scorer, advantages, mean_entropy, normalised
from agents.networks.segment_encoder import SegmentEncoder
from placement_gym.envs.assign import assignment_order
from placement_gym.envs.observation import ACTION_FEATURES
from placement_gym.errors import InvalidOption
from placement_gym.placement import Placement


@dataclass(frozen=True, slots=True)
class GdpConfig(LearnerConfig):
    """Hyper-parameters beside those of `LearnerConfig`; numbers refer to the list above.

    Attributes:
        width: Width of embeddings.
        n_layers: Layers of max-pooling.
        n_heads: Heads of attention; divides the width.
        segment: Ops per segment of attention.
        n_epochs: Detail 3.
        clip_range: Detail 3.

    Raises:
        InvalidOption: A number outside its range.
    """

    learning_rate: float = 1e-3
    imitation_updates: int = 10
    width: int = 64
    n_layers: int = 2
    n_heads: int = 4
    segment: int = 64
    n_epochs: int = 4
    clip_range: float = 0.2

    def __post_init__(self) -> None:
        LearnerConfig.__post_init__(self)
        self.check_least(width=1, n_layers=0, n_heads=1, segment=1, n_epochs=1)
        if self.width % self.n_heads:
            raise InvalidOption(f"GdpConfig.width is {self.width}; expected a multiple of n_heads, {self.n_heads}")
        if not self.clip_range > 0:
            raise InvalidOption(f"GdpConfig.clip_range is {self.clip_range}; expected > 0")


class GdpPolicy(nn.Module):
    """Encoder and a score per device."""

    def __init__(self, encoder: SegmentEncoder, width: int, n_devices: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.out = nn.Linear(width, n_devices)

    def forward(self, op_features: Tensor, edge_index: Tensor, order: Tensor) -> Tensor:
        """Logits [n_ops, n_devices] of all ops."""
        logits: Tensor = self.out(self.encoder(op_features, edge_index, order))
        return logits


class Gdp(Learner[GdpConfig]):
    """The learner; see the module for what it does and `Learner` for its arguments.

    Args:
        vec_env: Vector environment.
        config: Hyper-parameters.
        seed: Seed of weights and actions.
        torch_device: "auto", "cpu", "cuda", ...
        teacher: int32 [n_ops], a feasible placement that is imitated first (detail 5).

    Raises:
        InvalidOption: As `Learner`.
        InfeasiblePlacement: The teacher breaks support, memory or colocation.
    """

    name = "gdp"
    config_type = GdpConfig
    policy: GdpPolicy

    def __init__(
        self,
        vec_env: "VectorEnv[Any, Any, Any]",
        config: GdpConfig | None = None,
        *,
        seed: int = 0,
        torch_device: str = "auto",
        teacher: NDArray[np.int32] | None = None,
    ) -> None:
        super().__init__(vec_env, config, seed=seed, torch_device=torch_device)
        self._order = assignment_order(self.env.problem, order_of(self.env)).astype(np.int64)
        if teacher is not None:
            Placement(teacher).check(self.env.problem)
        # The teacher's devices, op by op, once they are known.
        self._teacher = None if teacher is None else torch.from_numpy(np.array(teacher, np.int64))
        self._shows_teacher = False

    def _make_policy(self) -> GdpPolicy:
        config, n_features = self.config, self._graph[0].shape[1]
        encoder = SegmentEncoder(
            n_features, width=config.width, n_layers=config.n_layers, n_heads=config.n_heads, segment=config.segment
        )
        return GdpPolicy(encoder, config.width, self.env.problem.n_devices)

    def _logits(self) -> Tensor:
        """[n_ops, n_devices], of all ops in one shot."""
        features, edge_index, _ = self._graph
        order = torch.from_numpy(self._order).to(self.device)
        logits: Tensor = self.policy(normalised(features), edge_index, order)
        return logits

    def _scorer(self) -> Scorer:
        logits, teacher, shows = self._logits(), self._teacher, self._shows_teacher

        def score(op: int, features: Tensor, mask: Tensor) -> Tensor:
            scores = logits[op].expand(mask.shape).masked_fill(~mask, -torch.inf)
            if shows:
                finish = features[0, :, ACTION_FEATURES.index("finish")].masked_fill(~mask[0], torch.inf)
                device = int(finish.argmin()) if teacher is None else int(teacher[op])
                scores[0, torch.arange(len(finish)) != device] = -torch.inf
            return scores

        return score

    def _update(self, spent: float) -> dict[str, float]:
        """One batch of episodes and `n_epochs` steps of the optimiser."""
        imitating = self.imitating
        self._shows_teacher = imitating and self.updates == 0
        rollout = self._roll_out()
        if self._shows_teacher:
            self._teacher, self._shows_teacher = torch.from_numpy(rollout.op_device[0].astype(np.int64)), False
        self._remember(rollout)
        ops, masks, actions = (x.to(self.device) for x in (rollout.ops, rollout.masks, rollout.actions))
        advantage = torch.from_numpy(advantages(rollout.returns)).to(self.device, torch.float32)[1:]
        before: Tensor | None = None
        for _ in range(self.config.n_epochs):
            logits = self._logits()[ops]
            log_p = logits.unsqueeze(1).masked_fill(~masks, -torch.inf).log_softmax(dim=-1)
            entropy = mean_entropy(log_p, masks)
            taken = log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)[:, 1:]
            before = taken.detach() if before is None else before
            if imitating:
                loss = self._imitation_loss(logits, ops, masks)
            else:
                ratio = (taken - before).exp()
                clipped = ratio.clamp(1 - self.config.clip_range, 1 + self.config.clip_range)
                loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
                loss = loss - self.config.entropy * (1 - spent) * entropy
                loss = loss + self.config.elite_weight * self._elite_loss(logits)
            self.optimiser.zero_grad()
            torch.autograd.backward(loss)
            norm = self._descend()
        return self._metrics(rollout, loss=float(loss.detach()), entropy=float(entropy.detach()), gradient_norm=norm)

    def _imitation_loss(self, logits: Tensor, ops: Tensor, masks: Tensor) -> Tensor:
        """Minus the mean log-probability of the teacher's devices among those that some episode may choose."""
        assert self._teacher is not None
        device = self._teacher.to(self.device)[ops].unsqueeze(-1)
        open_ = masks.any(dim=1).scatter(1, device, True)
        return -logits.masked_fill(~open_, -torch.inf).log_softmax(dim=-1).gather(-1, device).mean()

    def _elite_loss(self, logits: Tensor) -> Tensor:
        """Minus the mean log-probability of the elite's actions; logits [T, n_devices]."""
        elite = self._elite_steps()
        if elite is None:
            return torch.zeros((), device=self.device)
        _, masks, actions = elite
        log_p = logits.unsqueeze(1).masked_fill(~masks, -torch.inf).log_softmax(dim=-1)
        return -log_p.gather(-1, actions.unsqueeze(-1)).mean()

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "teacher": self._teacher}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self._teacher = state["teacher"]
