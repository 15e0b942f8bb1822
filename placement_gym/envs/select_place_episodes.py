"""SelectPlaceEpisodes: B episodes in lockstep that choose an op among those ready, then a device for it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.device_features import N_FEATURES, EpisodeProblem, allow, describe
from placement_gym.envs.episodes import Episodes, write_actions
from placement_gym.errors import InvalidAction
from placement_gym.simulator import CompiledProblem
from placement_gym.simulator.partial import PartialPlacement, PartialProblem, put

Phase = Literal["select", "place"]


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def _release(f: PartialProblem, b: int, op: int, missing: np.ndarray, ready: np.ndarray) -> None:
    """Takes a placed op out of the ready set, and in those whose last input it was."""
    ready[b, op] = False
    for k in range(f.out_start[op], f.out_start[op + 1]):
        reader = f.out_ops[k]
        missing[b, reader] -= 1
        if missing[b, reader] == 0:
            ready[b, reader] = True


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _select_all(
    f: EpisodeProblem,
    s: PartialPlacement,
    ready: np.ndarray,
    ops: np.ndarray,
    op: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> int:
    n = f.partial.op_group.size
    for b in range(ops.size):
        if not 0 <= ops[b] < n or not ready[b, ops[b]]:
            return b
    for b in range(ops.size):
        op[b, 0] = ops[b]
        describe(f, s, b, ops[b], b, features, mask)
    return -1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _place_all(
    f: PartialProblem,
    s: PartialPlacement,
    position: int,
    op: np.ndarray,
    devices: np.ndarray,
    mask: np.ndarray,
    missing: np.ndarray,
    ready: np.ndarray,
    order: np.ndarray,
) -> int:
    for b in range(devices.size):
        if not 0 <= devices[b] < f.slots.size or not mask[b, devices[b]]:
            return b
    for b in range(devices.size):
        order[b, position] = op[b, 0]
        put(f, s, b, np.int64(op[b, 0]), np.int64(devices[b]))
        _release(f, b, np.int64(op[b, 0]), missing, ready)
    return -1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _step_all(
    f: PartialProblem,
    s: PartialPlacement,
    position: int,
    ops: np.ndarray,
    devices: np.ndarray,
    op: np.ndarray,
    mask: np.ndarray,
    missing: np.ndarray,
    ready: np.ndarray,
    order: np.ndarray,
) -> int:
    for b in range(devices.size):
        if not 0 <= ops[b] < f.op_group.size or not ready[b, ops[b]]:
            return b
        allow(f, s, b, np.int64(ops[b]), b, mask)
        if not 0 <= devices[b] < f.slots.size or not mask[b, devices[b]]:
            return b
    for b in range(devices.size):
        op[b, 0] = ops[b]
        order[b, position] = ops[b]
        put(f, s, b, np.int64(ops[b]), np.int64(devices[b]))
        _release(f, b, np.int64(ops[b]), missing, ready)
    return -1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _describe_pairs(
    f: EpisodeProblem,
    s: PartialPlacement,
    ready: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
    product: np.ndarray,
) -> None:
    """Writes `pair_features` and `pair_mask`, their first two axes joined, and `product_mask`."""
    n, n_devices = f.partial.op_group.size, f.partial.slots.size
    for b in range(ready.shape[0]):
        first = -1
        for op in range(n):
            row = b * n + op
            product[b, op] = ready[b, op]
            if ready[b, op]:
                describe(f, s, b, op, row, features, mask)
                first = row if first < 0 else first
                for d in range(n_devices):
                    if mask[first, d] and not mask[row, d]:
                        product[b, op] = False
            else:
                for d in range(n_devices):
                    mask[row, d] = False
                    for i in range(features.shape[2]):
                        features[row, d, i] = 0.0
        for d in range(n_devices):
            product[b, n + d] = mask[first, d]


def priority_of(order: NDArray[Any], n_ops: int) -> FloatArray:
    """float64 [B, n_ops]: n_ops for the op placed first, one less for the next; 0 for those not placed.

    Args:
        order: int [B, n_placed], ops in the order in which they were placed.
        n_ops: Of the problem.
    """
    priority = np.zeros((len(order), n_ops))
    np.put_along_axis(priority, order, np.arange(n_ops, n_ops - order.shape[1], -1.0)[None, :], axis=1)
    return priority


class SelectPlaceEpisodes(Episodes):
    """Episodes that choose an op, then a device for it: `select(ops)`, `place(devices)`, in turn until `done`.

    `step(ops, devices)` does both in one call, without describing the devices in between. Arrays, all with the
    episode as axis 0, allocated once and overwritten by the next call (copy what you keep):

    * `ready`: bool [B, n_ops], ops that may be selected: not placed, all inputs placed.
    * `op`: int32 [B], the op selected last.
    * `features`: float32 [B, n_devices, N_FEATURES], what each device would mean for it (`DEVICE_FEATURES`).
    * `mask`: bool [B, n_devices], where it may go.
    * `op_device`: int32 [B, n_ops], -1 where not placed.
    * `order`: int32 [B, n_ops], `order[b, k]` is the k-th op that was placed, -1 where none is yet.
    * `finish_s`: float64 [B, n_ops], `reached_s`: float64 [B], by the clock of `simulator.clock`.
    * Only with `pairs=True`, for policies that choose op and device at once, and much slower: `pair_features` float32
      [B, n_ops, n_devices, N_FEATURES] and `pair_mask` bool [B, n_ops, n_devices], of all ready ops, 0 for the others;
      `product_mask` bool [B, n_ops + n_devices], of which every op and every device make a pair in `pair_mask`: the
      devices of the first ready op, and the ops that may go to all of these. Without it they are empty.

    Attributes:
        phase: "select" or "place", what comes next, the same for all episodes; what came last once they are done.
        by_selection: Whether the simulator takes ops that wait for a device in the order in which they were selected;
            the rule's queue is then "priority".
    """

    def __init__(
        self,
        compiled: CompiledProblem,
        n_episodes: int,
        reference_s: float,
        *,
        by_selection: bool = False,
        pairs: bool = False,
    ) -> None:
        n, d = compiled.problem.n_ops, compiled.problem.n_devices
        # Masks of ops and of devices have one width, because environments hand out either in one observation key.
        super().__init__(compiled, n_episodes, reference_s, mask_width=n)
        self.by_selection = by_selection
        self.phase: Phase = "select"
        self._ready = np.zeros((n_episodes, max(n, d)), np.bool_)
        self._missing = np.zeros((n_episodes, n), np.int32)
        self._op = np.zeros((n_episodes, 1), np.int32)
        self._ops = np.zeros(n_episodes, np.int64)
        self.order = np.zeros((n_episodes, n), np.int32)
        rows = n_episodes * n if pairs else 0
        self._pair_features = np.zeros((rows, d, N_FEATURES), np.float32)
        self._pair_mask = np.zeros((rows, d), np.bool_)
        self.product_mask = np.zeros((n_episodes if pairs else 0, n + d), np.bool_)
        self.reset()

    @property
    def ready(self) -> BoolArray:
        """Bool [B, n_ops], see the class."""
        return self._ready[:, : self.n_ops]

    @property
    def op(self) -> IntArray:
        """int32 [B], see the class."""
        return self._op[:, 0]

    @property
    def action_mask(self) -> BoolArray:
        """Bool [B, max(n_ops, n_devices)], what the next action may be: `ready`, or `mask`, with 0 behind it."""
        return self._ready if self.phase == "select" else self._mask

    @property
    def priority(self) -> FloatArray:
        """float64 [B, n_ops], see `priority_of`."""
        return priority_of(self.order[:, : self.position], self.n_ops)

    def reset(self) -> None:
        """Takes everything off the devices."""
        self._partial.clear(self._fixed.partial)
        self._missing[:] = np.diff(self._fixed.partial.clock.in_start)
        np.equal(self._missing, 0, out=self.ready)
        self.order.fill(-1)
        self._turn(0)

    def select(self, ops: ArrayLike) -> None:
        """Chooses the op that is placed next, whole numbers [B]; writes `op`, `features` and `mask`.

        Raises:
            InvalidAction: An op that is not ready (the first one is named), or the phase is "place"; nothing changes.
        """
        self._expect("select")
        write_actions("ops", ops, self._ops)
        wrong = _select_all(self._fixed, self._partial, self._ready, self._ops, self._op, self.features, self._mask)
        if wrong >= 0:
            raise self._refuse_op(wrong)
        self.phase = "place"

    def place(self, devices: ArrayLike) -> None:
        """Puts the chosen op on devices[b], whole numbers [B]; writes `ready`, `op_device` and the clock.

        Raises:
            InvalidAction: A device outside `mask` (the first one is named), or the phase is "select"; nothing changes.
        """
        self._expect("place")
        write_actions("devices", devices, self._devices)
        wrong = _place_all(
            self._fixed.partial,
            self._partial,
            self.position,
            self._op,
            self._devices,
            self._mask,
            self._missing,
            self._ready,
            self.order,
        )
        if wrong >= 0:
            raise self._refuse_device(wrong, int(self._op[wrong, 0]))
        self._turn(self.position + 1)

    def step(self, ops: ArrayLike, devices: ArrayLike) -> None:
        """`select` and `place` in one call; `features` are left as they were.

        Raises:
            InvalidAction: As `select` and `place`; nothing changes but `mask`.
        """
        self._expect("select")
        write_actions("ops", ops, self._ops)
        write_actions("devices", devices, self._devices)
        wrong = _step_all(
            self._fixed.partial,
            self._partial,
            self.position,
            self._ops,
            self._devices,
            self._op,
            self._mask,
            self._missing,
            self._ready,
            self.order,
        )
        if wrong >= 0:
            op = int(self._ops[wrong])
            is_ready = 0 <= op < self.n_ops and self.ready[wrong, op]
            raise self._refuse_device(wrong, op) if is_ready else self._refuse_op(wrong)
        self._turn(self.position + 1)

    def act(self, actions: ArrayLike, *, joint: bool) -> None:
        """`step` with whole numbers [B, 2] (op, device) if joint, else `select` or `place`, by the phase, with [B]."""
        if joint:
            given = np.asarray(actions)
            if given.shape != (self.n_episodes, 2):
                raise InvalidAction(f"actions has shape {given.shape}; expected {(self.n_episodes, 2)}")
            self.step(given[:, 0], given[:, 1])
        elif self.phase == "select":
            self.select(actions)
        else:
            self.place(actions)

    @property
    def pair_features(self) -> NDArray[np.float32]:
        """float32 [B, n_ops, n_devices, N_FEATURES], see the class."""
        return self._pair_features.reshape(len(self.product_mask), self.n_ops, *self._pair_features.shape[1:])

    @property
    def pair_mask(self) -> BoolArray:
        """Bool [B, n_ops, n_devices], see the class."""
        return self._pair_mask.reshape(len(self.product_mask), self.n_ops, self._pair_mask.shape[1])

    def weigh(self, *, n_threads: int | None = None) -> tuple[FloatArray, FloatArray]:
        """Makespans and bytes over capacity of the complete placements, as `CompiledProblem.weigh`."""
        return self.compiled.weigh(self.op_device, self.priority if self.by_selection else None, n_threads)

    def _turn(self, position: int) -> None:
        """The next op's turn. When all are placed, masks and features of the last one stay."""
        self.position = position
        self.phase = "place" if self.done else "select"
        if len(self.product_mask) and not self.done:
            _describe_pairs(
                self._fixed, self._partial, self._ready, self._pair_features, self._pair_mask, self.product_mask
            )

    def _expect(self, phase: Phase) -> None:
        if self.done:
            raise InvalidAction("all ops are placed; call reset()")
        if self.phase != phase:
            raise InvalidAction(f"the episodes wait for {self.phase!r}; got {phase!r}")

    def _refuse_op(self, episode: int) -> InvalidAction:
        ready = np.flatnonzero(self.ready[episode]).tolist()
        return InvalidAction(f"episode {episode}: op {self._ops[episode]} is not ready; ready are {ready}")
