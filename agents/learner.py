"""Learner: what all policy-gradient learners on Assign-v0 share, from the budget to the memory of the best episodes."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.agent import Update, native_env, resolve_torch_device, spent_share
from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.graph_input import GraphInput
from agents.rollout import Rollout, roll_out
from placement_gym.envs.observation import ACTION_FEATURES
from placement_gym.errors import CheckpointMismatch, InvalidOption

# (op number, features of devices [B, D, F], masks [B, D]) -> logits [B, D], -inf where not allowed
Scorer = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class LearnerConfig:
    """Hyper-parameters that all learners have.

    Attributes:
        learning_rate: First learning rate of Adam; falls to a tenth.
        entropy: First weight of the entropy bonus; falls to 0.
        imitation_updates: Updates that imitate before the rewards count.
        n_elite: How many of the best placements found are imitated along.
        elite_weight: Weight of that imitation.
        max_gradient_norm: Gradients are clipped to this norm.

    Raises:
        InvalidOption: A number outside its range.
    """

    learning_rate: float = 3e-3
    entropy: float = 0.01
    imitation_updates: int = 0
    n_elite: int = 8
    elite_weight: float = 0.1
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        self.check_least(imitation_updates=0, n_elite=0)
        for name in ("learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidOption(f"{type(self).__name__}.{name} is {getattr(self, name)}; expected > 0")

    def check_least(self, **least: int) -> None:
        """Raises InvalidOption if a field is below the number given for it."""
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InvalidOption(f"{type(self).__name__}.{name} is {getattr(self, name)}; expected >= {low}")


Config = TypeVar("Config", bound=LearnerConfig)


def earliest_finish_loss(log_p: Tensor, features: Tensor, masks: Tensor) -> Tensor:
    """Minus the mean log-probability of choosing a device with the earliest finish, any of them where several tie.

    Args:
        log_p: float32 [..., n_devices].
        features: float32 [..., n_devices, n_features], of the devices.
        masks: bool [..., n_devices].
    """
    earliest = masks & (features[..., ACTION_FEATURES.index("finish_behind")] <= 1e-6)
    return -log_p.masked_fill(~earliest, -torch.inf).logsumexp(dim=-1).mean()


def mean_entropy(log_p: Tensor, masks: Tensor) -> Tensor:
    """Mean entropy of distributions [..., n_devices] that are 0 outside bool masks of the same shape."""
    return -(log_p.exp() * log_p.masked_fill(~masks, 0.0)).sum(dim=-1).mean()


def advantages(returns: NDArray[np.float64], centre: float | None = None) -> NDArray[np.float64]:
    """float64 [B]: returns less `centre` (default: their mean) over their deviation, clipped to -5 to 5.

    Mean and deviation leave out the first episode, which is greedy.
    """
    middle = returns[1:].mean() if centre is None else centre
    normalised: NDArray[np.float64] = (returns - middle) / (returns[1:].std() + 1e-9)
    return normalised.clip(-5, 5)


def normalised(op_features: Tensor) -> Tensor:
    """Columns of [n_ops, n_features] with mean 0 and deviation 1 over the ops, cut off at 5 deviations."""
    deviation = op_features.std(dim=0, correction=0)
    return ((op_features - op_features.mean(dim=0)) / (deviation + 1e-6)).clamp(-5, 5)


class Learner(ABC, Generic[Config]):
    """Base class of the learners, each of which defines `_make_policy`, `_scorer` and `_update`.

    Args:
        vec_env: Vector environment (`gym.make_vec`); its number of episodes, at least 2, is the batch of an update.
        config: Hyper-parameters.
        seed: Seed of weights and actions.
        torch_device: "auto", "cpu", "cuda", ...

    Raises:
        InvalidOption: `vec_env` has fewer than 2 episodes, or is not the native one.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[LearnerConfig]]

    def __init__(
        self,
        vec_env: "VectorEnv[Any, Any, Any]",
        config: Config | None = None,
        *,
        seed: int = 0,
        torch_device: str = "auto",
    ) -> None:
        self.config: Config = config or self.config_type()  # type: ignore[assignment]
        env = native_env(vec_env)
        if env.num_envs < 2:
            raise InvalidOption(f"vec_env has {env.num_envs} episode; expected at least 2")
        self.env, self.device = env, resolve_torch_device(torch_device)
        self.generator = torch.Generator().manual_seed(seed)
        observation, _ = env.reset()
        op_features, edge_index, edge_features = (
            torch.from_numpy(part).to(self.device) for part in GraphInput.of(observation)
        )
        self._graph = op_features, edge_index, edge_features
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = self._make_policy()
        self.policy.to(self.device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate)
        self.updates, self.seconds = 0, 0.0
        self.best_makespan_s = float("inf")
        self.best_op_device = np.full(env.problem.n_ops, -1, dtype=np.int32)
        # The best episodes: makespans, and per episode the features, masks and actions of all steps.
        self._elite: list[tuple[float, Tensor, Tensor, Tensor]] = []

    @abstractmethod
    def _make_policy(self) -> nn.Module:
        """The network, for `self.env` and `self._graph`; the seed is set."""

    @abstractmethod
    def _scorer(self) -> Scorer:
        """What scores devices throughout one batch of episodes."""

    @abstractmethod
    def _update(self, spent: float) -> dict[str, float]:
        """One batch of episodes, and what is learnt from it; `spent` is the share of the budget, 0 to 1."""

    @property
    def simulator_calls(self) -> int:
        """Placements simulated so far: every episode once."""
        return self.updates * self.env.num_envs

    @property
    def imitating(self) -> bool:
        """Whether the next update imitates."""
        return self.updates < self.config.imitation_updates

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Learns until either budget is spent; what a resumed training has used before counts, too.

        Raises:
            InvalidOption: No budget is given.
        """
        while (spent := spent_share(self, simulator_calls, seconds, batch=self.env.num_envs)) < 1:
            began = time.perf_counter()
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.learning_rate * (1 - 0.9 * spent)
            imitating = float(self.imitating)
            metrics = {**self._update(spent), "imitating": imitating}
            self.updates += 1
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
        """int32 [placements, n_ops], drawn from the policy with a new generator of this seed."""
        training, self.generator = self.generator, torch.Generator().manual_seed(seed)
        # The first episode of every batch is greedy.
        batches = [self._roll_out().op_device[1:] for _ in range(-(-placements // (self.env.num_envs - 1)))]
        self.generator = training
        return np.concatenate(batches)[:placements]

    def _roll_out(self, *, greedy: bool = False) -> Rollout:
        """A batch of episodes; the first one, or all, take the most likely devices, the others are sampled."""
        with torch.no_grad():
            score = self._scorer()

            def act(op: int, features: Tensor, mask: Tensor) -> Tensor:
                logits = score(op, features.to(self.device), mask.to(self.device)).cpu()
                if greedy:
                    return logits.argmax(dim=-1)
                # The Gumbel-max trick samples from the softmax with noise of our own generator.
                noise = torch.rand(logits.shape, generator=self.generator)
                noise[0] = 0.5
                return (logits - (-noise.clamp(1e-9, 1 - 1e-7).log()).log()).argmax(dim=-1)

            return roll_out(self.env, act)

    def _remember(self, rollout: Rollout) -> None:
        """Keeps the best placement and the elite (distinct makespans, so that one placement does not fill it)."""
        for i in np.argsort(rollout.makespans_s, kind="stable")[: max(1, self.config.n_elite)]:
            makespan = float(rollout.makespans_s[i])
            if not rollout.feasible[i]:
                continue
            if makespan < self.best_makespan_s:
                self.best_makespan_s, self.best_op_device = makespan, rollout.op_device[i].copy()
            if all(makespan != kept[0] for kept in self._elite):
                features, masks = rollout.features[:, i].clone(), rollout.masks[:, i].clone()
                self._elite.append((makespan, features, masks, rollout.actions[:, i].clone()))
        self._elite = sorted(self._elite, key=lambda kept: kept[0])[: self.config.n_elite]

    def _elite_steps(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Features [T, n_elite, D, F], masks [T, n_elite, D] and actions [T, n_elite] of the elite, if there is one."""
        if not self._elite:
            return None
        _, *seen = zip(*self._elite, strict=True)
        features, masks, actions = (torch.stack(list(parts), dim=1).to(self.device) for parts in seen)
        return features, masks, actions

    def _descend(self) -> float:
        """One step of the optimiser along the gradients, clipped; returns their norm."""
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_gradient_norm)
        self.optimiser.step()
        return float(norm)

    def _metrics(self, rollout: Rollout, **learnt: float) -> dict[str, float]:
        """Numbers of an update, with those that were learnt."""
        return {
            "makespan_mean_s": float(rollout.makespans_s[1:].mean()),
            "makespan_greedy_s": float(rollout.makespans_s[0]),
            "makespan_min_s": float(rollout.makespans_s.min()),
            "learning_rate": float(self.optimiser.param_groups[0]["lr"]),
            **learnt,
        }

    def _state(self) -> dict[str, Any]:
        """What `save` writes."""
        return {
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

    def save(self, path: Path) -> None:
        """Writes weights, optimiser, elite, best placement, counters and the generator's state."""
        save_checkpoint(path, agent=self.name, fingerprint=self.env.problem.fingerprint, state=self._state())

    def _restore(self, state: dict[str, Any]) -> None:
        """Takes over what `save` wrote."""
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.updates, self.seconds = state["updates"], state["seconds"]
        self.best_makespan_s, self.best_op_device = state["best_makespan_s"], state["best_op_device"].numpy()
        self._elite = state["elite"]

    @classmethod
    def load(cls, path: Path, vec_env: "VectorEnv[Any, Any, Any]", *, torch_device: str = "auto") -> Self:
        """The learner that `save` wrote; `vec_env` needs as many episodes as it was trained with.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent, problem or number of episodes.
        """
        env = native_env(vec_env)
        state = load_checkpoint(path, agent=cls.name, fingerprint=env.problem.fingerprint)
        if state["num_envs"] != env.num_envs:
            raise CheckpointMismatch(f"{path} was trained with {state['num_envs']} episodes; got {env.num_envs}")
        agent = cls(vec_env, cls.config_type(**state["config"]), torch_device=torch_device)  # type: ignore[arg-type]
        agent._restore(state)
        return agent
