"""Rewards: an objective over a reference, at the end or as it grows; both add up to the same return."""

from typing import Literal, get_args

from placement_gym.errors import InvalidOption, unknown_name

Reward = Literal["terminal", "dense"]
# What an illegal action costs under invalid="penalty", in units of the reference.
PENALTY = 0.1


def check_choice(what: str, value: object, known: object) -> None:
    """Raises InvalidOption, listing the known ones, if `value` is none of the choices of a Literal."""
    if not isinstance(value, str) or value not in get_args(known):
        raise InvalidOption(unknown_name(what, repr(value) if not isinstance(value, str) else value, get_args(known)))
