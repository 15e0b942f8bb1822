"""DualSearch: plays batches of episodes with a dual policy, has them evaluated, and keeps what they find."""

from typing import Any, NamedTuple

import numpy as np

from agents.dual_config import DualPolicyConfig
from agents.dual_player import DualPlayer, Snapshot
from agents.dual_rollout import DualRollout
from agents.found import Found
from agents.networks.dual import GraphTensors
from agents.simulated import Evaluator
from placement_gym.arrays import BoolArray, FloatArray, IntArray


class Played(NamedTuple):
    """A batch of episodes: makespans, which were new, which episodes were free, seconds gained on guides (`gain`)."""

    rollout: DualRollout
    makespans_s: FloatArray
    fresh: BoolArray
    free: BoolArray
    gain: FloatArray


class DualSearch:
    """Plays batches, has them evaluated and keeps what is good; learns nothing.

    Args:
        player: Plays with the policy.
        graph: The problem's graph.
        config: Hyper-parameters.
        rng: Where all choices are drawn from.

    Attributes:
        evaluator: Gives the makespans of a batch of placements, inf for what does not fit into memory; the simulator,
            unless it is exchanged (`evaluate_by`).
        found: What was found.
    """

    def __init__(
        self, player: DualPlayer, graph: GraphTensors, config: DualPolicyConfig, rng: np.random.Generator
    ) -> None:
        self.player, self.config, self.rng = player, config, rng
        self.episodes = player.episodes
        self.found = Found(graph, player.episodes, config)
        self.evaluator: Evaluator = self._simulate
        self._elite: DualRollout | None = None

    def evaluate_by(self, evaluator: Evaluator, candidates: int, given: IntArray | None) -> None:
        """Makespans come from `evaluator` from now on; what is kept is evaluated anew (`Found.evaluate_again`)."""
        self.evaluator, self._elite = evaluator, None
        self.found.evaluate_again(evaluator, candidates, given)

    def start(self, op_device: IntArray) -> None:
        """Begins with a placement that was found elsewhere, int32 [n_ops]: it is evaluated and kept, and is a guide."""
        self.found.start(self.evaluator, op_device)
        self._elite = None

    def play(self, snapshot: Snapshot, *, guided: bool, spent: float, left: int) -> Played:
        """Plays one batch of episodes; afterwards its placements may replace guides.

        Args:
            snapshot: The policy.
            guided: Whether episodes follow guides; there must be one.
            spent: Share of the budget that is used, from which the temperature follows.
            left: How many placements may be evaluated.
        """
        config, found, n_episodes = self.config, self.found, self.episodes.n_episodes
        plan = found.guides.plan(n_episodes, self.rng) if guided else None
        if plan is None:
            rollout = self.player.play(snapshot, self.rng, n_greedy=1)
        else:
            rollout = self.player.follow(snapshot, plan, self.rng)
        makespans_s, fresh = found.makespans_s(self.evaluator, rollout.op_device, rollout.order, left)
        # What was just simulated and has no makespan does not fit into memory.
        overfull = rollout.overfull | (fresh & ~np.isfinite(makespans_s))
        gain = found.guides.gains(plan, makespans_s, overfull, self.episodes.reference_s)
        if found.remember(rollout, makespans_s):
            self._elite = None
        temperature_s = found.first_makespan_s * config.hot * (config.cold / config.hot) ** spent
        told_s = np.where(overfull, np.inf, makespans_s)
        if plan is None:
            found.guides.propose(rollout.op_device, rollout.order, told_s, config.n_guides)
        else:
            tried_s = np.where(fresh, told_s, np.inf)
            found.guides.accept(plan, rollout.op_device, rollout.order, tried_s, temperature_s, self.rng)
        return Played(rollout, makespans_s, fresh, np.full(n_episodes, plan is None), gain)

    def run(self, *, free: int, simulator_calls: int) -> None:
        """Free episodes, `free` of them or a few more, then guided ones; `simulator_calls` placements are evaluated.

        Ends early if no placement is found that was not evaluated before.
        """
        snapshot, begun = self.player.snapshot(), self.found.calls
        while (calls := self.found.calls - begun) < simulator_calls and not self.found.is_stale:
            guided = calls >= free and bool(self.found.guides.now)
            self.play(snapshot, guided=guided, spent=calls / simulator_calls, left=simulator_calls - calls)

    def elite(self) -> DualRollout | None:
        """The elite, as if the policy had chosen all its devices; None if there is none."""
        if self._elite is None and self.found.elite:
            _, op_device, order = zip(*self.found.elite, strict=True)
            self._elite = self.player.replay(np.stack(op_device), np.stack(order))
        return self._elite

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over what `found.state()` returned."""
        self.found.restore(state)
        self._elite = None

    def _simulate(self, op_device: IntArray, priority: FloatArray | None) -> FloatArray:
        makespans_s, excess_bytes = self.episodes.compiled.weigh(op_device, priority)
        return np.where(excess_bytes > 0, np.inf, makespans_s)
