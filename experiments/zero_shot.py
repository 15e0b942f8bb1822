"""Ways in which a policy that no longer learns places a graph."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from agents.dual_policy import DualPolicyAgent

Kind = Literal["greedy", "sampled", "search"]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to place a graph without learning from it.

    Attributes:
        kind: "greedy", the most likely choices; "sampled", the best of samples; "search", first samples, then episodes
            that follow the best placement so far but for a few ops, where the policy chooses (`agents.guides`).
        simulator_calls: Placements that are simulated.
        free: Samples with which a search begins.
        batch: Episodes that a search plays at once.
        trained: Whether the policy has learned on other graphs; the control, with random weights, has not.
    """

    kind: Kind
    simulator_calls: int
    free: int = 0
    batch: int = 0
    trained: bool = True

    @property
    def method(self) -> str:
        """As tables name it."""
        how = {
            "greedy": "greedy",
            "sampled": f"best of {self.simulator_calls}",
            "search": f"search, {self.simulator_calls} calls",
        }
        return f"{'zero-shot' if self.trained else 'untrained'} ({how[self.kind]})"

    @property
    def n_episodes(self) -> int:
        """Episodes at once of an agent that is to place in this way."""
        return self.batch if self.kind == "search" else max(2, self.simulator_calls)

    def place(self, agent: DualPolicyAgent, seed: int) -> NDArray[np.int32]:
        """int32 [k, n_ops]: placements, of which the best is the result."""
        if self.kind == "greedy":
            return agent.act_greedy()[None]
        if self.kind == "sampled":
            return agent.act_sampled(self.simulator_calls, seed=seed)
        agent.search.run(free=self.free, simulator_calls=self.simulator_calls)
        return agent.found.best.op_device[None]


def ways(config: DictConfig) -> list[Way]:
    """The ways of a configuration, {samples, search: {simulator_calls, free, batch}}."""
    search = Way("search", **config.search)
    return [Way("greedy", 1), Way("sampled", config.samples), search, replace(search, trained=False)]
