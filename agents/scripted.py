"""Random: allowed devices evenly at random; the least that a learner must beat."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from agents.agent import Update, native_env, spent_share
from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.rollout import roll_out


class Random:
    """Draws every device evenly from the action mask and remembers the best placement.

    Args:
        vec_env: Vector environment.
        seed: Seed of the draws.
        torch_device: Not used; every agent takes it.
    """

    name = "random"

    def __init__(self, vec_env: "VectorEnv[Any, Any, Any]", *, seed: int = 0, torch_device: str = "auto") -> None:
        del torch_device
        self.env = native_env(vec_env)
        self.generator = torch.Generator().manual_seed(seed)
        self.updates, self.seconds = 0, 0.0
        self.best_makespan_s = float("inf")
        self.best_op_device = np.full(self.env.problem.n_ops, -1, dtype=np.int32)

    @property
    def simulator_calls(self) -> int:
        """Placements simulated so far."""
        return self.updates * self.env.num_envs

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Plays batches of episodes until either budget is spent.

        Raises:
            InvalidOption: No budget is given.
        """
        while spent_share(self, simulator_calls, seconds, batch=self.env.num_envs) < 1:
            began = time.perf_counter()
            rollout = roll_out(self.env, self._act)
            best = int(np.argmin(np.where(rollout.feasible, rollout.makespans_s, np.inf)))
            if rollout.feasible[best] and rollout.makespans_s[best] < self.best_makespan_s:
                self.best_makespan_s = float(rollout.makespans_s[best])
                self.best_op_device = rollout.op_device[best].copy()
            self.updates += 1
            self.seconds += time.perf_counter() - began
            yield Update(
                self.updates,
                self.simulator_calls,
                self.simulator_calls,
                self.seconds,
                self.best_makespan_s,
                self.best_op_device.copy(),
                {"makespan_mean_s": float(rollout.makespans_s.mean())},
            )

    def act_greedy(self) -> NDArray[np.int32]:
        """int32 [n_ops]: one random placement, drawn without touching the training's draws."""
        placement: NDArray[np.int32] = self.act_sampled(1, seed=0)[0]
        return placement

    def act_sampled(self, placements: int, *, seed: int) -> NDArray[np.int32]:
        """int32 [placements, n_ops]: random placements, drawn without touching the training's draws."""
        before = self.generator.get_state()
        self.generator.manual_seed(seed)
        batches = [roll_out(self.env, self._act).op_device for _ in range(-(-placements // self.env.num_envs))]
        self.generator.set_state(before)
        return np.concatenate(batches)[:placements]

    def _act(self, op: int, features: Tensor, mask: Tensor) -> Tensor:
        del op, features
        return torch.multinomial(mask.float(), 1, generator=self.generator).squeeze(-1)

    def save(self, path: Path) -> None:
        """Writes the generator's state, counters and the best placement."""
        state = {
            "num_envs": self.env.num_envs,
            "generator": self.generator.get_state(),
            "updates": self.updates,
            "seconds": self.seconds,
            "best_makespan_s": self.best_makespan_s,
            "best_op_device": torch.from_numpy(self.best_op_device),
        }
        save_checkpoint(path, agent=self.name, fingerprint=self.env.problem.fingerprint, state=state)

    @classmethod
    def load(cls, path: Path, vec_env: "VectorEnv[Any, Any, Any]", *, torch_device: str = "auto") -> "Random":
        """The agent that `save` wrote; raises as `load_checkpoint`."""
        agent = cls(vec_env, torch_device=torch_device)
        state = load_checkpoint(path, agent=cls.name, fingerprint=agent.env.problem.fingerprint)
        agent.generator.set_state(state["generator"])
        agent.updates, agent.seconds = state["updates"], state["seconds"]
        agent.best_makespan_s, agent.best_op_device = state["best_makespan_s"], state["best_op_device"].numpy()
        return agent
