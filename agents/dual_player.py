"""DualPlayer: plays batches of episodes that select and place with one policy."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agents.dual_rollout import DualRollout
from agents.guides import EACH, MIRROR, MOVES, SWAP, TOGETHER, Plan
from agents.networks.dual import DualPolicy, Encoded, Graph
from agents.networks.dual_kernel import Heads, place_scores, select_scores
from placement_gym.arrays import BoolArray
from placement_gym.envs import SelectPlaceEpisodes
from placement_gym.envs.observation import DEVICE_FEATURES, OP_FEATURES

MODE = np.array([how for _, how in MOVES])


class _Followers:
    """Where episodes that follow a guide put their ops; see `guides.MOVES`."""

    def __init__(self, plan: Plan) -> None:
        b = len(plan.guide)
        self.plan, self.rows = plan, np.arange(b)
        self.mode = np.where(plan.guide >= 0, MODE[plan.move], EACH)
        self.begun, self.swapped = np.zeros(b, np.bool_), np.zeros(b, np.bool_)
        self.left, self.to = np.full(b, -1), np.full(b, -1)

    def device(self, op: NDArray[np.int64], mask: BoolArray) -> tuple[NDArray[np.int64], BoolArray]:
        """(int64 [B], bool [B, D]): the device, -1 where the policy chooses, and the devices to choose among."""
        guide = self.plan.op_device[self.rows, op].astype(np.int64)
        member, wanted = self.plan.members[self.rows, op], guide.copy()
        first = member & ~self.begun
        wanted[first | (member & (self.mode == EACH))] = -1
        later = member & self.begun
        wanted = np.where(later & (self.mode == TOGETHER), self.to, wanted)
        mirror, swap = later & (self.mode == MIRROR), later & (self.mode == SWAP) & ~self.swapped & (guide == self.to)
        wanted = np.where(swap | (mirror & (guide == self.to)), self.left, wanted)
        wanted = np.where(mirror & (guide == self.left), self.to, wanted)
        self.swapped |= swap
        wanted[(wanted >= 0) & ~mask[self.rows, wanted]] = -1
        # The first member leaves its guide's device if it may.
        restricted = mask.copy()
        restricted[self.rows[first], guide[first]] = False
        none = ~restricted.any(axis=1)
        restricted[none] = mask[none]
        self.left[first] = guide[first]
        self._first = first
        return wanted, restricted

    def chose(self, devices: NDArray[np.int64]) -> None:
        """What became of the op asked for last."""
        self.to[self._first] = devices[self._first]
        self.begun |= self._first


class DualPlayer:
    """Plays batches of episodes with one policy.

    Args:
        episodes: The episodes; with `pairs` for a joint policy.
        policy: The policy.
        graph: The problem.
        kind: "dual", "select_only" (devices of earliest finish), "place_only" (ops of largest b-level) or "joint".
        every_step: Whether messages are passed at every step instead of once.
    """

    def __init__(
        self, episodes: SelectPlaceEpisodes, policy: DualPolicy, graph: Graph, *, kind: str, every_step: bool
    ) -> None:
        self.episodes, self.policy, self.graph = episodes, policy, graph
        self.kind, self.every_step = kind, every_step
        self.static = graph.op_features.cpu().numpy()

    def play(self, plan: Plan, rng: np.random.Generator, *, n_greedy: int) -> DualRollout:
        """One batch to the end, not simulated; the first `n_greedy` episodes take what is most likely."""
        with torch.no_grad():
            return _Batch(self, plan, rng, n_greedy).play()


class _Batch:
    """One batch of episodes under way."""

    def __init__(self, player: DualPlayer, plan: Plan, rng: np.random.Generator, n_greedy: int) -> None:
        self.player, self.plan, self.rng, self.n_greedy = player, plan, rng, n_greedy
        self.episodes, self.policy, self.followers = player.episodes, player.policy, _Followers(plan)
        b, n, d = self.episodes.n_episodes, self.episodes.n_ops, self.episodes.features.shape[1]
        self.rows, self.free = np.arange(b), plan.guide < 0
        self.ops, self.devices = np.zeros((n, b), np.int64), np.zeros((n, b), np.int64)
        self.sampled = np.zeros((n, b), np.bool_)
        self.torch_device = player.graph.op_features.device
        self.select_log: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self.place_log: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], BoolArray]] = []
        self.encoded = None if player.every_step else _Arrays.of(self.policy.encode(player.graph), 1)
        width = self.policy.place_hidden.in_features
        self.content, self.count = np.zeros((b, d, width), np.float32), np.zeros((b, d), np.float32)
        self.heads = Heads.of(self.policy)

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
        episodes, plan_free = self.episodes, self.free & (self.player.kind in ("dual", "select_only"))
        n = 2 * len(OP_FEATURES)
        log = self.select_log or [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, n), np.float32))]
        sampled_op = np.tile(plan_free, (episodes.n_ops, 1))
        arrays = [self.ops, self.devices, sampled_op, self.sampled]
        arrays += [np.concatenate(part) for part in zip(*log, strict=True)]
        arrays += [np.concatenate(part) for part in zip(*self.place_log, strict=True)]
        arrays.append((episodes.finish_s / episodes.reference_s).astype(np.float32))
        rows: list[Any] = [torch.from_numpy(array) for array in arrays]
        rows += [episodes.op_device.copy(), episodes.order.copy(), episodes.overfull.copy()]
        return DualRollout(*rows)

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
        """int64 [B]: the guide's op where there is a guide, else SEL's, or that of largest b-level."""
        op, ready, static = self.plan.order[:, t].copy(), self.episodes.ready[self.free], self.player.static
        if not len(ready):
            return op
        if self.player.kind == "place_only":
            level = static[:, OP_FEATURES.index("b_level")]
            op[self.free] = np.where(ready, level, -1.0).argmax(axis=1)
            return op
        numbers = self.rows[self.free]
        scores, row, candidate, seen = select_scores(self.heads, encoded.select, static, numbers, ready)
        self.select_log.append((numbers[row] + t * len(self.rows), candidate, seen))
        op[self.free] = self._draw(scores, numbers)
        return op

    def _place(self, encoded: "_Arrays", t: int) -> None:
        """Writes devices[t] and sampled[t] for the ops selected."""
        op = self.ops[t]
        wanted, mask = self.followers.device(op, self.episodes.mask)
        seen = np.concatenate([self.episodes.features, self.plan.features[self.plan.guide, op]], axis=-1)
        self.place_log.append((self.rows + t * len(self.rows), op, seen, mask))
        if self.player.kind == "select_only":
            finish = seen[..., DEVICE_FEATURES.index("finish_behind")]
            self.devices[t] = np.where(mask, finish, np.inf).argmin(axis=1)
            return
        self.devices[t], self.sampled[t] = wanted, wanted < 0
        rows = np.flatnonzero(wanted < 0)
        if len(rows):
            scores = self._device_scores(encoded, rows, op[rows], seen[rows], mask[rows])
            self.devices[t, rows] = self._draw(scores, rows)
        self.followers.chose(self.devices[t])

    def _pair(self, encoded: "_Arrays", t: int) -> NDArray[np.int64]:
        """int64 [B]: the ops of the pairs chosen; writes devices[t] and sampled[t]."""
        episodes, plan, n = self.episodes, self.plan, self.episodes.n_ops
        open_ops = episodes.ready & self.free[:, None]
        guided = self.rows[~self.free]
        open_ops[guided, plan.order[guided, t]] = True
        row, candidate = np.nonzero(open_ops)
        mask = episodes.pair_mask[row, candidate]
        guide_op = plan.order[:, t] if t < n else plan.order[:, -1]
        wanted, allowed = self.followers.device(guide_op, episodes.pair_mask[self.rows, guide_op])
        mask = np.where(self.free[row, None], mask, allowed[row])
        seen = np.concatenate(
            [episodes.pair_features[row, candidate], plan.features[plan.guide[row], candidate]], axis=-1
        )
        self.place_log.append((row + t * len(self.rows), candidate, seen, mask))
        scores = np.full((len(self.rows), n, mask.shape[1]), -np.inf, np.float32)
        scores[row, candidate] = self._device_scores(encoded, row, candidate, seen, mask)
        drawn = self._draw(scores.reshape(len(self.rows), -1), self.rows)
        op: NDArray[np.int64] = drawn // mask.shape[1]
        device = drawn % mask.shape[1]
        free = self.free | (wanted < 0)
        self.devices[t], self.sampled[t] = np.where(free, device, wanted), free
        self.followers.chose(self.devices[t])
        return op

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

    def _draw(self, scores: NDArray[np.float32], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [rows]: most likely column for greedy episodes, else drawn from the softmax (Gumbel-max trick)."""
        noise = -np.log(self.rng.standard_exponential(scores.shape))
        noise[numbers < self.n_greedy] = 0.0
        drawn: NDArray[np.int64] = (scores + noise).argmax(axis=1)
        return drawn


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
