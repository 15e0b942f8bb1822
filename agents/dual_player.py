"""DualPlayer: plays batches of episodes that select and place with one policy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents.dual_rollout import DualRollout
from agents.follow import REPLAY, follow
from agents.graph_input import OP_INPUTS
from agents.guides import MOVES, GuidedPlan
from agents.lockstep import Lockstep
from agents.networks.dual import GUIDE_FEATURES, DualPolicy, Encoded, GraphTensors
from agents.networks.dual_kernel import Heads, Waiting, place_scores, select_scores
from placement_gym.arrays import BoolArray, IntArray
from placement_gym.envs.device_features import EpisodeProblem
from placement_gym.envs.observation import ACTION_FEATURES
from placement_gym.simulator.partial import PartialPlacement

MODE = np.array([how for _, how in MOVES])


class DualPlayer:
    """Plays batches of episodes with one policy.

    Args:
        episodes: The episodes; of joint actions for a joint policy.
        policy: The policy.
        graph: The problem.
        kind: "dual", "select_only" (devices of earliest finish), "place_only" (ops of largest b-level) or "joint".
        every_step: Whether messages are passed at every step instead of once.
        max_candidates: SEL chooses among so many ready ops of largest b-level.
    """

    def __init__(
        self,
        episodes: Lockstep,
        policy: DualPolicy,
        graph: GraphTensors,
        *,
        kind: str,
        every_step: bool,
        max_candidates: int,
    ) -> None:
        self.episodes, self.policy, self.graph = episodes, policy, graph
        self.kind, self.every_step = kind, every_step
        self.max_candidates = min(max_candidates, episodes.n_ops)
        self.static = graph.op_features.cpu().numpy()
        self.by_level = np.argsort(-self.static[:, OP_INPUTS.index("b_level")], kind="stable")
        self.fixed = EpisodeProblem.of(episodes.compiled, episodes.reference_s)

    def snapshot(self) -> "Snapshot":
        """The policy as it is now."""
        with torch.no_grad():
            encoded = None if self.every_step else _Arrays.of(self.policy.encode(self.graph), 1)
            return Snapshot(encoded, Heads.of(self.policy))

    def play(
        self,
        snapshot: "Snapshot",
        rng: np.random.Generator,
        *,
        n_greedy: int = 0,
        op_device: IntArray | None = None,
    ) -> DualRollout:
        """One batch to the end, not simulated.

        Args:
            snapshot: The policy.
            rng: Where choices are drawn from.
            n_greedy: So many episodes, the first ones, take what is most likely.
            op_device: int32 [n_ops], devices to take in all episodes; None where the policy chooses.
        """
        with torch.no_grad():
            return _Batch(self, snapshot, rng, n_greedy, op_device).play()

    def follow(self, snapshot: "Snapshot", plan: GuidedPlan, rng: np.random.Generator) -> DualRollout:
        """One batch that follows guides, not simulated; only what the policy chose is written."""
        return self._follow(snapshot, plan, MODE[plan.move], rng)

    def replay(self, op_device: IntArray, order: NDArray[np.int64]) -> DualRollout:
        """Placements, int32 [B, n_ops], made in `order`, int64 [B, n_ops], as if the policy had chosen all devices."""
        b, n = op_device.shape
        guided = np.zeros((1, n, self.episodes.mask.shape[1], len(GUIDE_FEATURES)), np.float32)
        nothing = np.zeros(b, np.int64)
        plan = GuidedPlan(nothing, nothing, op_device, order, np.zeros((b, n), np.bool_), guided)
        unasked = np.zeros((1, n, self.policy.place_hidden.in_features), np.float32)
        snapshot = Snapshot(_Arrays(unasked, unasked, unasked), Heads.of(self.policy))
        return self._follow(snapshot, plan, np.full(b, REPLAY), np.random.default_rng(0))

    def _follow(
        self, snapshot: "Snapshot", plan: GuidedPlan, modes: NDArray[np.int64], rng: np.random.Generator
    ) -> DualRollout:
        """See `agents.follow`."""
        (b, n), d = plan.order.shape, self.episodes.mask.shape[1]
        encoded, heads = snapshot.encoded, snapshot.heads
        assert encoded is not None
        batch = PartialPlacement.fresh(self.fixed.partial, b)
        devices, sampled = np.empty((n, b), np.int64), np.empty((n, b), np.bool_)
        groups, ops = np.empty(n * b, np.int64), np.empty(n * b, np.int64)
        features = np.empty((n * b, d, len(ACTION_FEATURES) + len(GUIDE_FEATURES)), np.float32)
        masks = np.empty((n * b, d), np.bool_)
        parts = heads, encoded.place[0], encoded.content[0], plan.order, plan.op_device, plan.members, modes
        written = devices, sampled, groups, ops, features, masks
        rows = follow(self.fixed, batch, *parts, plan.guide, plan.features, rng, *written)
        no_ops, no_candidates = np.zeros(0, np.int64), np.zeros((0, 2 * len(OP_INPUTS)), np.float32)
        arrays = [plan.order.T, devices, np.zeros_like(sampled), sampled, no_ops, no_ops, no_candidates]
        arrays += [groups[:rows], ops[:rows], features[:rows], masks[:rows]]
        arrays.append((batch.clock.finish / self.episodes.reference_s).astype(np.float32))
        return _rollout(arrays, batch.clock.op_device, plan.order.astype(np.int32), batch.overfull)


def _rollout(arrays: Sequence[NDArray[Any]], op_device: IntArray, order: IntArray, overfull: BoolArray) -> DualRollout:
    """A rollout of arrays, in the order of its fields."""
    tensors: list[Any] = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    return DualRollout(*[*tensors, op_device, order, overfull])


class _Batch:
    """One batch of free episodes under way."""

    def __init__(
        self,
        player: DualPlayer,
        snapshot: "Snapshot",
        rng: np.random.Generator,
        n_greedy: int,
        op_device: IntArray | None,
    ) -> None:
        self.player, self.rng, self.n_greedy, self.op_device = player, rng, n_greedy, op_device
        self.episodes, self.policy = player.episodes, player.policy
        b, n, d = self.episodes.n_episodes, self.episodes.n_ops, self.episodes.features.shape[1]
        self.rows, self.unguided = np.arange(b), np.zeros((1, d, len(GUIDE_FEATURES)), np.float32)
        self.ops, self.devices = np.zeros((n, b), np.int64), np.zeros((n, b), np.int64)
        self.waiting = Waiting.of(player.by_level, player.fixed.partial, b)
        self.sampled = np.zeros((n, b), np.bool_)
        self.torch_device = player.graph.op_features.device
        self.select_log: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self.place_log: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], BoolArray]] = []
        self.encoded, self.heads = snapshot
        width = self.policy.place_hidden.in_features
        self.content, self.count = np.zeros((b, d, width), np.float32), np.zeros((b, d), np.float32)

    def play(self) -> DualRollout:
        """All steps."""
        episodes = self.episodes
        episodes.reset()
        for t in range(episodes.n_ops):
            encoded = self.encoded or self._encode()
            if self.player.kind == "joint":
                self.ops[t] = self._pair(encoded, t)
                episodes.step(self.ops[t], self.devices[t])
            else:
                self.ops[t] = self._select(encoded, t)
                episodes.select(self.ops[t])
                self._place(encoded, t)
                episodes.place(self.devices[t])
            if self.encoded is not None:
                self.content[self.rows, self.devices[t]] += encoded.content[0, self.ops[t]]
                self.count[self.rows, self.devices[t]] += 1
        return self._rollout()

    def _rollout(self) -> DualRollout:
        chosen = self.player.kind in ("dual", "select_only")
        n = 2 * len(OP_INPUTS)
        log = self.select_log or [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, n), np.float32))]
        arrays = [self.ops, self.devices, np.full(self.ops.shape, chosen), self.sampled]
        arrays += [np.concatenate(part) for part in zip(*log, strict=True)]
        arrays += [np.concatenate(part) for part in zip(*self.place_log, strict=True)]
        episodes = self.episodes
        arrays.append((episodes.finish_s / episodes.reference_s).astype(np.float32))
        return _rollout(arrays, episodes.op_device.copy(), episodes.order.copy(), episodes.overfull.copy())

    def _encode(self) -> "_Arrays":
        """Messages passed over the placement so far; what is on each device is renewed too."""
        episodes = self.episodes
        b = episodes.n_episodes
        placed = (episodes.op_device >= 0).astype(np.float32)
        finish = (episodes.finish_s / episodes.reference_s).astype(np.float32)
        progress = torch.from_numpy(np.stack([placed, placed * finish], axis=-1)).to(self.torch_device)
        encoded = self.policy.encode(self.player.graph, progress)
        arrays = _Arrays.of(encoded, b)
        here = (episodes.op_device[:, :, None] == np.arange(episodes.features.shape[1])).astype(np.float32)
        self.content, self.count = here.transpose(0, 2, 1) @ arrays.content, here.sum(axis=1)
        return arrays

    def _select(self, encoded: "_Arrays", t: int) -> NDArray[np.int64]:
        """int64 [B]: SEL's ops, or those of largest b-level."""
        ready, static = self.episodes.ready, self.player.static
        if self.player.kind == "place_only":
            level = static[:, OP_INPUTS.index("b_level")]
            op: NDArray[np.int64] = np.where(ready, level, -1.0).argmax(axis=1)
            return op
        last = self.ops[t - 1] if t else np.full(len(self.rows), -1)
        scores, candidates, seen = select_scores(
            self.heads, encoded.select, static, self.waiting, ready, last, self.player.max_candidates
        )
        row, column = np.nonzero(candidates >= 0)
        self.select_log.append((row + t * len(self.rows), candidates[row, column], seen))
        chosen: NDArray[np.int64] = candidates[self.rows, self._draw(scores)]
        return chosen

    def _place(self, encoded: "_Arrays", t: int) -> None:
        """Writes devices[t] and sampled[t] for the ops selected."""
        op, mask = self.ops[t], self.episodes.mask.copy()
        seen = self._seen(self.episodes.features)
        self.place_log.append((self.rows + t * len(self.rows), op, seen, mask))
        if self.player.kind == "select_only":
            finish = seen[..., ACTION_FEATURES.index("finish_behind")]
            self.devices[t] = np.where(mask, finish, np.inf).argmin(axis=1)
            return
        self.sampled[t] = True
        if self.op_device is not None:
            wanted = self.op_device[op]
            self.sampled[t] = ~mask[self.rows, wanted]
            self.devices[t] = wanted
        if self.sampled[t].any():
            drawn = self._draw(self._device_scores(encoded, self.rows, op, seen, mask))
            self.devices[t] = np.where(self.sampled[t], drawn, self.devices[t])

    def _pair(self, encoded: "_Arrays", t: int) -> NDArray[np.int64]:
        """int64 [B]: the ops of the pairs chosen; writes devices[t] and sampled[t]."""
        episodes, n = self.episodes, self.episodes.n_ops
        row, candidate = np.nonzero(episodes.ready)
        mask = episodes.pair_mask[row, candidate]
        if self.op_device is not None:
            wanted = np.eye(mask.shape[1], dtype=np.bool_)[self.op_device[candidate]] & mask
            mask = np.where(wanted.any(axis=1, keepdims=True), wanted, mask)
        seen = self._seen(episodes.pair_features[row, candidate])
        self.place_log.append((row + t * len(self.rows), candidate, seen, mask))
        scores = np.full((len(self.rows), n, mask.shape[1]), -np.inf, np.float32)
        scores[row, candidate] = self._device_scores(encoded, row, candidate, seen, mask)
        drawn = self._draw(scores.reshape(len(self.rows), -1))
        op: NDArray[np.int64] = drawn // mask.shape[1]
        self.devices[t], self.sampled[t] = drawn % mask.shape[1], True
        return op

    def _seen(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features of devices with those of a guide, of which there is none, behind them."""
        unguided = np.broadcast_to(self.unguided, (len(features), *self.unguided.shape[1:]))
        return np.concatenate([features, unguided], axis=-1)

    def _device_scores(
        self,
        encoded: "_Arrays",
        row: NDArray[np.int64],
        op: NDArray[np.int64],
        seen: NDArray[np.float32],
        mask: BoolArray,
    ) -> NDArray[np.float32]:
        """float32 [M, n_devices] of ops `op` in episodes `row`."""
        scores: NDArray[np.float32] = place_scores(
            self.heads, encoded.place, self.content, self.count, row, op, seen, mask
        )
        return scores

    def _draw(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64 [B]: most likely column for greedy episodes, else drawn from the softmax (Gumbel-max trick)."""
        noise = -np.log(self.rng.standard_exponential(scores.shape))
        noise[: self.n_greedy] = 0.0
        drawn: NDArray[np.int64] = (scores + noise).argmax(axis=1)
        return drawn


class Snapshot(NamedTuple):
    """A policy at one time, for rollouts: what it makes of the graph (None if it looks again every step), and heads."""

    encoded: "_Arrays | None"
    heads: Heads


class _Arrays(NamedTuple):
    """`Encoded` as float32 [B or 1, n_ops, width]."""

    select: NDArray[np.float32]
    place: NDArray[np.float32]
    content: NDArray[np.float32]

    @classmethod
    def of(cls, encoded: Encoded, b: int) -> "_Arrays":
        """On the CPU, where episodes are."""
        n = encoded.select.shape[-2]
        parts = (encoded.select, encoded.place, encoded.content)
        return cls(*(np.ascontiguousarray(part.cpu().numpy()).reshape(b, n, -1) for part in parts))
