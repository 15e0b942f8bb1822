"""Tensor programs: einsum-labelled ops that can be differentiated, split over devices and run."""

from placement_gym.programs.builder import ProgramBuilder
from placement_gym.programs.gradient import training
from placement_gym.programs.program import TensorOp, TensorProgram

__all__ = ["ProgramBuilder", "TensorOp", "TensorProgram", "training"]
