"""Episodes: B placements of one problem built in lockstep; the state behind every environment."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.device_features import N_FEATURES, EpisodeProblem, describe
from placement_gym.errors import InvalidAction
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.partial import PartialPlacement, put


def write_actions(what: str, actions: ArrayLike, into: NDArray[np.int64]) -> None:
    """Copies whole numbers [B] into the array that kernels take.

    Raises:
        InvalidAction: Another shape, or no whole numbers.
    """
    given = np.asarray(actions)
    if given.shape != into.shape:
        raise InvalidAction(f"{what} has shape {given.shape}; expected {into.shape}")
    if given.dtype.kind not in "iu":
        raise InvalidAction(f"{what} has dtype {given.dtype}; expected whole numbers")
    into[:] = given


class Episodes:
    """`n_episodes` placements of one problem under construction.

    All arrays have the episode as axis 0, are allocated once, and are handed out as they are: the next step
    overwrites them. Copy what you keep.

    Attributes:
        compiled: The problem and the rule by which placements are evaluated.
        n_episodes: How many.
        n_ops: Ops of the problem, as many as an episode places.
        reference_s: Seconds by which the times among the features are divided.
        position: How many ops are placed.
        features: float32 [B, n_devices, N_FEATURES], of the op that is placed next, see `observation.DEVICE_FEATURES`.
    """

    def __init__(self, compiled: CompiledProblem, n_episodes: int, reference_s: float, *, mask_width: int = 0) -> None:
        self.compiled, self.reference_s, self.n_episodes = compiled, reference_s, n_episodes
        self.n_ops, d = compiled.problem.n_ops, compiled.problem.n_devices
        self._fixed = EpisodeProblem.of(compiled, reference_s)
        self._partial = PartialPlacement.fresh(self._fixed.partial, n_episodes)
        self._devices = np.zeros(n_episodes, np.int64)
        self._mask = np.zeros((n_episodes, max(d, mask_width)), np.bool_)
        self.features = np.zeros((n_episodes, d, N_FEATURES), np.float32)
        self.position = 0

    @property
    def mask(self) -> BoolArray:
        """Bool [B, n_devices], the devices that the next op may go to: by support, colocation and free memory.

        Where no device has memory for it: all devices that can run it (the episode is then `overfull`).
        """
        return self._mask[:, : self.compiled.problem.n_devices]

    @property
    def op_device(self) -> IntArray:
        """int32 [B, n_ops], -1 where not placed yet."""
        return self._partial.clock.op_device

    @property
    def finish_s(self) -> FloatArray:
        """float64 [B, n_ops], finish on the clock of `simulator.clock`; 0 where not placed yet."""
        return self._partial.clock.finish

    @property
    def reached_s(self) -> FloatArray:
        """float64 [B], latest finish on the clock so far."""
        return self._partial.reached

    @property
    def overfull(self) -> BoolArray:
        """Bool [B], whether a device is known to hold more than its memory; of complete placements `weigh` says it."""
        return self._partial.overfull

    @property
    def done(self) -> bool:
        """Whether all ops are placed."""
        return self.position == self.n_ops

    def weigh(self, *, n_threads: int | None = None) -> tuple[FloatArray, FloatArray]:
        """Makespans and bytes over capacity of the complete placements, as `CompiledProblem.weigh`."""
        return self.compiled.weigh(self.op_device, n_threads=n_threads)

    def _refuse_device(self, episode: int, op: int) -> InvalidAction:
        name, allowed = self.compiled.problem.graph.op_names[op], np.flatnonzero(self.mask[episode]).tolist()
        return InvalidAction(
            f"episode {episode}: op {name!r} may not go to device {self._devices[episode]}; "
            f"the action mask allows {allowed}"
        )


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _place_all(
    f: EpisodeProblem,
    s: PartialPlacement,
    op: int,
    next_op: int,
    devices: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> int:
    """Puts `op` on devices[b] everywhere and describes next_op (-1: none is left)."""
    for b in range(devices.size):
        if not 0 <= devices[b] < f.partial.slots.size or not mask[b, devices[b]]:
            return b
    for b in range(devices.size):
        put(f.partial, s, b, op, np.int64(devices[b]))
        if next_op >= 0:
            describe(f, s, b, next_op, b, features, mask)
    return -1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _describe_all(f: EpisodeProblem, s: PartialPlacement, op: int, features: np.ndarray, mask: np.ndarray) -> None:
    for b in range(mask.shape[0]):
        describe(f, s, b, op, b, features, mask)


class AssignEpisodes(Episodes):
    """Episodes that place ops in one given order, int32 [n_ops]: `step(devices)` until `done`."""

    def __init__(self, compiled: CompiledProblem, order: IntArray, n_episodes: int, reference_s: float) -> None:
        super().__init__(compiled, n_episodes, reference_s)
        self.order = order
        self.reset()

    @property
    def op(self) -> int:
        """The op that is placed next (the last one when all are placed)."""
        return int(self.order[min(self.position, self.n_ops - 1)])

    def reset(self) -> None:
        """Begins anew, with no op placed."""
        self._partial.clear(self._fixed.partial)
        self.position = 0
        _describe_all(self._fixed, self._partial, self.op, self.features, self._mask)

    def step(self, devices: ArrayLike) -> None:
        """Puts the next op of episode b on device devices[b]; `devices` are whole numbers [B].

        Raises:
            InvalidAction: A device outside its episode's mask (the first one is named); nothing changes.
        """
        write_actions("devices", devices, self._devices)
        op, last = self.op, self.position == self.n_ops - 1
        next_op = -1 if last else int(self.order[self.position + 1])
        wrong = _place_all(self._fixed, self._partial, op, next_op, self._devices, self.features, self._mask)
        if wrong >= 0:
            raise self._refuse_device(wrong, op)
        self.position += 1
