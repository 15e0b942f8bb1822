"""Errors of the gym: one base class, one class per kind of mistake.

Every message says what was got, what was expected and where.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import get_args


class PlacementGymError(Exception):
    """Base class of every error that the gym raises on purpose."""


class PlacementGymWarning(UserWarning):
    """Base class of the gym's warnings."""


class InvalidGraph(PlacementGymError):
    """An op graph that is no DAG or whose arrays contradict each other."""


class InvalidProgram(PlacementGymError):
    """A tensor program, or a plan for splitting it, that contradicts itself."""


class InvalidCluster(PlacementGymError):
    """A cluster with impossible devices or links."""


class InvalidProblem(PlacementGymError):
    """A problem whose arrays contradict each other, or that no placement can solve."""


class InfeasiblePlacement(PlacementGymError):
    """A placement that breaks support, memory or colocation."""


class InvalidRule(PlacementGymError):
    """A simulator rule that is unknown or contradicts itself."""


class InvalidSchedule(PlacementGymError):
    """A schedule that breaks precedence, capacity, contention, work conservation or memory."""


class InvalidAction(PlacementGymError):
    """An action outside the action mask."""


class InvalidFile(PlacementGymError):
    """A file that is missing, truncated, malformed or of another kind than expected."""


class CaptureError(PlacementGymError):
    """A module that could not be captured as an op graph."""


class ExecutionError(PlacementGymError):
    """A real run that failed, ran out of memory or timed out; the message names the op."""


class CheckpointMismatch(PlacementGymError):
    """A checkpoint that belongs to another problem or agent."""


class InvalidOption(PlacementGymError):
    """An option with a value that is not allowed."""


class MissingDependency(PlacementGymError):
    """An optional package that is not installed; the message says how to install it."""


def unknown_name(what: str, got: object, known: Iterable[str]) -> str:
    """Message for a name that is not known, listing those that are."""
    return f"unknown {what} {got!r}; known: {', '.join(sorted(known))}"


def unread_names(what: str, unread: Iterable[str], known: Sequence[str]) -> str:
    """Message for names that nobody reads, each with the known name that it looks like."""
    said = []
    for name in sorted(unread):
        alike = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7)
        said.append(f"{name!r} (did you mean {alike[0]!r}?)" if alike else repr(name))
    return f"{what} that are not read: {', '.join(said)}; read are {', '.join(known)}"


def check_choice(what: str, value: object, known: object) -> None:
    """Raises InvalidOption, listing the known ones, if `value` is none of the choices of a Literal."""
    if not isinstance(value, str) or value not in get_args(known):
        raise InvalidOption(unknown_name(what, value, get_args(known)))
