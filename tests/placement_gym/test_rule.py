"""Rules: what is refused, and presets by name."""

import math

import pytest

import placement_gym as pg
from placement_gym.errors import InvalidRule
from placement_gym.rule import PRESETS, resolve_rule


@pytest.mark.parametrize("hold_s", [-0.5, math.inf, math.nan])
def test_a_hold_is_finite_seconds(hold_s: float) -> None:
    """Below 0, endless, or no number."""
    with pytest.raises(InvalidRule, match=r"device_hold_s is .*; expected finite seconds >= 0"):
        pg.Rule(instant="event", device_hold_s=hold_s)


@pytest.mark.parametrize("option", ["queue", "transfers", "instant", "latency", "makespan", "ties"])
def test_unknown_options_are_named(option: str) -> None:
    """With the option and what it may be."""
    with pytest.raises(InvalidRule, match=f"unknown {option} 'other'; known: "):
        pg.Rule(**{option: "other"})  # type: ignore[arg-type]


def test_presets_are_found_by_name_and_rules_are_themselves() -> None:
    """The default is the preset `physical`."""
    assert resolve_rule("physical") == pg.Rule()
    assert resolve_rule(PRESETS["giph"]) is PRESETS["giph"]
