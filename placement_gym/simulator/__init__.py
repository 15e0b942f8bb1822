"""The simulator: a placement unfolded in time under a stated rule."""

from placement_gym.simulator.engine import simulate, simulate_batch

__all__ = ["simulate", "simulate_batch"]
