"""Exact methods: functions from a Problem to a Result whose status says what is proved."""

from placement_gym.exact.brute_force import brute_force
from placement_gym.exact.max_load.pipeline import dp, pipeline_split
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.exact.solve import mip

__all__ = ["Solver", "brute_force", "dp", "mip", "pipeline_split"]
