"""DualPolicyConfig: hyper-parameters of the dual policy."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from placement_gym.errors import InvalidOption, unknown_name

Kind = Literal["dual", "select_only", "place_only", "joint"]
MessagePassing = Literal["episode", "step"]


@dataclass(frozen=True, slots=True)
class DualPolicyConfig:
    """Hyper-parameters; numbers refer to the list in `agents.dual_policy`.

    Attributes:
        policy: "dual"; "select_only", devices of earliest finish; "place_only", ops of largest b-level; "joint", one
            choice among pairs of op and device (the environment's action is then "joint").
        message_passing: Once per "episode", or at every "step", which takes as many times longer as there are ops.
        width: Width of embeddings.
        n_layers: Rounds of message passing.
        op_embedding: Detail 9.
        learning_rate: First learning rate of Adam; falls to a tenth.
        entropy: First weight of the entropy bonus; falls to 0.
        batches: Batches of episodes per update; guides move after each.
        epochs: Passes over the episodes of an update, detail 1.
        clip_range: Detail 1.
        max_gradient_norm: Detail 2.
        imitation_updates: Batches of stage I; nothing is simulated in them.
        n_elite: Detail 6.
        elite_weight: Detail 6.
        guided_share: Detail 7.
        n_guides: Detail 7.
        critical_share: Detail 7.
        hot: Detail 7.
        cold: Detail 7.
        max_candidates: Detail 10; a joint policy has no such limit.

    Raises:
        InvalidOption: A number outside its range, or an unknown name.
    """

    policy: Kind = "dual"
    message_passing: MessagePassing = "episode"
    width: int = 64
    n_layers: int = 3
    op_embedding: bool = False
    learning_rate: float = 2e-3
    entropy: float = 0.01
    batches: int = 8
    epochs: int = 1
    clip_range: float = 0.2
    max_gradient_norm: float = 1.0
    imitation_updates: int = 3
    n_elite: int = 4
    elite_weight: float = 0.1
    guided_share: float = 0.75
    n_guides: int = 1
    critical_share: float = 0.5
    hot: float = 0.01
    cold: float = 0.0002
    max_candidates: int = 32

    def n_free(self, rng: np.random.Generator) -> int:
        """How many of an update's batches follow no guide, drawn such that `guided_share` holds in the mean."""
        if self.policy == "select_only" or self.message_passing == "step":
            return self.batches
        return int((1 - self.guided_share) * self.batches + rng.random())

    def __post_init__(self) -> None:
        for name, known in (("policy", Kind), ("message_passing", MessagePassing)):
            if getattr(self, name) not in get_args(known):
                raise InvalidOption(unknown_name(name, getattr(self, name), get_args(known)))
        least = {"width": 1, "n_layers": 0, "batches": 1, "epochs": 1, "imitation_updates": 0, "n_elite": 0}
        for name, low in {**least, "n_guides": 1, "max_candidates": 1}.items():
            if getattr(self, name) < low:
                raise InvalidOption(f"DualPolicyConfig.{name} is {getattr(self, name)}; expected >= {low}")
        for name in ("learning_rate", "max_gradient_norm", "clip_range", "hot", "cold"):
            if not getattr(self, name) > 0:
                raise InvalidOption(f"DualPolicyConfig.{name} is {getattr(self, name)}; expected > 0")
        for name in ("guided_share", "critical_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidOption(f"DualPolicyConfig.{name} is {getattr(self, name)}; expected 0 to 1")
