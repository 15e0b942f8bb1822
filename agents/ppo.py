"""PPO (Schulman et al., 2017) by sb3-contrib's MaskablePPO, with the graph network as features extractor."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.agent import Update, native_env, order_of, resolve_torch_device, spent_share
from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.networks.extractor import GraphExtractor
from placement_gym.envs import AssignEnv
from placement_gym.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class PpoConfig:
    """Hyper-parameters of MaskablePPO and of the network.

    Attributes:
        n_envs: Environments; each plays `episodes` whole episodes per update.
        episodes: See `n_envs`.
        n_epochs: Passes over the episodes of an update.
        batch_size: Steps per gradient.
        learning_rate: Of Adam.
        clip_range: Of the probability ratio.
        entropy: Weight of the entropy bonus.
        gae_lambda: 1 by default: rewards at the end of long episodes must reach their beginning.
        width: Width of embeddings.
        n_layers: Rounds of message passing.
    """

    n_envs: int = 8
    episodes: int = 2
    n_epochs: int = 8
    batch_size: int = 256
    learning_rate: float = 1e-3
    clip_range: float = 0.2
    entropy: float = 0.001
    gae_lambda: float = 1.0
    width: int = 64
    n_layers: int = 3

    def __post_init__(self) -> None:
        for name in ("n_envs", "episodes", "n_epochs", "batch_size", "width"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"PpoConfig.{name} is {getattr(self, name)}; expected >= 1")


class _Watch(BaseCallback):  # type: ignore[misc]
    """Collects the last infos of finished episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self.finished += [info for info in self.locals["infos"] if "makespan_s" in info]
        return True


class Ppo:
    """The learner.

    Args:
        vec_env: Says the problem and the options; PPO plays in single environments of its own.
        config: Hyper-parameters.
        seed: Seed of weights, actions and batches.
        torch_device: "auto", "cpu", "cuda", ...
    """

    name = "ppo"

    def __init__(
        self,
        vec_env: "VectorEnv[Any, Any, Any]",
        config: PpoConfig | None = None,
        *,
        seed: int = 0,
        torch_device: str = "auto",
    ) -> None:
        self.config = config = config or PpoConfig()
        self.env = native_env(vec_env)
        self._rng = self._global_rng()
        with self._own_rng():
            self.model = MaskablePPO(
                "MultiInputPolicy",
                DummyVecEnv([self._make_env] * config.n_envs),
                n_steps=self.env.problem.n_ops * config.episodes,
                batch_size=config.batch_size,
                n_epochs=config.n_epochs,
                learning_rate=config.learning_rate,
                clip_range=config.clip_range,
                ent_coef=config.entropy,
                gamma=1.0,
                gae_lambda=config.gae_lambda,
                policy_kwargs={
                    "features_extractor_class": GraphExtractor,
                    "features_extractor_kwargs": {"width": config.width, "n_layers": config.n_layers},
                    "net_arch": {"pi": [config.width], "vf": [config.width]},
                },
                seed=seed,
                device=resolve_torch_device(torch_device),
            )
        self.updates, self.seconds = 0, 0.0
        self.best_makespan_s = float("inf")
        self.best_op_device = np.full(self.env.problem.n_ops, -1, dtype=np.int32)

    def _make_env(self) -> AssignEnv:
        env = self.env
        task = env.task
        return AssignEnv(
            env.problem, rule=env.rule, reward=task.reward, invalid=task.invalid, order=order_of(env), sizes=env.sizes
        )

    @staticmethod
    def _global_rng() -> tuple[torch.Tensor, dict[str, Any]]:
        return torch.get_rng_state(), dict(np.random.get_state(legacy=False))  # noqa: NPY002

    @contextmanager
    def _own_rng(self) -> Iterator[None]:
        """Stable-baselines3 draws from the global generators: they are ours within, and as before afterwards."""
        before = self._global_rng()
        self._set_global_rng(self._rng)
        try:
            yield
        finally:
            self._rng = self._global_rng()
            self._set_global_rng(before)

    @staticmethod
    def _set_global_rng(state: tuple[torch.Tensor, dict[str, Any]]) -> None:
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])  # noqa: NPY002

    @property
    def simulator_calls(self) -> int:
        """Placements simulated so far: every episode once."""
        return self.updates * self.config.n_envs * self.config.episodes

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Learns until either budget is spent; both count from the first training on.

        Raises:
            InvalidOption: No budget is given.
        """
        while spent_share(self, simulator_calls, seconds, batch=self.config.n_envs * self.config.episodes) < 1:
            began = time.perf_counter()
            watch = _Watch()
            with self._own_rng():
                # One call collects whole episodes and updates once; every episode begins and ends within it.
                self.model.learn(self.model.n_steps * self.config.n_envs, callback=watch, reset_num_timesteps=False)
            self.updates += 1
            for info in watch.finished:
                if info["makespan_s"] < self.best_makespan_s and not info["overfull"]:
                    self.best_makespan_s = float(info["makespan_s"])
                    self.best_op_device = info["op_device"][: self.env.problem.n_ops].copy()
            self.seconds += time.perf_counter() - began
            makespans = [info["makespan_s"] for info in watch.finished]
            logged = self.model.logger.name_to_value
            metrics = {"makespan_mean_s": float(np.mean(makespans)), "makespan_min_s": float(np.min(makespans))}
            if "train/entropy_loss" in logged:
                metrics["entropy"] = -float(logged["train/entropy_loss"])
            for name in ("loss", "value_loss", "approx_kl", "clip_fraction", "explained_variance"):
                if f"train/{name}" in logged:
                    metrics[name] = float(logged[f"train/{name}"])
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
        return self._play(greedy=True)

    def act_sampled(self, placements: int, *, seed: int) -> NDArray[np.int32]:
        """int32 [placements, n_ops], drawn from the policy; the training's generators are left as they were."""
        training = self._rng
        with self._own_rng():
            torch.manual_seed(seed)
            played = np.stack([self._play(greedy=False) for _ in range(placements)])
        self._rng = training
        return played

    def _play(self, *, greedy: bool) -> NDArray[np.int32]:
        """int32 [n_ops], one episode."""
        env = self._make_env()
        observation, _ = env.reset()
        done = False
        info: dict[str, Any] = {}
        while not done:
            action, _ = self.model.predict(observation, action_masks=env.action_masks(), deterministic=greedy)
            observation, _, done, _, info = env.step(np.int64(action))
        placement: NDArray[np.int32] = info["op_device"][: self.env.problem.n_ops]
        return placement

    def save(self, path: Path) -> None:
        """Writes weights, optimiser, counters, generators' states and the best placement."""
        numpy_state = self._rng[1]
        state = {
            "config": asdict(self.config),
            "policy": self.model.policy.state_dict(),
            "optimiser": self.model.policy.optimizer.state_dict(),
            "num_timesteps": self.model.num_timesteps,
            "torch_rng": self._rng[0],
            "numpy_rng": (torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)), numpy_state["state"]["pos"]),
            "updates": self.updates,
            "seconds": self.seconds,
            "best_makespan_s": self.best_makespan_s,
            "best_op_device": torch.from_numpy(self.best_op_device),
        }
        save_checkpoint(path, agent=self.name, fingerprint=self.env.problem.fingerprint, state=state)

    @classmethod
    def load(cls, path: Path, vec_env: "VectorEnv[Any, Any, Any]", *, torch_device: str = "auto") -> "Ppo":
        """The learner that `save` wrote.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent or problem.
        """
        state = load_checkpoint(path, agent=cls.name, fingerprint=native_env(vec_env).problem.fingerprint)
        agent = cls(vec_env, PpoConfig(**state["config"]), torch_device=torch_device)
        agent.model.policy.load_state_dict(state["policy"])
        agent.model.policy.optimizer.load_state_dict(state["optimiser"])
        agent.model.num_timesteps = state["num_timesteps"]
        key, position = state["numpy_rng"]
        numpy_state = agent._rng[1]
        numpy_state["state"] = {"key": key.numpy().astype(np.uint32), "pos": int(position)}
        agent._rng = (state["torch_rng"], numpy_state)
        agent.updates, agent.seconds = state["updates"], state["seconds"]
        agent.best_makespan_s, agent.best_op_device = state["best_makespan_s"], state["best_op_device"].numpy()
        return agent
