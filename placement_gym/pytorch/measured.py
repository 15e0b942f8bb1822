"""MeasuredSchedule: what a placement did on real devices."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from placement_gym.arrays import FloatArray, span
from placement_gym.schedule import Schedule


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class MeasuredSchedule(Schedule):
    """A schedule by the clock of a real run: the repeat with the median makespan (of an even number, the lower one).

    Times are the dispatcher's, so an op's interval holds the waking of its worker and its launch besides the kernel.

    Attributes:
        makespans_s: float64 [repeats], of every repeat, in the order in which they ran.
        op_kernel_s: float64 [n_ops], the kernel alone, in the median repeat.
        measured_peak_bytes: float64 [n_devices], parameters and live tensors at the worst instant, counted during the
            median repeat. Outputs kept for the caller count, as in `memory.py`, until their last reader is done.
        results: On the CPU, by the names of `Kernels.results`.
    """

    makespans_s: FloatArray
    op_kernel_s: FloatArray
    measured_peak_bytes: FloatArray
    results: Mapping[str, Tensor]

    def __repr__(self) -> str:
        """At most five lines, whatever the size."""
        return (
            f"{Schedule.__repr__(self)}\n"
            f"  measured: {len(self.makespans_s)} repeats, {span(self.makespans_s)} s; kernels alone "
            f"{self.op_kernel_s.sum():.6g} s; peak memory {self.measured_peak_bytes.max():.6g} bytes"
        )

    @property
    def op_overhead_s(self) -> FloatArray:
        """float64 [n_ops]: the part of each op's interval that is the engine's, not the kernel's."""
        overhead: FloatArray = self.trace.op_finish_s - self.trace.op_start_s - self.op_kernel_s
        return overhead
