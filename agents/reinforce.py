"""REINFORCE (Williams, 1992) with a graph network over batches of episodes in lockstep.

Implementation details; each departure from the plain algorithm has a number and an option:

1. Message passing once per batch: the graph does not change within an episode (DOPPLER, arXiv 2505.23131, app. G.3).
2. Advantages are normalised over the batch. Control variate: the batch `mean`, or the `greedy_rollout` of the
   current policy (Kool et al., 2019), which is episode 0 of every batch.
3. Imitation first: for `imitation_updates`, the policy learns to choose a device of earliest finish in the states
   that it meets itself (ties count as one). Off by default: on the default workload it led into a local optimum at
   the teacher's makespan, from which 5,000 episodes did not lead out.
4. Self-imitation (Oh et al., 2018): the best `n_elite` placements found are imitated along, weight `elite_weight`.
5. Entropy bonus and learning rate fall linearly over the budget; gradients are clipped by norm.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.graph_input import EDGE_INPUTS, OP_INPUTS
from agents.learner import Learner, LearnerConfig, Scorer, advantages, earliest_finish_loss, mean_entropy
from agents.networks.device_head import DeviceHead
from agents.networks.graph_encoder import GraphEncoder
from agents.rollout import Rollout
from placement_gym.envs.observation import ACTION_FEATURES
from placement_gym.errors import InvalidOption, unknown_name

ControlVariate = Literal["mean", "greedy_rollout"]


@dataclass(frozen=True, slots=True)
class ReinforceConfig(LearnerConfig):
    """Hyper-parameters beside those of `LearnerConfig`; numbers refer to the list above.

    Attributes:
        width: Width of embeddings.
        n_layers: Rounds of message passing.
        control_variate: Detail 2.

    Raises:
        InvalidOption: A number outside its range, or an unknown control variate.
    """

    width: int = 64
    n_layers: int = 3
    control_variate: ControlVariate = "mean"

    def __post_init__(self) -> None:
        LearnerConfig.__post_init__(self)
        self.check_least(width=1, n_layers=0)
        if self.control_variate not in get_args(ControlVariate):
            raise InvalidOption(unknown_name("control_variate", self.control_variate, get_args(ControlVariate)))


class AssignPolicy(nn.Module):
    """Encoder and device head of one policy."""

    def __init__(self, width: int, n_layers: int) -> None:
        super().__init__()
        self.encoder = GraphEncoder(len(OP_INPUTS), len(EDGE_INPUTS), width=width, n_layers=n_layers)
        self.head = DeviceHead(width, len(ACTION_FEATURES), hidden=width)


class Reinforce(Learner[ReinforceConfig]):
    """The learner; see the module for what it does and `Learner` for its arguments."""

    name = "reinforce"
    config_type = ReinforceConfig
    policy: AssignPolicy

    def _make_policy(self) -> AssignPolicy:
        return AssignPolicy(self.config.width, self.config.n_layers)

    def _scorer(self) -> Scorer:
        embedding = self.policy.encoder(*self._graph)

        def score(op: int, features: Tensor, mask: Tensor) -> Tensor:
            logits: Tensor = self.policy.head(embedding[op], features, mask)
            return logits

        return score

    def _update(self, spent: float) -> dict[str, float]:
        """One batch of episodes and one step of the optimiser."""
        rollout = self._roll_out()
        self._remember(rollout)
        config = self.config
        embedding = self.policy.encoder(*self._graph)[rollout.ops.to(self.device)]
        features, masks = rollout.features.to(self.device), rollout.masks.to(self.device)
        logits = self.policy.head(embedding.unsqueeze(1), features, masks)
        log_p = logits.log_softmax(dim=-1)
        entropy = mean_entropy(log_p, masks)
        if self.imitating:
            loss = earliest_finish_loss(log_p, features, masks)
        else:
            advantage = torch.from_numpy(self._advantages(rollout)).to(self.device, torch.float32)
            taken = log_p.gather(-1, rollout.actions.to(self.device).unsqueeze(-1)).squeeze(-1)
            loss = -(taken[:, 1:] * advantage[1:]).mean() - config.entropy * (1 - spent) * entropy
            loss = loss + config.elite_weight * self._elite_loss(embedding)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = self._descend()
        return self._metrics(rollout, loss=float(loss.detach()), entropy=float(entropy.detach()), gradient_norm=norm)

    def _advantages(self, rollout: Rollout) -> NDArray[np.float64]:
        """float64 [B], of the returns; details 2."""
        greedy = self.config.control_variate == "greedy_rollout"
        return advantages(rollout.returns, float(rollout.returns[0]) if greedy else None)

    def _elite_loss(self, embedding: Tensor) -> Tensor:
        """Minus the mean log-probability of the elite's actions."""
        elite = self._elite_steps()
        if elite is None:
            return torch.zeros((), device=self.device)
        features, masks, actions = elite
        logits = self.policy.head(embedding.unsqueeze(1), features, masks)
        loss: Tensor = -logits.log_softmax(dim=-1).gather(-1, actions.unsqueeze(-1)).mean()
        return loss
