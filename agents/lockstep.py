"""Lockstep: episodes of SelectPlace-v0 on one problem, all at the same step, played without observations or rewards."""

import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs import SelectPlaceVectorEnv, Sizes
from placement_gym.envs.actions import first_wrong
from placement_gym.envs.select_place import SelectPlaceProcess
from placement_gym.envs.stack import ProblemStack
from placement_gym.errors import InvalidAction
from placement_gym.groups import Groups


class Lockstep:
    """As many episodes as the environment has, of its own process, on its problem; the environment is left alone.

    `select` and `place` in turn, or `step` where the environment's action is "joint". All arrays have the episode as
    axis 0 and are overwritten by the next call: copy what you keep.

    Args:
        env: A vector environment whose episodes place one problem, op by op.

    Attributes:
        n_episodes: How many.
        n_ops: Ops of the problem, as many as an episode places.
        compiled: The problem and the rule by which placements are evaluated.
        reference_s: Seconds by which the times among the features are divided.
        by_selection: Whether ops that wait go in the order in which they were selected.
    """

    def __init__(self, env: SelectPlaceVectorEnv) -> None:
        problem = env.problem
        stack = ProblemStack(env.rule, Sizes.of([problem]), by_group=False)
        stack.put(problem, Groups.of(problem))
        process = env.single.make_process(stack, env.num_envs)
        assert isinstance(process, SelectPlaceProcess)
        process.fit()
        self._process = process
        self.n_episodes, self.n_ops, self._n_devices = env.num_envs, problem.n_ops, problem.n_devices
        self.compiled, self.reference_s = stack.entry(0).compiled, stack.entry(0).reference_s
        self.by_selection = process.by_selection
        self._rows, self._active = np.arange(env.num_envs), np.ones(env.num_envs, np.bool_)
        self.reset()

    def reset(self) -> None:
        """Takes everything off the devices."""
        self._process.done[:] = False
        self._process.begin(self._rows, ())

    def select(self, ops: NDArray[np.int64]) -> None:
        """Chooses the op that is placed next, int64 [B]; writes `features` and `mask`."""
        self._act(ops)

    def place(self, devices: NDArray[np.int64]) -> None:
        """Puts the chosen op on a device, int64 [B]; writes `ready` and what is placed."""
        self._act(devices)

    def step(self, ops: NDArray[np.int64], devices: NDArray[np.int64]) -> None:
        """Puts an op on a device, int64 [B] both; writes `ready`, `pair_features`, `pair_mask` and what is placed."""
        self._act(ops * self._n_devices + devices)

    def _act(self, actions: NDArray[np.int64]) -> None:
        """One step of the process.

        Raises:
            InvalidAction: The episode does not allow it (the first one is named); nothing changes.
        """
        wrong = first_wrong(self._process.mask, actions, self._active)
        if wrong >= 0:
            raise InvalidAction(f"episode {wrong}: action {actions[wrong]} is not in the action mask")
        self._process.step(actions, self._active)

    @property
    def ready(self) -> BoolArray:
        """Bool [B, n_ops], ops that are not placed, but whose inputs are."""
        return self._process.ready

    @property
    def mask(self) -> BoolArray:
        """Bool [B, n_devices], where the chosen op may go."""
        return self._process.mask[:, : self._n_devices]

    @property
    def features(self) -> NDArray[np.float32]:
        """float32 [B, n_devices, len(ACTION_FEATURES)], what each device would mean for the chosen op."""
        return self._process.features[:, : self._n_devices]

    @property
    def pair_mask(self) -> BoolArray:
        """Bool [B, n_ops, n_devices], which pairs are allowed; for joint actions only."""
        return self._process.mask.reshape(self.n_episodes, self.n_ops, self._n_devices)

    @property
    def pair_features(self) -> NDArray[np.float32]:
        """float32 [B, n_ops, n_devices, len(ACTION_FEATURES)], 0 for ops that are not ready; for joint actions only."""
        return self._process.features.reshape(self.n_episodes, self.n_ops, self._n_devices, -1)

    @property
    def op_device(self) -> IntArray:
        """int32 [B, n_ops], -1 where not placed."""
        return self._process.op_device

    @property
    def order(self) -> IntArray:
        """int32 [B, n_ops], ops in the order in which they were placed, then -1."""
        return self._process.order

    @property
    def finish_s(self) -> FloatArray:
        """float64 [B, n_ops], finish on the clock of `simulator.clock`; 0 where not placed."""
        return self._process.partial.clock.finish

    @property
    def overfull(self) -> BoolArray:
        """Bool [B], whether a device is known to hold more than its memory."""
        return self._process.partial.overfull
