"""Task: what the episodes of an environment place, and how they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.envs.actions import Invalid
from placement_gym.envs.observation import Form, Sizes
from placement_gym.envs.problems import Draw, GroupName, Path, Problems
from placement_gym.envs.reward import Reward
from placement_gym.errors import InvalidOption, check_choice
from placement_gym.objectives import Objective
from placement_gym.problem import Problem
from placement_gym.rule import Rule, resolve_rule


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is placed and how it is scored: the options that all environments share.

    Attributes:
        problems: Where problems come from.
        rule: Simulator rule.
        objective: What is minimised.
        reward: "terminal" or "dense".
        invalid: What an action outside the mask does.
        noise: Standard deviation of the logarithm of the factor on every duration.
        observation: "dict" or "flat".

    Raises:
        InvalidOption: An unknown choice, or noise that goes with another objective than the makespan.
    """

    problems: Problems
    rule: Rule
    objective: Objective
    reward: Reward
    invalid: Invalid
    noise: float
    observation: Form

    def __post_init__(self) -> None:
        for what, known in (("objective", Objective), ("reward", Reward), ("invalid", Invalid), ("observation", Form)):
            check_choice(what, getattr(self, what), known)
        number = isinstance(self.noise, (int, float, np.integer, np.floating)) and not isinstance(self.noise, bool)
        if not number or not 0 <= self.noise < np.inf:
            raise InvalidOption(f"noise is {self.noise!r}; expected a finite standard deviation >= 0")
        if self.noise > 0 and self.objective != "makespan":
            raise InvalidOption(f"noise is {self.noise}, objective is {self.objective!r}; only makespans are noisy")


def task_of(
    problem: Problem | Path | None,
    problems: Sequence[Problem | Path] | Draw | None,
    sizes: Sizes | None,
    groups: GroupName | ArrayLike | None,
    rule: str | Rule,
    objective: Objective,
    reward: Reward,
    invalid: Invalid,
    noise: float,
    observation: Form,
) -> Task:
    """The options that all environments share, checked; see the page of Assign-v0."""
    if not isinstance(rule, (str, Rule)):
        raise InvalidOption(f"rule is a {type(rule).__name__}; expected a preset's name or a Rule")
    given = Problems(problem, problems, sizes, groups)
    return Task(given, resolve_rule(rule), objective, reward, invalid, noise, observation)
