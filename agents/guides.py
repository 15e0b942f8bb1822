"""Guides: placements that episodes follow but for a few ops (large-neighbourhood rollouts)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.follow import EACH, MIRROR, SWAP, TOGETHER
from agents.lockstep import Lockstep
from agents.networks.dual import GraphTensors
from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.select_place import priority_of
from placement_gym.simulator import critical_chain
from placement_gym.trace import Trace

# Which ops are members, besides a first one: none, a random part of those alike (equal depth and time), a random walk
# over edges, a run of the guide's order.
SINGLE, ALIKE, WALK, RUN = 0, 1, 2, 3
MOVES = (
    (SINGLE, EACH),
    (ALIKE, EACH),
    (WALK, EACH),
    (RUN, EACH),
    (ALIKE, TOGETHER),
    (WALK, TOGETHER),
    (ALIKE, MIRROR),
    (ALIKE, SWAP),
)


@dataclass(frozen=True, slots=True, eq=False)
class GuidedPlan:
    """What the episodes of one batch follow.

    Attributes:
        guide: int64 [B], number of the guide.
        move: int64 [B], index in MOVES.
        op_device: int32 [B, n_ops], the guide's devices.
        order: int64 [B, n_ops], the guide's order.
        members: bool [B, n_ops], ops that may leave their guide's device.
        features: float32 [n_guides, n_ops, n_devices, len(GUIDE_FEATURES)].
    """

    guide: NDArray[np.int64]
    move: NDArray[np.int64]
    op_device: IntArray
    order: NDArray[np.int64]
    members: BoolArray
    features: NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Guide:
    """A placement that episodes follow.

    Attributes:
        op_device: int32 [n_ops].
        order: int64 [n_ops], in which it was made.
        makespan_s: Its makespan.
        chain: int32 [length], ops that set the makespan in the simulator, last first.
        features: float32 [n_ops, n_devices, len(GUIDE_FEATURES)].
    """

    op_device: IntArray
    order: NDArray[np.int64]
    makespan_s: float
    chain: IntArray
    features: NDArray[np.float32]


class Guides:
    """The current guides, which moves have paid, and the plans made of them.

    Args:
        graph: The problem's graph.
        episodes: What is played.
        critical_share: Share of episodes whose first member is on the chain that sets the guide's makespan.
    """

    def __init__(self, graph: GraphTensors, episodes: Lockstep, critical_share: float) -> None:
        self.episodes, self.critical_share = episodes, critical_share
        self.n_ops, self.n_devices = episodes.n_ops, episodes.compiled.problem.n_devices
        self.now: list[Guide] = []
        self.gain = np.ones(len(MOVES))
        src, dst = graph.edge_index.cpu().numpy()
        self._src, self._dst = src, dst
        depth = np.zeros(self.n_ops, np.int64)
        missing = np.bincount(dst, minlength=self.n_ops)
        self._near: list[list[int]] = [[] for _ in range(self.n_ops)]
        readers: list[list[int]] = [[] for _ in range(self.n_ops)]
        for a, b in zip(src.tolist(), dst.tolist(), strict=True):
            readers[a].append(b)
            self._near[a].append(b)
            self._near[b].append(a)
        settled = np.flatnonzero(missing == 0).tolist()
        for op in settled:
            for b in readers[op]:
                depth[b] = max(depth[b], depth[op] + 1)
                missing[b] -= 1
                if missing[b] == 0:
                    settled.append(b)
        time = np.round(graph.op_features[:, 0].cpu().numpy(), 5)
        _, self._alike = np.unique(np.stack([depth, time], axis=1), axis=0, return_inverse=True)
        self._alike = self._alike.reshape(-1)

    def plan(self, n_episodes: int, rng: np.random.Generator) -> GuidedPlan:
        """Episodes follow the guides in turn."""
        guide = np.arange(n_episodes) % len(self.now)
        move = rng.choice(len(MOVES), size=n_episodes, p=self.gain / self.gain.sum())
        members = np.zeros((n_episodes, self.n_ops), np.bool_)
        for b in range(n_episodes):
            members[b, self._members(self.now[guide[b]], MOVES[move[b]][0], rng)] = True
        op_device = np.stack([one.op_device for one in self.now])[guide]
        order = np.stack([one.order for one in self.now])[guide]
        return GuidedPlan(guide, move, op_device, order, members, np.stack([one.features for one in self.now]))

    def _members(self, guide: Guide, kind: int, rng: np.random.Generator) -> list[int]:
        first = int(rng.choice(guide.chain) if rng.random() < self.critical_share else rng.integers(self.n_ops))
        members = [first]
        if kind == ALIKE:
            alike = np.flatnonzero(self._alike == self._alike[first])
            members += alike[rng.random(len(alike)) < rng.random()].tolist()
        elif kind == WALK:
            for _ in range(int(rng.integers(1, 7))):
                near = self._near[members[rng.integers(len(members))]]
                if near:
                    members.append(near[rng.integers(len(near))])
        elif kind == RUN:
            length = int(rng.integers(2, 9))
            begin = int(np.flatnonzero(guide.order == first)[0]) - int(rng.integers(length))
            members += guide.order[max(0, begin) : begin + length].tolist()
        return members

    def guide(self, op_device: IntArray, order: NDArray[Any], makespan_s: float) -> Guide:
        """The guide that a placement makes."""
        compiled, priority = self.episodes.compiled, np.zeros(self.n_ops)
        if self.episodes.by_selection:
            priority = priority_of(order[None], self.n_ops)[0]
        trace = compiled.trace(op_device, priority, None, None)
        chain = critical_chain(compiled, op_device, trace)
        features = self._features(op_device, chain, trace)
        return Guide(op_device.copy(), order.astype(np.int64), makespan_s, chain, features)

    def _features(self, op_device: IntArray, chain: IntArray, trace: Trace) -> NDArray[np.float32]:
        """float32 [n_ops, n_devices, len(GUIDE_FEATURES)] of one guide."""
        here = np.eye(self.n_devices, dtype=np.float32)[op_device]
        readers, inputs = np.zeros_like(here), np.zeros_like(here)
        np.add.at(readers, self._src, here[self._dst])
        np.add.at(inputs, self._dst, here[self._src])
        alike = np.zeros((int(self._alike.max()) + 1, self.n_devices), np.float32)
        np.add.at(alike, self._alike, here)
        parts = [here]
        for counted in (readers, inputs, alike[self._alike]):
            parts.append(counted / np.maximum(counted.sum(axis=1, keepdims=True), 1))
        critical = np.zeros_like(here)
        critical[chain] = 1
        parts += [self._idle(op_device, trace), critical]
        features: NDArray[np.float32] = np.stack([*parts, np.ones_like(here)], axis=-1)
        return features

    def _idle(self, op_device: IntArray, trace: Trace) -> NDArray[np.float32]:
        """float32 [n_ops, n_devices]: share of the time from an op's being ready to its finish with a device idle."""
        idle = np.ones((self.n_ops, self.n_devices), np.float32)
        span = np.maximum(trace.op_finish_s - trace.op_ready_s, 1e-12)
        for d in range(self.n_devices):
            ops = np.flatnonzero(op_device == d)
            if len(ops):
                at = np.concatenate([trace.op_start_s[ops], trace.op_release_s[ops]])
                step = np.repeat([1.0, -1.0], len(ops))
                in_time = np.argsort(at, kind="stable")
                at, running = at[in_time], np.cumsum(step[in_time])
                busy = np.concatenate([[0.0], np.cumsum(running[:-1] * np.diff(at))])
                worked = np.interp(trace.op_finish_s, at, busy) - np.interp(trace.op_ready_s, at, busy)
                idle[:, d] -= worked / (span * self.episodes.compiled.problem.device_slots[d])
        return idle

    def gains(
        self, plan: GuidedPlan | None, makespans_s: FloatArray, overfull: BoolArray, reference_s: float
    ) -> FloatArray:
        """float64 [B]: seconds gained on the guide, on 0 without a plan; NaN where the makespan is unknown (inf).

        An episode over memory counts as twice the worst of its batch.
        """
        guide_s = np.zeros(len(makespans_s))
        if plan is not None:
            guide_s = np.array([one.makespan_s for one in self.now])[plan.guide]
        known = np.isfinite(makespans_s)
        gain = np.where(known, guide_s - makespans_s, np.nan)
        if known.any():
            gain[overfull] = min(2 * gain[known].min(), -reference_s)
        return gain

    def propose(self, op_device: IntArray, order: IntArray, makespans_s: FloatArray, n_guides: int) -> None:
        """Free episodes become guides while there are fewer than `n_guides`, and where they are better than one."""
        for b in np.argsort(makespans_s, kind="stable"):
            full = len(self.now) >= n_guides
            worst = max(range(len(self.now)), key=lambda k: self.now[k].makespan_s) if full else len(self.now)
            if not np.isfinite(makespans_s[b]) or (full and self.now[worst].makespan_s <= makespans_s[b]):
                return
            self.now[worst : worst + 1] = [self.guide(op_device[b], order[b], float(makespans_s[b]))]

    def accept(
        self,
        plan: GuidedPlan,
        op_device: IntArray,
        order: IntArray,
        makespans_s: FloatArray,
        temperature_s: float,
        rng: np.random.Generator,
    ) -> None:
        """Each guide moves to its best episode if that is better, else by Metropolis' rule; moves that pay gain.

        Args:
            plan: What the episodes followed.
            op_device: int32 [B, n_ops].
            order: int32 [B, n_ops].
            makespans_s: float64 [B]; inf for what is not to be moved to.
            temperature_s: Of the rule.
            rng: Of the rule.
        """
        paid, tried = np.zeros(len(MOVES)), np.zeros(len(MOVES))
        for k, one in enumerate(self.now):
            followers = np.flatnonzero((plan.guide == k) & np.isfinite(makespans_s))
            for b in followers.tolist():
                tried[plan.move[b]] += 1
                paid[plan.move[b]] += makespans_s[b] < one.makespan_s
            if not len(followers):
                continue
            best = int(followers[np.argmin(makespans_s[followers])])
            for b in [best] if makespans_s[best] < one.makespan_s else rng.permutation(followers).tolist():
                # As if they had come one after the other; equal makespans are walked along.
                if rng.random() < np.exp(min(0.0, (one.makespan_s - makespans_s[b]) / temperature_s)):
                    self.now[k] = self.guide(op_device[b], order[b], float(makespans_s[b]))
                    break
        # Successes of the last hundred tries or so, never below a tenth of the best.
        self.gain = 0.99**tried * self.gain + 0.5 * paid
        self.gain = np.maximum(self.gain, 0.1 * self.gain.max())

    def state(self) -> dict[str, Any]:
        """For checkpoints."""
        return {
            "gain": torch.from_numpy(self.gain),
            "now": [(torch.from_numpy(g.op_device), torch.from_numpy(g.order), g.makespan_s) for g in self.now],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` wrote."""
        self.gain = state["gain"].numpy()
        self.now = [self.guide(device.numpy(), order.numpy(), makespan_s) for device, order, makespan_s in state["now"]]


def normalised(gain: FloatArray, group: BoolArray) -> FloatArray:
    """float64 [B]: `gain` in deviations from its mean, within `group` and outside; 0 where it is NaN."""
    normal = np.zeros(len(gain))
    for part in (~np.isnan(gain) & group, ~np.isnan(gain) & ~group):
        if part.sum() > 1:
            normal[part] = (gain[part] - gain[part].mean()) / (gain[part].std() + 1e-9)
    return normal.clip(-3, 3)
