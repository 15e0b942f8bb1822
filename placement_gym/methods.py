"""METHODS: every solver by name, the functions of `baselines` and `exact` that return a `Result`."""

from collections.abc import Callable
from inspect import isfunction, signature

from placement_gym import baselines, exact
from placement_gym.result import Result

METHODS: dict[str, Callable[..., Result]] = {
    name: function
    for room in (baselines, exact)
    for name in room.__all__
    if isfunction(function := getattr(room, name)) and signature(function).return_annotation in (Result, "Result")
}
