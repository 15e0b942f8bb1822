"""The only torch in the gym: capture of modules, execution of graphs with kernels on real devices."""

from placement_gym.pytorch.executor import RunOptions, execute
from placement_gym.pytorch.measured import MeasuredSchedule

__all__ = ["MeasuredSchedule", "RunOptions", "execute"]
