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

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.agent import Update, native_env, resolve_torch_device
from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.networks.device_head import DeviceHead
from agents.networks.graph_encoder import GraphEncoder
from agents.rollout import Rollout, roll_out
from placement_gym.envs.observation import DEVICE_FEATURES, OP_FEATURES, table
from placement_gym.errors import CheckpointMismatch, InvalidOption, unknown_name

ControlVariate = Literal["mean", "greedy_rollout"]


@dataclass(frozen=True, slots=True)
class ReinforceConfig:
    """Hyper-parameters; numbers refer to the list above.

    Attributes:
        width: Width of embeddings.
        n_layers: Rounds of message passing.
        learning_rate: First learning rate of Adam; falls to a tenth.
        entropy: First weight of the entropy bonus; falls to 0.
        control_variate: Detail 2.
        imitation_updates: Detail 3.
        n_elite: Detail 4.
        elite_weight: Detail 4.
        max_gradient_norm: Detail 5.

    Raises:
        InvalidOption: A number outside its range, or an unknown control variate.
    """

    width: int = 64
    n_layers: int = 3
    learning_rate: float = 3e-3
    entropy: float = 0.01
    control_variate: ControlVariate = "mean"
    imitation_updates: int = 0
    n_elite: int = 8
    elite_weight: float = 0.1
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.control_variate not in get_args(ControlVariate):
            raise InvalidOption(unknown_name("control_variate", self.control_variate, get_args(ControlVariate)))
        least = {"width": 1, "n_layers": 0, "imitation_updates": 0, "n_elite": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InvalidOption(f"ReinforceConfig.{name} is {getattr(self, name)}; expected >= {low}")
        for name in ("learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidOption(f"ReinforceConfig.{name} is {getattr(self, name)}; expected > 0")


class AssignPolicy(nn.Module):
    """Encoder and device head of one policy."""

    def __init__(self, width: int, n_layers: int) -> None:
        super().__init__()
        self.encoder = GraphEncoder(len(OP_FEATURES), 1, width=width, n_layers=n_layers)
        self.head = DeviceHead(width, len(DEVICE_FEATURES), hidden=width)


class Reinforce:
    """The learner; see the module for what it does.

    Args:
        vec_env: Vector environment (`gym.make_vec`); its number of episodes, at least 2, is the batch of an update.
        config: Hyper-parameters.
        seed: Seed of weights and actions.
        torch_device: "auto", "cpu", "cuda", ...

    Raises:
        InvalidOption: `vec_env` has fewer than 2 episodes, or is not the native one.
    """

    name = "reinforce"

    def __init__(
        self,
        vec_env: "VectorEnv[Any, Any, Any]",
        config: ReinforceConfig | None = None,
        *,
        seed: int = 0,
        torch_device: str = "auto",
    ) -> None:
        self.config = config or ReinforceConfig()
        env = native_env(vec_env)
        if env.num_envs < 2:
            raise InvalidOption(f"vec_env has {env.num_envs} episode; expected at least 2")
        self.env, self.device = env, resolve_torch_device(torch_device)
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = AssignPolicy(self.config.width, self.config.n_layers)
        self.policy.to(self.device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate)
        observation, _ = env.reset()
        keys = ("op_features", "edge_index", "edge_features")
        op_features, edge_index, edge_features = (
            torch.from_numpy(table(key, np.array(observation[key][0]))) for key in keys
        )
        n_edges = observation["n_edges"][0, 0]
        self._graph = (
            op_features.to(self.device),
            edge_index[:, : int(n_edges)].to(self.device),
            edge_features[: int(n_edges)].to(self.device),
        )
        self.updates, self.seconds = 0, 0.0
        self.best_makespan_s = float("inf")
        self.best_op_device = np.full(env.problem.n_ops, -1, dtype=np.int32)
        # The best episodes: makespans, and per episode the features, masks and actions of all steps.
        self._elite: list[tuple[float, Tensor, Tensor, Tensor]] = []

    @property
    def simulator_calls(self) -> int:
        """Placements simulated so far: every episode once."""
        return self.updates * self.env.num_envs

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Learns until either budget is spent; both count from the first training on, a resumed one's past included.

        Raises:
            InvalidOption: No budget is given.
        """
        if simulator_calls is None and seconds is None:
            raise InvalidOption("train needs simulator_calls or seconds; got neither")
        while True:
            began = time.perf_counter()
            spent = max(
                self.simulator_calls / simulator_calls if simulator_calls else 0.0,
                self.seconds / seconds if seconds else 0.0,
            )
            if spent >= 1 or (simulator_calls and self.simulator_calls + self.env.num_envs > simulator_calls):
                return
            metrics = self._update(spent)
            self.seconds += time.perf_counter() - began
            yield Update(
                self.updates,
                self.simulator_calls,
                self.simulator_calls,
                self.seconds,
                self.best_makespan_s,
                self.best_op_device.copy(),
                metrics,
            )

    def act_greedy(self) -> NDArray[np.int32]:
        """int32 [n_ops]: the placement of the most likely devices."""
        placement: NDArray[np.int32] = self._roll_out(greedy=True).op_device[0]
        return placement

    def act_sampled(self, placements: int, *, seed: int) -> NDArray[np.int32]:
        """int32 [placements, n_ops], drawn from the policy with a generator of their own."""
        training, self.generator = self.generator, torch.Generator().manual_seed(seed)
        # The first episode of every batch is greedy.
        batches = [self._roll_out().op_device[1:] for _ in range(-(-placements // (self.env.num_envs - 1)))]
        self.generator = training
        return np.concatenate(batches)[:placements]

    def _roll_out(self, *, greedy: bool = False) -> Rollout:
        """A batch of episodes; the first one, or all, take the most likely devices, the others are sampled."""
        with torch.no_grad():
            embedding = self.policy.encoder(*self._graph)

            def act(op: int, features: Tensor, mask: Tensor) -> Tensor:
                logits: Tensor = self.policy.head(embedding[op], features.to(self.device), mask.to(self.device)).cpu()
                if greedy:
                    return logits.argmax(dim=-1)
                # The Gumbel-max trick samples from the softmax with noise of our own generator.
                noise = torch.rand(logits.shape, generator=self.generator)
                noise[0] = 0.5
                return (logits - (-noise.clamp(1e-9, 1 - 1e-7).log()).log()).argmax(dim=-1)

            return roll_out(self.env, act)

    def _update(self, spent: float) -> dict[str, float]:
        """One batch of episodes and one step of the optimiser; `spent` is the share of the budget, 0 to 1."""
        rollout = self._roll_out()
        self._remember(rollout)
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.9 * spent)
        embedding = self.policy.encoder(*self._graph)[rollout.ops.to(self.device)]
        features, masks = rollout.device_features.to(self.device), rollout.masks.to(self.device)
        logits = self.policy.head(embedding.unsqueeze(1), features, masks)
        log_p = logits.log_softmax(dim=-1)
        entropy = -(log_p.exp() * log_p.masked_fill(~masks, 0.0)).sum(dim=-1).mean()
        imitating = self.updates < config.imitation_updates
        if imitating:
            finish = features[..., DEVICE_FEATURES.index("finish_behind")]
            earliest = masks & (finish <= 1e-6)
            loss = -log_p.masked_fill(~earliest, -torch.inf).logsumexp(dim=-1).mean()
        else:
            advantage = torch.from_numpy(self._advantages(rollout)).to(self.device, torch.float32)
            taken = log_p.gather(-1, rollout.actions.to(self.device).unsqueeze(-1)).squeeze(-1)
            loss = -(taken[:, 1:] * advantage[1:]).mean() - config.entropy * (1 - spent) * entropy
            loss = loss + config.elite_weight * self._elite_loss(embedding)
        self.optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), config.max_gradient_norm)
        self.optimiser.step()
        self.updates += 1
        return {
            "makespan_mean_s": float(rollout.makespans_s[1:].mean()),
            "makespan_greedy_s": float(rollout.makespans_s[0]),
            "makespan_min_s": float(rollout.makespans_s.min()),
            "loss": float(loss.detach()),
            "entropy": float(entropy.detach()),
            "gradient_norm": float(norm),
            "learning_rate": float(self.optimiser.param_groups[0]["lr"]),
            "imitating": float(imitating),
        }

    def _advantages(self, rollout: Rollout) -> NDArray[np.float64]:
        """float64 [B], of the returns; details 2."""
        returns = rollout.returns
        centre = returns[0] if self.config.control_variate == "greedy_rollout" else returns[1:].mean()
        advantages: NDArray[np.float64] = (returns - centre) / (returns[1:].std() + 1e-9)
        return advantages.clip(-5, 5)

    def _remember(self, rollout: Rollout) -> None:
        """Keeps the best placement and the elite (distinct makespans, so that one placement does not fill it)."""
        for i in np.argsort(rollout.makespans_s, kind="stable")[: max(1, self.config.n_elite)]:
            makespan = float(rollout.makespans_s[i])
            if not rollout.feasible[i]:
                continue
            if makespan < self.best_makespan_s:
                self.best_makespan_s, self.best_op_device = makespan, rollout.op_device[i].copy()
            if all(makespan != kept[0] for kept in self._elite):
                features, masks = rollout.device_features[:, i].clone(), rollout.masks[:, i].clone()
                self._elite.append((makespan, features, masks, rollout.actions[:, i].clone()))
        self._elite = sorted(self._elite, key=lambda kept: kept[0])[: self.config.n_elite]

    def _elite_loss(self, embedding: Tensor) -> Tensor:
        """Minus the mean log-probability of the elite's actions."""
        if not self._elite:
            return torch.zeros((), device=self.device)
        _, *seen = zip(*self._elite, strict=True)
        features, masks, actions = (torch.stack(list(parts), dim=1) for parts in seen)
        logits = self.policy.head(embedding.unsqueeze(1), features.to(self.device), masks.to(self.device))
        log_p = logits.log_softmax(dim=-1).gather(-1, actions.to(self.device).unsqueeze(-1))
        loss: Tensor = -log_p.mean()
        return loss

    def save(self, path: Path) -> None:
        """Writes weights, optimiser, elite, best placement, counters and the generator's state."""
        state: dict[str, Any] = {
            "config": asdict(self.config),
            "num_envs": self.env.num_envs,
            "policy": self.policy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
            "seconds": self.seconds,
            "best_makespan_s": self.best_makespan_s,
            "best_op_device": torch.from_numpy(self.best_op_device),
            "elite": self._elite,
        }
        save_checkpoint(path, agent=self.name, fingerprint=self.env.problem.fingerprint, state=state)

    @classmethod
    def load(cls, path: Path, vec_env: "VectorEnv[Any, Any, Any]", *, torch_device: str = "auto") -> "Reinforce":
        """The learner that `save` wrote; `vec_env` needs as many episodes as it was trained with.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent, problem or number of episodes.
        """
        env = native_env(vec_env)
        state = load_checkpoint(path, agent=cls.name, fingerprint=env.problem.fingerprint)
        if state["num_envs"] != env.num_envs:
            raise CheckpointMismatch(f"{path} was trained with {state['num_envs']} episodes; got {env.num_envs}")
        agent = cls(vec_env, ReinforceConfig(**state["config"]), torch_device=torch_device)
        agent.policy.load_state_dict(state["policy"])
        agent.optimiser.load_state_dict(state["optimiser"])
        agent.generator.set_state(state["generator"])
        agent.updates, agent.seconds = state["updates"], state["seconds"]
        agent.best_makespan_s, agent.best_op_device = state["best_makespan_s"], state["best_op_device"].numpy()
        agent._elite = state["elite"]
        return agent
