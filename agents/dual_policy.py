"""DualPolicy agent: SEL chooses an op, PLC its device (DOPPLER, arXiv 2505.23131, ICLR 2026).

Stage I imitates a teacher without simulating, stage II learns from simulated makespans, and stage III is stage II with
an evaluator that measures (`evaluate_by`), which is first asked about the teacher's placement and good ones that differ
(`agents.pool`). Departures from the released recipe; each has a number and an option:

1. Batches of episodes, actions sampled from the softmax, advantages normalised over the batch, no discount, ratios
   clipped over `epochs` passes (Schulman et al., 2017); the recipe takes one episode per update, acts greedily or
   evenly at random, takes a running mean off the cost, and discounts early steps away.
2. Learning rate and entropy bonus do fall, linearly over the budget; gradients are clipped by norm.
3. Path embeddings are means over the critical paths of the op they belong to, normalised per op (`networks.paths`).
4. Mean aggregation with edge features instead of an edge network; a device's content is a mean as well.
5. Features of devices come from a clock that counts transfers and waiting, and are seen raw and relative.
6. Self-imitation (Oh et al., 2018): the devices of the best `n_elite` placements are imitated along, weight
   `elite_weight`, as if no guide had been followed.
7. Guided episodes (large-neighbourhood search, Shaw, 1998): `guided_share` of the batches of an update follow one of
   `n_guides` good placements but for a few ops, `critical_share` of which are about an op on the chain that sets the
   guide's makespan; there the policy chooses. PLC sees what the guide does with readers, inputs and alike ops, and
   which devices it leaves idle meanwhile. After each batch guides move by the rule of Metropolis, with a temperature
   that falls from `hot` to `cold` times the first makespan. The advantage of such an episode is over its guide, only
   the policy's own choices are learnt, and nothing else is scored (`agents.follow`).
8. What was simulated is not simulated again, names of interchangeable devices apart.
9. `op_embedding`: an embedding per op is learned besides; it belongs to one graph.
10. SEL chooses among at most `max_candidates` ready ops, those of largest b-level, so that an episode of a wide graph
    costs no more per op than one of a narrow graph.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.agent import Update, resolve_torch_device, spent_share
from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.dual_config import DualPolicyConfig
from agents.dual_player import DualPlayer
from agents.dual_problem import graph_of, native_select_place
from agents.dual_rollout import DualRollout, log_probabilities
from agents.dual_search import DualSearch, Played
from agents.graph_input import OP_INPUTS
from agents.guides import normalised
from agents.imitation import imitation_loss
from agents.lockstep import Lockstep
from agents.networks.dual import DualPolicy
from agents.pool import SIZE
from agents.simulated import Evaluator
from placement_gym.arrays import FloatArray, IntArray
from placement_gym.envs import SelectPlaceVectorEnv
from placement_gym.envs.select_place import priority_of
from placement_gym.errors import CheckpointMismatch, InvalidOption


class DualPolicyAgent:
    """The learner; see the module for what it does.

    Args:
        vec_env: SelectPlace-v0 (`gym.make_vec`); its number of episodes, at least 2, is the batch of an update.
        config: Hyper-parameters.
        seed: Seed of weights and actions.
        torch_device: "auto", "cpu", "cuda", ...

    Attributes:
        search: Plays and evaluates batches.
        found: What it has found.
        teacher_op_device: int32 [n_ops], the placement that teaches in stage I; None for the critical path.

    Raises:
        InvalidOption: `vec_env` has fewer than 2 episodes, is not the native one, or its action is not the policy's.
    """

    name = "dual_policy"

    def __init__(
        self,
        vec_env: "VectorEnv[Any, Any, Any]",
        config: DualPolicyConfig | None = None,
        *,
        seed: int = 0,
        torch_device: str = "auto",
    ) -> None:
        self.config = config or DualPolicyConfig()
        self.env, self.device = native_select_place(vec_env, self.config.policy), resolve_torch_device(torch_device)
        self.episodes, problem = Lockstep(self.env), self.env.problem
        self.rng = np.random.default_rng(seed)
        self.graph = graph_of(self.env, self.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            n_ops = problem.n_ops if self.config.op_embedding else 0
            self.policy = DualPolicy(self.config.width, self.config.n_layers, n_ops=n_ops)
        self.policy.to(self.device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate)
        self.player = DualPlayer(
            self.episodes,
            self.policy,
            self.graph,
            kind=self.config.policy,
            every_step=self.config.message_passing == "step",
            max_candidates=self.config.max_candidates,
        )
        self.search = DualSearch(self.player, self.graph, self.config, self.rng)
        self.found = self.search.found
        self.teacher_op_device: IntArray | None = None
        self.updates, self.n_episodes, self.seconds = 0, 0, 0.0

    def evaluate_by(self, evaluator: Evaluator, *, candidates: int = SIZE) -> None:
        """Makespans come from `evaluator` from now on (stage III); those that were seen before no longer count.

        The best placement and so many others, a teacher's first (`teach`), then good ones that differ from each other
        (`agents.pool`), are evaluated anew at once, and training goes on from the best of these.

        Raises:
            InvalidOption: `candidates` is below 0.
        """
        if candidates < 0:
            raise InvalidOption(f"candidates is {candidates}; expected >= 0")
        self.search.evaluate_by(evaluator, candidates, self.teacher_op_device)

    def teach(self, op_device: IntArray, *, simulator_calls: int = 0) -> None:
        """Stage I imitates this placement from now on, and it is the first guide.

        The simulator calls that found it count as the agent's own, as does the one that evaluates it again.
        """
        self.teacher_op_device = np.array(op_device, dtype=np.int32)
        self.found.calls += simulator_calls
        self.search.start(self.teacher_op_device)

    def share(self, other: "DualPolicyAgent") -> None:
        """Uses the policy and the optimiser of `other` from now on; what was found stays apart."""
        self.policy = self.player.policy = other.policy
        self.optimiser = other.optimiser

    @property
    def simulator_calls(self) -> int:
        """Placements simulated (or measured) so far; what was simulated before is not simulated again."""
        return self.found.calls

    @property
    def is_stale(self) -> bool:
        """Whether the policy no longer finds a placement that has not been simulated."""
        return self.found.is_stale

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Learns until either budget is spent; what a resumed training has used before counts, too.

        Ends early if the policy no longer finds a placement that has not been simulated.

        Raises:
            InvalidOption: No budget is given.
        """
        while (spent := spent_share(self, simulator_calls, seconds)) < 1 and not self.is_stale:
            yield self.update(spent, simulator_calls - self.simulator_calls if simulator_calls else None)

    def update(self, spent: float, left: int | None = None) -> Update:
        """One update; `spent` is the share of the budget that is used, `left` how many placements may be simulated."""
        began = time.perf_counter()
        imitating = self.updates < self.config.imitation_updates
        left = self.env.num_envs * self.config.batches if left is None else left
        metrics = self._imitate() if imitating else self._reinforce(spent, left)
        self.updates += 1
        self.n_episodes += self.env.num_envs * (1 if imitating else self.config.batches)
        self.seconds += time.perf_counter() - began
        return Update(
            self.updates,
            self.n_episodes,
            self.found.calls,
            self.seconds,
            self.found.best.makespan_s,
            self.found.best.op_device.copy(),
            {**metrics, "imitating": float(imitating)},
            self._priority(self.found.best.order),
        )

    def act_greedy(self) -> NDArray[np.int32]:
        """int32 [n_ops]: the placement of the most likely ops and devices."""
        placement: NDArray[np.int32] = self._greedy().op_device[0]
        return placement

    def greedy_priority(self) -> FloatArray | None:
        """float64 [n_ops]: ranks of the greedy placement's ops where their order counts (`priority="selection"`)."""
        return self._priority(self._greedy().order[0])

    def _greedy(self) -> DualRollout:
        return self.player.play(self.player.snapshot(), np.random.default_rng(0), n_greedy=self.env.num_envs)

    def _priority(self, order: NDArray[Any]) -> FloatArray | None:
        """Ranks that an order of selection, [n_ops], means; None where it means nothing."""
        ranks: FloatArray = priority_of(order[None].astype(np.int64), len(order))[0]
        return ranks if self.episodes.by_selection else None

    def act_sampled(self, placements: int, *, seed: int) -> NDArray[np.int32]:
        """int32 [placements, n_ops], drawn from the policy with a new generator of this seed."""
        rng, b, snapshot = np.random.default_rng(seed), self.env.num_envs, self.player.snapshot()
        batches = [self.player.play(snapshot, rng).op_device for _ in range(-(-placements // b))]
        return np.concatenate(batches)[:placements]

    def _imitate(self) -> dict[str, float]:
        """One update of stage I."""
        teacher = self.teacher_op_device
        rollout = self.player.play(self.player.snapshot(), self.rng, op_device=teacher)
        log_p = log_probabilities(self.policy, self.graph, rollout, every_step=self.player.every_step, whole=True)
        b_level = self.graph.op_features[:, OP_INPUTS.index("b_level")].cpu()
        loss, metrics = imitation_loss(
            rollout, log_p, b_level, teacher, interchangeable=self.found.simulated.interchangeable
        )
        return {**metrics, **self._descend(loss, self.config.learning_rate)}

    def _reinforce(self, spent: float, left: int) -> dict[str, float]:
        """One update of stage II or III; `spent` is the share of the budget, `left` how many placements it allows."""
        config = self.config
        played: list[Played] = []
        n_free, snapshot = config.n_free(self.rng) if self.found.guides.now else config.batches, self.player.snapshot()
        for k in range(config.batches):
            calls = left - sum(int(one.fresh.sum()) for one in played)
            if calls:
                played.append(self.search.play(snapshot, guided=k >= n_free, spent=spent, left=calls))
        rollout = DualRollout.joined([one.rollout for one in played])
        makespans_s, fresh, free, gain = (np.concatenate(part) for part in zip(*(p[1:] for p in played), strict=True))
        advantage = torch.from_numpy(normalised(gain, free)).to(self.device, torch.float32)
        learning_rate = config.learning_rate * (1 - 0.9 * spent)
        metrics: dict[str, float] = {}
        before: Tensor | None = None
        for _ in range(config.epochs):
            log_p = log_probabilities(self.policy, self.graph, rollout, every_step=self.player.every_step)
            taken = log_p.taken(rollout)
            before = taken.detach() if before is None else before
            ratio = (taken - before).exp()
            clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
            count = max(1, int((rollout.sampled_device | rollout.sampled_op).sum()))
            entropy = log_p.entropy()
            loss = -torch.minimum(ratio * advantage, clipped * advantage).sum() / count
            loss = loss - config.entropy * (1 - spent) * entropy + config.elite_weight * self._elite_loss()
            metrics = self._descend(loss, learning_rate)
        free &= np.isfinite(makespans_s)
        return {
            "makespan_mean_s": float(makespans_s[free].mean() if free.any() else makespans_s.mean()),
            "makespan_min_s": float(makespans_s.min()),
            "makespan_guide_s": min((one.makespan_s for one in self.found.guides.now), default=float("nan")),
            "fresh_share": float(fresh.mean()),
            "entropy": float(entropy.detach()),
            **metrics,
        }

    def _elite_loss(self) -> Tensor:
        """Minus the mean log-probability of the elite's devices."""
        elite = self.search.elite() if self.config.elite_weight else None
        if elite is None:
            return torch.zeros((), device=self.device)
        log_p = log_probabilities(self.policy, self.graph, elite, every_step=self.player.every_step)
        return -log_p.taken(elite).mean()

    def _descend(self, loss: Tensor, learning_rate: float) -> dict[str, float]:
        """One step of the optimiser."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_gradient_norm)
        self.optimiser.step()
        return {"loss": float(loss.detach()), "gradient_norm": float(norm), "learning_rate": learning_rate}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides weights and optimiser: what was found, counters, the generator's state."""
        return {
            "num_envs": self.env.num_envs,
            "rng": self.rng.bit_generator.state,
            "counters": (self.updates, self.n_episodes, self.seconds),
            "teacher_op_device": None if self.teacher_op_device is None else torch.from_numpy(self.teacher_op_device),
            "found": self.found.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over what `state` returned.

        Raises:
            CheckpointMismatch: It is of another number of episodes.
        """
        if state["num_envs"] != self.env.num_envs:
            raise CheckpointMismatch(f"trained with {state['num_envs']} episodes; got {self.env.num_envs}")
        self.rng.bit_generator.state = state["rng"]
        self.updates, self.n_episodes, self.seconds = state["counters"]
        taught = state["teacher_op_device"]
        self.teacher_op_device = None if taught is None else taught.numpy()
        self.search.restore(state["found"])

    def save(self, path: Path) -> None:
        """Writes weights, optimiser, and `state`."""
        state = {
            **self.state(),
            "config": asdict(self.config),
            "policy": self.policy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(path, agent=self.name, fingerprint=self.env.problem.fingerprint, state=state)

    @classmethod
    def load(cls, path: Path, vec_env: "VectorEnv[Any, Any, Any]", *, torch_device: str = "auto") -> "DualPolicyAgent":
        """The learner that `save` wrote; `vec_env` needs as many episodes as it was trained with.

        An evaluator that was exchanged is not in the file: hand it to `evaluate_by` again.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent, problem or number of episodes.
        """
        fingerprint = (
            vec_env.unwrapped.problem.fingerprint if isinstance(vec_env.unwrapped, SelectPlaceVectorEnv) else ""
        )
        state = load_checkpoint(path, agent=cls.name, fingerprint=fingerprint)
        agent = cls(vec_env, DualPolicyConfig(**state["config"]), torch_device=torch_device)
        agent.policy.load_state_dict(state["policy"])
        agent.optimiser.load_state_dict(state["optimiser"])
        agent.restore(state)
        return agent

    def load_weights(self, path: Path) -> None:
        """Takes over the policy that `save` of another training wrote, whatever its problem; all else stays as it is.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent, or its networks have another form.
        """
        self._take(load_checkpoint(path, agent=self.name, fingerprint=None)["policy"], str(path))

    def adopt(self, policy: DualPolicy) -> None:
        """Takes over the weights of another training's policy, whatever its problem; all else stays as it is.

        Raises:
            CheckpointMismatch: Its networks have another form.
        """
        self._take(policy.state_dict(), "the policy")

    def _take(self, weights: Mapping[str, Tensor], source: str) -> None:
        weights = {name: value for name, value in weights.items() if name != "table"}
        own = {name: value.shape for name, value in self.policy.state_dict().items() if name != "table"}
        if own != {name: value.shape for name, value in weights.items()}:
            raise CheckpointMismatch(f"{source} has networks of another form; expected width {self.config.width}")
        self.policy.load_state_dict(weights, strict=False)
