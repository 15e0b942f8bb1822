"""The simulator: a placement unfolded in time under a stated rule."""

from placement_gym.simulator.chain import critical_chain
from placement_gym.simulator.compiled import CompiledProblem, compile_problem
from placement_gym.simulator.engine import noise_factors, simulate, simulate_batch

__all__ = ["CompiledProblem", "compile_problem", "critical_chain", "noise_factors", "simulate", "simulate_batch"]
