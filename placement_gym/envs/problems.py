"""Problems: where an environment's problems come from, one for each episode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from placement_gym.envs.observation import Sizes
from placement_gym.errors import InvalidOption, InvalidProblem, unknown_name
from placement_gym.groups import Groups, metis_parts
from placement_gym.problem import Problem
from placement_gym.workloads import layered

Path = str | os.PathLike[str]
Draw = Callable[[np.random.Generator], Problem]
GroupName = Literal["colocation", "metis"]

# Groups into which METIS cuts a problem at most, and ops per group at least, in the mean.
METIS_GROUPS, METIS_OPS = 200, 4


def toy() -> Problem:
    """What an environment places that is told no problem: 12 ops in 4 layers on 3 devices."""
    return layered(n_ops=12, n_devices=3, seed=0)


def loaded(what: str, given: object) -> Problem:
    """The problem itself, or the one saved at that path.

    Raises:
        InvalidOption: It is neither.
    """
    if isinstance(given, Problem):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Problem.load(given)
    raise InvalidOption(f"{what} is a {type(given).__name__}; expected a Problem or the path of a saved one")


def groups_of(problem: Problem, groups: GroupName | ArrayLike | None) -> Groups:
    """The ops that one action places together; ops of a colocation group stay together in any case.

    Args:
        problem: The problem.
        groups: None (an action places one op), "colocation", "metis" (parts of about equal work and few bytes
            between them, one for four ops, at most 200), or int [n_ops], a number for each op: equal numbers go
            together.

    Raises:
        InvalidOption: An unknown name, an array of another length, or not of whole numbers.
        MissingDependency: "metis" without pymetis.
        InvalidProblem: No device can run all ops of a group.
    """
    if groups is None or (isinstance(groups, str) and groups == "colocation"):
        return Groups.of(problem)
    if isinstance(groups, str):
        if groups != "metis":
            raise InvalidOption(unknown_name("groups", groups, get_args(GroupName)))
        key = metis_parts(problem, min(METIS_GROUPS, max(1, problem.n_ops // METIS_OPS)))
    else:
        try:
            key = np.asarray(groups)
        except ValueError as error:
            raise InvalidOption(f"groups is no array ({error}); expected a whole number for each op") from error
        if key.shape != (problem.n_ops,) or key.dtype.kind not in "iu":
            raise InvalidOption(
                f"groups has shape {key.shape} and dtype {key.dtype}; expected {problem.n_ops} whole numbers, one for "
                f"each op of {problem.name!r}"
            )
    found = Groups.together(problem, key)
    for group in np.flatnonzero(~found.allowed.any(axis=1)).tolist():
        op = problem.graph.op_names[int(found.ops[found.start[group]])]
        raise InvalidProblem(f"groups: no device of {problem.name!r} can run all ops of the group of {op!r}")
    return found


class Problems:
    """One problem, or a distribution of problems.

    Args:
        problem: A problem, or the path of a saved one; the toy problem where nothing is given.
        problems: A sequence of problems or paths, drawn evenly; or a function that draws one with a generator.
        sizes: What observations are padded to: needed with a function; else the largest problem.
        groups: See `groups_of`.

    Attributes:
        known: The problems, if there are finitely many.
        sizes: What observations are padded to.

    Raises:
        InvalidOption: Both `problem` and `problems`, no or an empty sequence, or a function without `sizes`.
        InvalidProblem: A problem is larger than `sizes`.
    """

    def __init__(
        self,
        problem: Problem | Path | None = None,
        problems: Sequence[Problem | Path] | Draw | None = None,
        sizes: Sizes | None = None,
        groups: GroupName | ArrayLike | None = None,
    ) -> None:
        if problem is not None and problems is not None:
            raise InvalidOption("problem and problems are both given; expected one of them")
        self.draw: Draw | None = None
        self.known: tuple[Problem, ...] = ()
        self.groups = groups
        if isinstance(problems, (Problem, str, os.PathLike)):
            raise InvalidOption("problems is one problem; expected a sequence or a function, or problem=...")
        if sizes is not None and not isinstance(sizes, Sizes):
            raise InvalidOption(
                f"sizes is a {type(sizes).__name__}; expected Sizes(n_ops=..., n_edges=..., n_devices=...)"
            )
        if callable(problems):
            if sizes is None:
                raise InvalidOption(
                    "problems is a function; it needs sizes=Sizes(n_ops=..., n_edges=..., n_devices=...)"
                )
            self.draw = problems
        elif problems is None:
            self.known = (toy() if problem is None else loaded("problem", problem),)
        else:
            if not isinstance(problems, Iterable):
                raise InvalidOption(f"problems is a {type(problems).__name__}; expected a sequence or a function")
            self.known = tuple(loaded(f"problems[{i}]", one) for i, one in enumerate(problems))
            if not self.known:
                raise InvalidOption("problems is empty; expected at least one problem")
        self.sizes = sizes or Sizes.of(self.known)
        for one in self.known:
            self.check(one)

    def check(self, problem: Problem) -> None:
        """Raises InvalidProblem if a problem is larger than `sizes`."""
        got = Sizes.of([problem])
        for what in ("n_ops", "n_edges", "n_devices"):
            if getattr(got, what) > getattr(self.sizes, what):
                raise InvalidProblem(
                    f"{problem.name!r} has {what} {getattr(got, what)}; the environment is padded to "
                    f"{getattr(self.sizes, what)} (sizes=Sizes(...))"
                )

    def next(self, rng: np.random.Generator) -> Problem:
        """The problem of an episode.

        Raises:
            InvalidProblem: The function returned no problem.
        """
        if self.draw is None:
            return self.known[int(rng.integers(len(self.known))) if len(self.known) > 1 else 0]
        problem = self.draw(rng)
        if not isinstance(problem, Problem):
            raise InvalidProblem(f"problems(rng) returned a {type(problem).__name__}; expected a Problem")
        return problem

    def groups_of(self, problem: Problem) -> Groups:
        """The ops that one action places together."""
        return groups_of(problem, self.groups)
