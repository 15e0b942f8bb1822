"""Found: what a search has found so far, whatever evaluates the placements."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.dual_config import DualPolicyConfig
from agents.dual_rollout import DualRollout
from agents.guides import Guides
from agents.lockstep import Lockstep
from agents.networks.dual import GraphTensors
from agents.pool import Kept, Pool
from agents.simulated import Evaluator, Simulated
from placement_gym.arrays import BoolArray, FloatArray, IntArray

# Batches without a placement that was not evaluated before, after which nothing new is expected.
PATIENCE = 30


class Found:
    """Best placement, elite, guides, pool, and the makespans of all placements that were evaluated.

    Args:
        graph: The problem's graph.
        episodes: What is played.
        config: Sizes of the elite and of the guides.

    Attributes:
        best: The best placement; devices are -1 and its makespan is inf while there is none.
        elite: The best `n_elite` placements of distinct makespans, so that one placement does not fill it.
        pool: Good placements that differ from each other.
        first_makespan_s: Mean makespan of the first batch; 0 before it.
        calls: Placements evaluated.
        stale: Batches since one was evaluated.
    """

    def __init__(self, graph: GraphTensors, episodes: Lockstep, config: DualPolicyConfig) -> None:
        self.config, self.episodes = config, episodes
        self.guides = Guides(graph, episodes, config.critical_share)
        self.calls = self.stale = 0
        self._forget()

    @property
    def is_stale(self) -> bool:
        """Whether the last batches, `PATIENCE` of them, held no placement that had not been evaluated."""
        return self.stale >= PATIENCE

    def _forget(self) -> None:
        """Forgets all placements and their makespans."""
        problem = self.episodes.compiled.problem
        self.guides.now = []
        self.simulated = Simulated(problem)
        self.elite: list[Kept] = []
        self.pool = Pool(problem)
        self.first_makespan_s = 0.0
        self.best = Kept(float("inf"), np.full(problem.n_ops, -1, np.int32), problem.graph.order.astype(np.int64))

    def makespans_s(
        self, evaluator: Evaluator, op_device: IntArray, order: IntArray, most: int
    ) -> tuple[FloatArray, BoolArray]:
        """As `Simulated.makespans_s`; counts."""
        ordered = order if self.episodes.by_selection else None
        makespans_s, fresh = self.simulated.makespans_s(evaluator, op_device, ordered, most)
        self.calls += int(fresh.sum())
        self.stale = 0 if fresh.any() else self.stale + 1
        known = makespans_s[np.isfinite(makespans_s)]
        if not self.first_makespan_s and len(known):
            self.first_makespan_s = float(known.mean())
        return makespans_s, fresh

    def remember(self, rollout: DualRollout, makespans_s: FloatArray) -> bool:
        """Keeps the best placement, the elite and the pool; returns whether the elite changed."""
        before = [one.makespan_s for one in self.elite]
        for i in np.argsort(makespans_s, kind="stable")[: max(1, self.config.n_elite)]:
            if rollout.overfull[i] or not np.isfinite(makespans_s[i]):
                continue
            one = Kept(float(makespans_s[i]), rollout.op_device[i].copy(), rollout.order[i].astype(np.int64))
            if one.makespan_s < self.best.makespan_s:
                self.best = one
            self.pool.add(one)
            if all(one.makespan_s != kept.makespan_s for kept in self.elite):
                self.elite = sorted([*self.elite, one], key=lambda kept: kept.makespan_s)[: self.config.n_elite]
        return before != [one.makespan_s for one in self.elite]

    def start(self, evaluator: Evaluator, op_device: IntArray) -> None:
        """Begins with a placement that was found elsewhere, int32 [n_ops]: it is evaluated and kept, and is a guide."""
        order = self._graph_order()
        makespan_s = float(self.makespans_s(evaluator, op_device[None], order[None].astype(np.int32), 1)[0][0])
        if np.isfinite(makespan_s):
            one = Kept(makespan_s, op_device.copy(), order)
            self.best = min(self.best, one, key=lambda kept: kept.makespan_s)
            self.pool.add(one)
            self.elite = [one][: self.config.n_elite]
            self.guides.now = [self.guides.guide(op_device, order, makespan_s)]

    def evaluate_again(self, evaluator: Evaluator, candidates: int, given: IntArray | None = None) -> None:
        """Keeps the best placement, `given` and the first of the pool, evaluated by `evaluator`; forgets all others.

        The best of those kept become elite and guides.

        Args:
            evaluator: Gives the makespans from now on.
            candidates: How many besides the best stay.
            given: int32 [n_ops], a placement that was found elsewhere; None if there is none.
        """
        best, n_guides = self.best, len(self.guides.now)
        teaching = [] if given is None else [Kept(float("inf"), given, self._graph_order())]
        distinct: dict[bytes, Kept] = {}
        for one in [best, *teaching, *self.pool.kept]:
            distinct.setdefault(one.op_device.tobytes(), one)
        asked = list(distinct.values())[: 1 + candidates]
        self._forget()
        self.stale = 0
        if not np.isfinite(best.makespan_s):
            return
        op_device, order = np.stack([one.op_device for one in asked]), np.stack([one.order for one in asked])
        makespans_s, _ = self.makespans_s(evaluator, op_device, order.astype(np.int32), len(op_device))
        told = (one._replace(makespan_s=s) for one, s in zip(asked, makespans_s.tolist(), strict=True))
        kept = sorted((one for one in told if np.isfinite(one.makespan_s)), key=lambda one: one.makespan_s)
        if not kept:
            return
        self.best = kept[0]
        for one in kept:
            self.pool.add(one)
        self.guides.now = [self.guides.guide(one.op_device, one.order, one.makespan_s) for one in kept[:n_guides]]
        self.elite = kept[: self.config.n_elite]

    def _graph_order(self) -> NDArray[np.int64]:
        """The order of a placement that was made in none."""
        return self.episodes.compiled.problem.graph.order.astype(np.int64)

    def state(self) -> dict[str, Any]:
        """For checkpoints."""
        kept = [(s, torch.from_numpy(device), torch.from_numpy(order)) for s, device, order in (self.best, *self.elite)]
        return {
            "counters": (self.calls, self.stale, self.first_makespan_s),
            "kept": kept,  # the best, then the elite
            "guides": self.guides.state(),
            "pool": self.pool.state(),
            "simulated": self.simulated.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` wrote."""
        self.calls, self.stale, self.first_makespan_s = state["counters"]
        self.best, *self.elite = (Kept(s, device.numpy(), order.numpy()) for s, device, order in state["kept"])
        self.guides.restore(state["guides"])
        self.pool.restore(state.get("pool", []))  # a checkpoint from before there were pools has none
        self.simulated.restore(state["simulated"])
