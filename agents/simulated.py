"""Simulated: the makespans of placements that were evaluated already."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from placement_gym.arrays import BoolArray, FloatArray, IntArray
from placement_gym.envs.select_place import priority_of
from placement_gym.problem import Problem

# (op_device int32 [B, n_ops], priority float64 [B, n_ops] or None) -> makespans, float64 [B], seconds
Evaluator = Callable[[IntArray, FloatArray | None], FloatArray]


class Simulated:
    """Makespans of placements that were simulated already, so that none is simulated twice.

    Args:
        problem: Where devices are interchangeable, placements that differ in their names alone count as one.
    """

    def __init__(self, problem: Problem) -> None:
        self.interchangeable = interchangeable(problem)
        self.makespan_s: dict[bytes, float] = {}

    def key(self, op_device: IntArray, order: IntArray | None = None) -> bytes:
        """What a placement is known by: its devices, and the order of selection where it matters."""
        named = op_device
        if self.interchangeable:
            _, first, number = np.unique(op_device, return_index=True, return_inverse=True)
            named = np.argsort(np.argsort(first))[number].astype(np.int32)
        told = named.tobytes() + (b"" if order is None else order.astype(np.int32).tobytes())
        return hashlib.blake2b(told, digest_size=16).digest()

    def makespans_s(
        self, evaluator: Evaluator, op_device: IntArray, order: IntArray | None, most: int
    ) -> tuple[FloatArray, BoolArray]:
        """(float64 [B], bool [B]): makespans, and which placements were not known and have been evaluated.

        Args:
            evaluator: Evaluates the first `most` placements that are not known; makespans of further ones are inf.
            op_device: int32 [B, n_ops].
            order: int32 [B, n_ops], the order of selection, where it matters.
            most: How many placements may be evaluated.
        """
        orders = [None] * len(op_device) if order is None else list(order)
        keys = [self.key(*one) for one in zip(op_device, orders, strict=True)]
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self.makespan_s}
        rows = sorted(first.values())[:most]
        fresh = np.zeros(len(keys), np.bool_)
        fresh[rows] = True
        if rows:
            priority = None if order is None else priority_of(order[rows], op_device.shape[1])
            evaluated = evaluator(op_device[rows], priority).tolist()
            self.makespan_s.update(zip((keys[i] for i in rows), evaluated, strict=True))
        return np.array([self.makespan_s.get(key, np.inf) for key in keys]), fresh

    def state(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For checkpoints."""
        keys = np.frombuffer(b"".join(self.makespan_s), np.uint8).reshape(-1, 16).copy()
        return torch.from_numpy(keys), torch.tensor(list(self.makespan_s.values()), dtype=torch.float64)

    def restore(self, state: tuple[torch.Tensor, torch.Tensor]) -> None:
        """What `state` wrote."""
        keys, makespans_s = state
        self.makespan_s = dict(zip((row.tobytes() for row in keys.numpy()), makespans_s.tolist(), strict=True))


def interchangeable(problem: Problem) -> bool:
    """Whether all devices and links are alike."""
    apart = ~np.eye(problem.n_devices, dtype=bool)
    alike: list[NDArray[Any]] = [problem.op_time_s.T, problem.device_slots, problem.device_memory_bytes]
    alike += [problem.link_latency_s[apart], problem.link_bytes_per_s[apart]]
    return all(bool((values == values[:1]).all()) for values in alike)
