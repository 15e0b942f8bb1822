"""Torch devices that ops can be placed on: cores of this process and GPUs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from placement_gym.errors import InvalidOption


def known_torch_devices() -> list[str]:
    """All "cpu:k", the k-th core that this process may use, and "cuda:k"."""
    cores = [f"cpu:{k}" for k in range(len(os.sched_getaffinity(0)))]
    return [*cores, *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]


@dataclass(frozen=True, slots=True)
class TorchDevice:
    """One device that ops are placed on: a core with a worker pinned to it, or a stream of a GPU.

    Attributes:
        name: As torch writes it ("cpu:1", "cuda:0"); for CPUs the number counts the cores that this process may use.
        memory: Where its tensors are.
        core: The core's number in the system; -1 for a GPU.
    """

    name: str
    memory: torch.device
    core: int = -1

    @classmethod
    def parse(cls, names: Sequence[str]) -> "tuple[TorchDevice, ...]":
        """The devices of that name; a GPU may be named several times, each time with a stream of its own.

        Raises:
            InvalidOption: A device that is not there, or a core named twice.
        """
        cores, known = sorted(os.sched_getaffinity(0)), known_torch_devices()
        devices = []
        for k, name in enumerate(names):
            if name not in known:
                raise InvalidOption(f"torch device {name!r} is not there; this process may use {', '.join(known)}")
            kind, _, number = name.partition(":")
            on_cpu = kind == "cpu"
            if on_cpu and name in names[:k]:
                raise InvalidOption(f"torch device {name!r} is named twice; a core is one device (known: {known})")
            memory = torch.device("cpu") if on_cpu else torch.device(name)
            devices.append(cls(name, memory, cores[int(number)] if on_cpu else -1))
        return tuple(devices)
