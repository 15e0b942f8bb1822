"""Tensor programs: einsum-labelled ops that can be differentiated, split over devices and run."""

from placement_gym.programs.builder import ProgramBuilder
from placement_gym.programs.gradient import training
from placement_gym.programs.lowering import shard
from placement_gym.programs.op import TensorOp
from placement_gym.programs.op_splits import OpSplits
from placement_gym.programs.program import TensorProgram
from placement_gym.programs.split import Split

__all__ = ["OpSplits", "ProgramBuilder", "Split", "TensorOp", "TensorProgram", "shard", "training"]
