"""Exact methods: functions from a Problem to a Result whose status says what is proved."""

from placement_gym.exact.brute_force import brute_force
from placement_gym.exact.max_load.pipeline import exact_dp, pipeline_split
from placement_gym.exact.mip.linear_program import Solver
from placement_gym.exact.solve import exact_ilp

__all__ = ["Solver", "brute_force", "exact_dp", "exact_ilp", "pipeline_split"]
