"""Runner: placements of one problem, run in turn on real devices whose workers stay, for how long each takes."""

import warnings
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.errors import ExecutionError, InfeasiblePlacement, InvalidOption, PlacementGymWarning
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.pytorch.allocator import kept_memory
from placement_gym.pytorch.devices import TorchDevice
from placement_gym.pytorch.engine import Engine
from placement_gym.pytorch.executable import Executable, Sources, kernels_of
from placement_gym.pytorch.executor import RunOptions, quiet_interpreter, real_rule
from placement_gym.pytorch.programs import random_sources
from placement_gym.pytorch.workers import Crew
from placement_gym.rule import Rule
from placement_gym.simulator.engine import ranks_of


class Runner:
    """Runs placements of a problem as `execute` does, but many of them, in any order, on workers that stay.

    Sources are put into the devices' memories once and stay there between calls.

    Args:
        problem: With kernels in its graph.
        torch_devices: What device 0, 1, ... are.
        rule: As for `execute`.
        options: Values of the sources, warm-up and timeout; the defaults of `RunOptions` where not given.

    Raises:
        InvalidRule: The rule is unknown, or has what real devices have not.
        InvalidOption: A device that is not there, another number of them than the problem has, or wrong values.
        ExecutionError: The graph has no kernels.
    """

    def __init__(
        self,
        problem: Problem,
        torch_devices: Sequence[str],
        *,
        rule: str | Rule = "physical",
        options: RunOptions | None = None,
    ) -> None:
        self.problem, self.rule, self.options = problem, real_rule(rule), options or RunOptions()
        self.devices = TorchDevice.parse(torch_devices)
        if problem.n_devices != len(self.devices):
            raise InvalidOption(f"torch_devices are {list(torch_devices)}; the problem has {problem.n_devices} devices")
        kernels, values = kernels_of(problem), self.options.values
        self._sources = Sources.of(
            kernels, random_sources(kernels.sources, self.options.seed) if values is None else values
        )

    def __call__(self, op_device: IntArray, priority: FloatArray | None, turns: Sequence[int]) -> FloatArray:
        """float64 [len(turns)], seconds of each run; inf for those of a placement that fails, of which a warning tells.

        A placement that has failed is not run again in this call. The first of all runs `options.warmup` times before.

        Args:
            op_device: int32 [B, n_ops], placements.
            priority: float64 [B, n_ops], ranks for the `priority` queue.
            turns: Numbers of placements, in the order in which they are run; one may be run many times.

        Raises:
            ExecutionError: Workers did not start.
        """
        seconds = np.full(len(turns), np.inf)
        with kept_memory(), quiet_interpreter():
            executables: dict[int, Executable] = {}
            for i in sorted(set(turns)):
                try:
                    executables[i] = self._executable(op_device[i], None if priority is None else priority[i])
                except InfeasiblePlacement as error:
                    _tell(error)
            for memory in {device.memory for device in self.devices if device.memory.type == "cuda"}:
                torch.cuda.synchronize(memory)
            crew: Crew | None = None
            try:
                for k, i in [(-1, i) for i in turns[:1]] * self.options.warmup + list(enumerate(turns)):
                    if i not in executables:
                        continue
                    crew = crew or self._crew()
                    try:
                        took_s = self._run(executables[i], crew)
                    except ExecutionError as error:
                        # Its workers may be anywhere in a kernel: the next placement gets others.
                        _tell(error)
                        del executables[i]
                        crew.end()
                        crew = None
                        continue
                    if k >= 0:
                        seconds[k] = took_s
            finally:
                if crew is not None:
                    crew.end()
        return seconds

    def _executable(self, op_device: IntArray, priority: FloatArray | None) -> Executable:
        placement = Placement(op_device)
        placement.check(self.problem)
        ranks = ranks_of(self.problem, self.rule, priority)
        memories = [device.memory for device in self.devices]
        return Executable.build(self.problem, placement, self.rule, ranks, self._sources, memories)

    def _crew(self) -> Crew:
        """Workers of all devices, and copiers between any two."""
        pairs = list(permutations(range(len(self.devices)), 2))
        crew = Crew(self.devices, self.problem.device_slots.tolist(), pairs)
        try:
            crew.start()
        except ExecutionError:
            crew.end()
            raise
        return crew

    def _run(self, executable: Executable, crew: Crew) -> float:
        run = Engine(executable, crew, self.options.timeout_s)
        run.run()
        run.kept.clear()
        return run.trace.last_event_s


def _tell(error: Exception) -> None:
    warnings.warn(f"a placement counts as infinitely slow: {error}", PlacementGymWarning, stacklevel=3)
