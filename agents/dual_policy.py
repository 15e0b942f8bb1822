"""DualPolicy agent: SEL chooses an op, PLC its device (DOPPLER, arXiv 2505.23131, ICLR 2026).

Stage I imitates a teacher without simulating, stage II learns from simulated makespans, and stage III is stage II with
a judge that measures (`judge`). Departures from the released recipe; each has a number and an option:

1. Batches of episodes, actions sampled from the softmax, advantages normalised over the batch, no discount, ratios
   clipped over `epochs` passes (Schulman et al., 2017); the recipe takes one episode per update, acts greedily or
   evenly at random, takes a running mean off the cost, and discounts early steps away.
2. Learning rate and entropy bonus do fall, linearly over the budget; gradients are clipped by norm.
3. Path embeddings are means over the critical paths of the op they belong to, normalised per op (`networks.paths`).
4. Mean aggregation with edge features instead of an edge network; a device's content is a mean as well.
5. Features of devices come from a clock that counts transfers and waiting, and are seen raw and relative.
6. Self-imitation (Oh et al., 2018): the best `n_elite` episodes are imitated along, weight `elite_weight`.
7. Guided episodes (large-neighbourhood search, Shaw, 1998): `guided_share` of a batch follows one of `n_guides` good
   placements but for a few ops, for which the policy chooses; what the guide does with readers, inputs and alike ops
   is seen by PLC. Guides move by the rule of Metropolis, with a temperature that falls from `hot` to `cold` times the
   first makespan. The advantage of such an episode is over its guide, and only the policy's own choices are learnt.
8. What was simulated is not simulated again, names of interchangeable devices apart.
9. `op_embedding`: an embedding per op is learned besides; it belongs to one graph.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.agent import Update, resolve_torch_device
from agents.checkpoint import load_checkpoint, save_checkpoint
from agents.dual_config import DualPolicyConfig
from agents.dual_player import DualPlayer
from agents.dual_problem import graph_of, native_select_place
from agents.dual_rollout import DualRollout, judge
from agents.guides import Guides, Plan, Simulated, normalised
from agents.imitation import imitation_loss
from agents.networks.dual import DualPolicy
from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs import SelectPlaceVectorEnv
from placement_gym.envs.observation import OP_FEATURES
from placement_gym.errors import CheckpointMismatch, InvalidOption

# (op_device int32 [B, n_ops], priority float64 [B, n_ops] or None) -> makespans, float64 [B], seconds
Judge = Callable[[IntArray, FloatArray | None], FloatArray]
# Training ends after so many batches without a placement that was not simulated before.
PATIENCE = 30


class _Played(NamedTuple):
    """A batch, the makespans, which were new, which episodes were free, and seconds gained on guides (`gains`)."""

    rollout: DualRollout
    makespans_s: FloatArray
    fresh: BoolArray
    free: BoolArray
    gain: FloatArray


class DualPolicyAgent:
    """The learner; see the module for what it does.

    Args:
        vec_env: SelectPlace-v0 (`gym.make_vec`); its number of episodes, at least 2, is the batch of an update.
        config: Hyper-parameters.
        seed: Seed of weights and actions.
        torch_device: "auto", "cpu", "cuda", ...

    Attributes:
        judge: Says the makespans of a batch of placements; the simulator, unless it is exchanged (`judge_by`).
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
        self.episodes, problem = self.env.episodes, self.env.problem
        self.rng = np.random.default_rng(seed)
        self.graph = graph_of(self.env, self.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            n_ops = problem.n_ops if self.config.op_embedding else 0
            self.policy = DualPolicy(self.config.width, self.config.n_layers, n_ops=n_ops)
        self.policy.to(self.device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate)
        every_step = self.config.message_passing == "step"
        self.player = DualPlayer(self.episodes, self.policy, self.graph, kind=self.config.policy, every_step=every_step)
        self.judge: Judge = self._simulate
        self.teacher_op_device: IntArray | None = None
        self.updates, self.n_episodes, self.seconds, self._calls, self._stale = 0, 0, 0.0, 0, 0
        self._forget()

    def _forget(self) -> None:
        """Whatever makespans have been seen."""
        self.guides = Guides(self.graph, self.episodes, self.config.critical_share)
        self.simulated = Simulated(self.env.problem)
        self.elite: list[tuple[float, DualRollout]] = []
        self.first_makespan_s = 0.0
        self.best_makespan_s = float("inf")
        self.best_op_device = np.full(self.env.problem.n_ops, -1, dtype=np.int32)

    def judge_by(self, judge: Judge) -> None:
        """Makespans come from `judge` from now on (stage III); those that were seen before no longer count."""
        self.judge = judge
        self._forget()

    def teach(self, op_device: IntArray, *, simulator_calls: int = 0) -> None:
        """Stage I imitates this placement from now on; the simulator calls that found it count as the agent's own."""
        self.teacher_op_device = np.array(op_device, dtype=np.int32)
        self._calls += simulator_calls

    @property
    def simulator_calls(self) -> int:
        """Placements simulated (or measured) so far; what was simulated before is not simulated again."""
        return self._calls

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Learns until either budget is spent; both count from the first training on, a resumed one's past included.

        Ends early if the policy no longer finds a placement that has not been simulated.

        Raises:
            InvalidOption: No budget is given.
        """
        if simulator_calls is None and seconds is None:
            raise InvalidOption("train needs simulator_calls or seconds; got neither")
        while True:
            began = time.perf_counter()
            spent = max(
                self._calls / simulator_calls if simulator_calls else 0.0, self.seconds / seconds if seconds else 0.0
            )
            if spent >= 1 or self._stale >= PATIENCE:
                return
            imitating = self.updates < self.config.imitation_updates
            left = simulator_calls - self._calls if simulator_calls else self.env.num_envs
            metrics = self._imitate() if imitating else self._reinforce(spent, left)
            self.updates += 1
            self.n_episodes += self.env.num_envs * (1 if imitating else self.config.batches)
            self.seconds += time.perf_counter() - began
            yield Update(
                self.updates,
                self.n_episodes,
                self._calls,
                self.seconds,
                self.best_makespan_s,
                self.best_op_device.copy(),
                {**metrics, "imitating": float(imitating)},
            )

    def act_greedy(self) -> NDArray[np.int32]:
        """int32 [n_ops]: the placement of the most likely ops and devices."""
        placement: NDArray[np.int32] = self._play_free(np.random.default_rng(0), self.env.num_envs).op_device[0]
        return placement

    def act_sampled(self, placements: int, *, seed: int) -> NDArray[np.int32]:
        """int32 [placements, n_ops], drawn from the policy with a generator of their own."""
        rng, b = np.random.default_rng(seed), self.env.num_envs
        return np.concatenate([self._play_free(rng, 0).op_device for _ in range(-(-placements // b))])[:placements]

    def _play_free(self, rng: np.random.Generator, n_greedy: int, op_device: IntArray | None = None) -> DualRollout:
        """A batch that follows no guide; all devices are those of `op_device` where it is given."""
        plan = Plan.free(self.env.num_envs, self.env.problem.n_ops, self.env.problem.n_devices)
        if op_device is not None:
            plan.op_device[:] = op_device
        return self.player.play(plan, rng, n_greedy=n_greedy)

    def _simulate(self, op_device: IntArray, priority: FloatArray | None) -> FloatArray:
        return self.episodes.compiled.makespans_s(op_device, priority)

    def _imitate(self) -> dict[str, float]:
        """One update of stage I."""
        rollout = self._play_free(self.rng, 0, self.teacher_op_device)
        judged = judge(self.policy, self.graph, rollout, every_step=self.player.every_step, whole=True)
        b_level = self.graph.op_features[:, OP_FEATURES.index("b_level")].cpu()
        loss, metrics = imitation_loss(
            rollout, judged, b_level, self.teacher_op_device, interchangeable=self.simulated.interchangeable
        )
        return {**metrics, **self._descend(loss, self.config.learning_rate)}

    def _reinforce(self, spent: float, left: int) -> dict[str, float]:
        """One update of stage II or III; `spent` is the share of the budget, `left` how many placements it allows."""
        config = self.config
        played = []
        for _ in range(config.batches):
            played.append(self._play(spent, left - sum(int(one.fresh.sum()) for one in played)))
        rollout = DualRollout.joined([one.rollout for one in played])
        makespans_s, fresh, free, gain = (np.concatenate(part) for part in zip(*(p[1:] for p in played), strict=True))
        advantage = torch.from_numpy(normalised(gain, free)).to(self.device, torch.float32)
        learning_rate = config.learning_rate * (1 - 0.9 * spent)
        metrics: dict[str, float] = {}
        before: Tensor | None = None
        for _ in range(config.epochs):
            judged = judge(self.policy, self.graph, rollout, every_step=self.player.every_step)
            taken = judged.taken(rollout)
            before = taken.detach() if before is None else before
            ratio = (taken - before).exp()
            clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
            count = max(1, int((rollout.sampled_device | rollout.sampled_op).sum()))
            entropy = judged.entropy()
            loss = -torch.minimum(ratio * advantage, clipped * advantage).sum() / count
            loss = loss - config.entropy * (1 - spent) * entropy + config.elite_weight * self._elite_loss()
            metrics = self._descend(loss, learning_rate)
        free &= np.isfinite(makespans_s)
        return {
            "makespan_mean_s": float(makespans_s[free].mean() if free.any() else makespans_s.mean()),
            "makespan_min_s": float(makespans_s.min()),
            "makespan_guide_s": min((one.makespan_s for one in self.guides.now), default=float("nan")),
            "fresh_share": float(fresh.mean()),
            "entropy": float(entropy.detach()),
            **metrics,
        }

    def _play(self, spent: float, left: int) -> "_Played":
        """One batch of episodes, after which the guides move."""
        config, b = self.config, self.env.num_envs
        guided = 0.0 if config.policy == "select_only" else config.guided_share
        n_free = int((1 - guided) * b + self.rng.random()) if self.guides.now else b
        plan = self.guides.plan(b, n_free, self.rng)
        rollout = self.player.play(plan, self.rng, n_greedy=min(1, n_free))
        makespans_s, fresh = self._makespans_s(rollout, left)
        told = np.isfinite(makespans_s) & ~rollout.overfull
        self.first_makespan_s = self.first_makespan_s or float(makespans_s[np.isfinite(makespans_s)].mean())
        gain = self.guides.gains(plan, makespans_s, rollout.overfull, self.episodes.reference_s)
        self._remember(rollout, makespans_s)
        temperature_s = self.first_makespan_s * config.hot * (config.cold / config.hot) ** spent
        self._guide(plan, rollout, np.where(told, makespans_s, np.inf), fresh, temperature_s)
        return _Played(rollout, makespans_s, fresh, plan.guide < 0, gain)

    def _makespans_s(self, rollout: DualRollout, left: int) -> tuple[FloatArray, BoolArray]:
        """(float64 [B], bool [B]): makespans, and which placements had not been seen; inf behind the first `left`."""
        ordered, seen = self.episodes.by_selection, self.simulated.makespan_s
        keys = [
            self.simulated.key(d, o if ordered else None) for d, o in zip(rollout.op_device, rollout.order, strict=True)
        ]
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in seen}
        rows = sorted(first.values())[:left]
        fresh = np.zeros(len(keys), np.bool_)
        fresh[rows] = True
        if rows:
            priority = self.episodes.priority[rows] if ordered else None
            for i, makespan_s in zip(rows, self.judge(rollout.op_device[rows], priority).tolist(), strict=True):
                seen[keys[i]] = makespan_s
        self._calls += len(rows)
        self._stale = 0 if rows else self._stale + 1
        return np.array([seen.get(key, np.inf) for key in keys]), fresh

    def _remember(self, rollout: DualRollout, makespans_s: FloatArray) -> None:
        """Keeps the best placement and the elite (distinct makespans, so that one placement does not fill it)."""
        for i in np.argsort(makespans_s, kind="stable")[: max(1, self.config.n_elite)]:
            makespan = float(makespans_s[i])
            if rollout.overfull[i] or not np.isfinite(makespan):
                continue
            if makespan < self.best_makespan_s:
                self.best_makespan_s, self.best_op_device = makespan, rollout.op_device[i].copy()
            worst = self.elite[-1][0] if len(self.elite) >= self.config.n_elite and self.elite else np.inf
            if self.config.n_elite and makespan < worst and all(makespan != kept for kept, _ in self.elite):
                self.elite.append((makespan, rollout.episode(int(i))))
                self.elite = sorted(self.elite, key=lambda kept: kept[0])[: self.config.n_elite]

    def _guide(
        self, plan: Plan, rollout: DualRollout, makespans_s: FloatArray, fresh: BoolArray, temperature_s: float
    ) -> None:
        """Guides move; free episodes become guides while there are too few, and where they are better."""
        self.guides.accept(plan, rollout.op_device, rollout.order, makespans_s, fresh, temperature_s, self.rng)
        for b in np.argsort(makespans_s, kind="stable"):
            if plan.guide[b] >= 0 or not np.isfinite(makespans_s[b]):
                continue
            now, makespan_s = self.guides.now, float(makespans_s[b])
            full = len(now) >= self.config.n_guides
            worst = max(range(len(now)), key=lambda k: now[k].makespan_s) if full else len(now)
            if full and now[worst].makespan_s <= makespan_s:
                break
            now[worst : worst + 1] = [self.guides.guide(rollout.op_device[b], rollout.order[b], makespan_s)]

    def _elite_loss(self) -> Tensor:
        """Minus the mean log-probability of what the elite did."""
        if not self.elite or not self.config.elite_weight:
            return torch.zeros((), device=self.device)
        rollout = DualRollout.joined([one for _, one in self.elite])
        judged = judge(self.policy, self.graph, rollout, every_step=self.player.every_step)
        return -judged.taken(rollout).mean()

    def _descend(self, loss: Tensor, learning_rate: float) -> dict[str, float]:
        """One step of the optimiser."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_gradient_norm)
        self.optimiser.step()
        return {"loss": float(loss.detach()), "gradient_norm": float(norm), "learning_rate": learning_rate}

    def save(self, path: Path) -> None:
        """Writes weights, optimiser, guides, elite, what was simulated, counters and the generator's state."""
        state: dict[str, Any] = {
            "config": asdict(self.config),
            "num_envs": self.env.num_envs,
            "policy": self.policy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "counters": (self.updates, self.n_episodes, self._calls, self._stale, self.seconds, self.first_makespan_s),
            "best_makespan_s": self.best_makespan_s,
            "best_op_device": torch.from_numpy(self.best_op_device),
            "teacher_op_device": None if self.teacher_op_device is None else torch.from_numpy(self.teacher_op_device),
            "guides": self.guides.state(),
            "simulated": self.simulated.state(),
            "elite": [(makespan, rollout.state()) for makespan, rollout in self.elite],
        }
        save_checkpoint(path, agent=self.name, fingerprint=self.env.problem.fingerprint, state=state)

    @classmethod
    def load(cls, path: Path, vec_env: "VectorEnv[Any, Any, Any]", *, torch_device: str = "auto") -> "DualPolicyAgent":
        """The learner that `save` wrote; `vec_env` needs as many episodes as it was trained with.

        A judge that was exchanged is not in the file: hand it to `judge` again.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent, problem or number of episodes.
        """
        fingerprint = (
            vec_env.unwrapped.problem.fingerprint if isinstance(vec_env.unwrapped, SelectPlaceVectorEnv) else ""
        )
        state = load_checkpoint(path, agent=cls.name, fingerprint=fingerprint)
        agent = cls(vec_env, DualPolicyConfig(**state["config"]), torch_device=torch_device)
        if state["num_envs"] != agent.env.num_envs:
            raise CheckpointMismatch(f"{path} was trained with {state['num_envs']} episodes; got {agent.env.num_envs}")
        agent.policy.load_state_dict(state["policy"])
        agent.optimiser.load_state_dict(state["optimiser"])
        agent.rng.bit_generator.state = state["rng"]
        agent.updates, agent.n_episodes, agent._calls, agent._stale, agent.seconds, agent.first_makespan_s = state[
            "counters"
        ]
        agent.best_makespan_s, agent.best_op_device = state["best_makespan_s"], state["best_op_device"].numpy()
        taught = state["teacher_op_device"]
        agent.teacher_op_device = None if taught is None else taught.numpy()
        agent.guides.restore(state["guides"])
        agent.simulated.restore(state["simulated"])
        agent.elite = [(makespan, DualRollout.of_state(kept)) for makespan, kept in state["elite"]]
        return agent

    def load_weights(self, path: Path) -> None:
        """The policy of another training, whatever its problem; all else stays as it is.

        Raises:
            InvalidFile: No such file, or not a checkpoint.
            CheckpointMismatch: It is of another agent, or its networks have another form.
        """
        state = load_checkpoint(path, agent=self.name, fingerprint=None)
        weights = {name: value for name, value in state["policy"].items() if name != "table"}
        own = {name: value.shape for name, value in self.policy.state_dict().items() if name != "table"}
        if own != {name: value.shape for name, value in weights.items()}:
            raise CheckpointMismatch(f"{path} has networks of another form; expected width {self.config.width}")
        self.policy.load_state_dict(weights, strict=False)
