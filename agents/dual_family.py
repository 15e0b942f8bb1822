"""DualFamily: one dual policy, trained on many problems by turns, to be used on others."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from agents.agent import Update, spent_share
from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.dual_config import DualPolicyConfig
from agents.dual_policy import DualPolicyAgent
from placement_gym.envs import SelectPlaceVectorEnv
from placement_gym.errors import InvalidOption


class DualFamily:
    """A `DualPolicyAgent` per problem, which all have one policy and one optimiser, and take updates by turns.

    A turn of each makes a round; every round has an order of its own. Learning rate and temperature fall over the
    budget of the family. What each has found (guides, elite, what was simulated) stays with its problem.

    Args:
        vec_envs: SelectPlace-v0 of each problem (`gym.make_vec`).
        config: Hyper-parameters of them all; without `op_embedding`, which belongs to one graph.
        seed: Seed of weights, actions and turns.
        torch_device: "auto", "cpu", "cuda", ...

    Attributes:
        members: The learners. With a `teacher_op_device` each, stage I imitates these placements.

    Raises:
        InvalidOption: No problem, `op_embedding`, or as `DualPolicyAgent`.
    """

    def __init__(
        self,
        vec_envs: "Sequence[VectorEnv[Any, Any, Any]]",
        config: DualPolicyConfig | None = None,
        *,
        seed: int = 0,
        torch_device: str = "auto",
    ) -> None:
        self.config = config or DualPolicyConfig()
        if not vec_envs:
            raise InvalidOption("vec_envs is empty; expected the environment of at least one problem")
        if self.config.op_embedding:
            raise InvalidOption("DualPolicyConfig.op_embedding is true; a policy of many problems has none")
        self.members = [
            DualPolicyAgent(vec_env, self.config, seed=seed + i, torch_device=torch_device)
            for i, vec_env in enumerate(vec_envs)
        ]
        self.policy, self.optimiser = self.members[0].policy, self.members[0].optimiser
        for member in self.members[1:]:
            member.share(self.members[0])
        self.rng = np.random.default_rng(seed)
        self._turns: list[int] = []

    @property
    def simulator_calls(self) -> int:
        """Placements simulated so far, of all problems."""
        return sum(member.simulator_calls for member in self.members)

    @property
    def seconds(self) -> float:
        """Training time so far, of all problems."""
        return sum(member.seconds for member in self.members)

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Learns until either budget of the family is spent, as `DualPolicyAgent.train`.

        An update's `best_makespan_s` is the mean over the problems, inf before each has been played; it has no
        `best_op_device`.

        Raises:
            InvalidOption: No budget is given.
        """
        while (spent := spent_share(self, simulator_calls, seconds)) < 1:
            if all(member.is_stale for member in self.members):
                return
            self._turns = self._turns or self.rng.permutation(len(self.members)).tolist()
            member = self.members[self._turns.pop()]
            update = member.update(spent, simulator_calls - self.simulator_calls if simulator_calls else None)
            yield Update(
                sum(one.updates for one in self.members),
                sum(one.n_episodes for one in self.members),
                self.simulator_calls,
                self.seconds,
                float(np.mean([one.found.best.makespan_s for one in self.members])),
                np.zeros(0, np.int32),
                update.metrics,
            )

    def save(self, path: Path) -> None:
        """Writes a checkpoint from which training goes on, and whose policy `DualPolicyAgent.load_weights` reads."""
        state = {
            "config": asdict(self.config),
            "policy": self.policy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "turns": self._turns,
            "members": [member.state() for member in self.members],
        }
        fingerprint = _fingerprint([member.env for member in self.members])
        save_checkpoint(path, agent=DualPolicyAgent.name, fingerprint=fingerprint, state=state)

    @classmethod
    def load(
        cls, path: Path, vec_envs: "Sequence[VectorEnv[Any, Any, Any]]", *, torch_device: str = "auto"
    ) -> "DualFamily":
        """The family that `save` wrote, on the same problems in the same order.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent, other problems or another number of episodes.
        """
        state = load_checkpoint(path, agent=DualPolicyAgent.name, fingerprint=_fingerprint(vec_envs))
        family = cls(vec_envs, DualPolicyConfig(**state["config"]), torch_device=torch_device)
        family.policy.load_state_dict(state["policy"])
        family.optimiser.load_state_dict(state["optimiser"])
        family.rng.bit_generator.state = state["rng"]
        family._turns = state["turns"]
        for member, one in zip(family.members, state["members"], strict=True):
            member.restore(one)
        return family


def _fingerprint(vec_envs: "Sequence[VectorEnv[Any, Any, Any]]") -> str:
    """Of all problems together, in their order."""
    own = [env.unwrapped.problem.fingerprint for env in vec_envs if isinstance(env.unwrapped, SelectPlaceVectorEnv)]
    return hashlib.sha256("".join(own).encode()).hexdigest()
