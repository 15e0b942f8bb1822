"""Contention as data: which unit-capacity channels a transfer from one device to another occupies.

A contention rule is a function of `device_node` (int32 [d], which devices share a node) that returns int32 [d, d, k]:
row (src, dst) lists the channels that a transfer from src to dst occupies, padded with -1. A transfer takes all its
channels at once or waits. A multicast takes the channels of all its pairs. Nothing else in the gym knows the rules'
names: `register` adds one, and the simulator, its checks, the environments and the exact methods read the array.
"""

from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np

from placement_gym.arrays import IntArray
from placement_gym.errors import InvalidRule, unknown_name

ContentionRule = Callable[[IntArray], IntArray]

# The group of entry points under which an installed package names its rules.
ENTRY_POINTS = "placement_gym.contention"


def none(device_node: IntArray) -> IntArray:
    """Any number of transfers at once."""
    d = len(device_node)
    return np.full((d, d, 0), -1, np.int32)


def link(device_node: IntArray) -> IntArray:
    """One transfer at a time on each ordered pair of devices."""
    src, dst = np.indices((len(device_node),) * 2)
    return np.stack([src * len(device_node) + dst], axis=-1).astype(np.int32)


def egress(device_node: IntArray) -> IntArray:
    """Each device sends one at a time."""
    src, _ = np.indices((len(device_node),) * 2)
    return np.stack([src], axis=-1).astype(np.int32)


def port(device_node: IntArray) -> IntArray:
    """Each device sends one and receives one at a time."""
    src, dst = np.indices((len(device_node),) * 2)
    return np.stack([src, len(device_node) + dst], axis=-1).astype(np.int32)


def half_duplex(device_node: IntArray) -> IntArray:
    """Each device takes part in one transfer at a time."""
    src, dst = np.indices((len(device_node),) * 2)
    return np.stack([src, dst], axis=-1).astype(np.int32)


def nic(device_node: IntArray) -> IntArray:
    """As `port`; between nodes also the network card of either node, which sends one and receives one at a time."""
    d = len(device_node)
    _, node = np.unique(device_node, return_inverse=True)
    src, dst = np.indices((d, d))
    apart = node[src] != node[dst]
    send, receive = 2 * d + node[src], 3 * d + node[dst]
    cards = [np.where(apart, card, -1) for card in (send, receive)]
    return np.stack([src, d + dst, *cards], axis=-1).astype(np.int32)


CONTENTIONS: dict[str, ContentionRule] = {rule.__name__: rule for rule in (none, link, egress, port, half_duplex, nic)}


def register(name: str, rule: ContentionRule) -> None:
    """Makes a contention rule known by name, for `Rule(contention=name)`.

    Args:
        name: A name that is not taken.
        rule: From device_node, int32 [d], to int32 [d, d, k], the channels of each ordered pair, -1 for none.

    Raises:
        InvalidRule: The name is taken, the rule is no function, or it gives no channels for two devices.
    """
    if not callable(rule):
        raise InvalidRule(f"contention rule {name!r} is a {type(rule).__name__}; expected a function of device_node")
    if name in CONTENTIONS and CONTENTIONS[name] is not rule:
        raise InvalidRule(f"a contention rule named {name!r} exists already; expected a new name")
    known = CONTENTIONS.get(name)
    CONTENTIONS[name] = rule
    try:
        channels_of(name, np.arange(2, dtype=np.int32))
    except Exception:
        # A name that a wrong function took could not be given to the right one.
        if known is None:
            del CONTENTIONS[name]
        raise


def register_installed() -> None:
    """Makes the rules known that installed packages name as entry points of the group `placement_gym.contention`.

    The commands of `experiments` start with it. No configuration or record can name a module: what is imported hangs
    on what is installed alone.

    Raises:
        InvalidRule: A rule cannot be imported or is no function, or its name is taken.
    """
    for point in entry_points(group=ENTRY_POINTS):
        try:
            rule = point.load()
        except Exception as error:
            raise InvalidRule(
                f"contention rule {point.name!r} of an installed package: cannot import {point.value!r} "
                f"({type(error).__name__}: {error})"
            ) from error
        register(point.name, rule)


def channels_of(name: str, device_node: IntArray) -> IntArray:
    """int32 [d, d, k]: the channels of each ordered pair under a named rule, numbered from 0; -1 on the diagonal.

    Raises:
        InvalidRule: The name is unknown, or the rule returns something else than it should.
    """
    if name not in CONTENTIONS:
        raise InvalidRule(unknown_name("contention", name, CONTENTIONS))
    d = len(device_node)
    given = np.asarray(CONTENTIONS[name](np.array(device_node, dtype=np.int32)))
    if given.ndim != 3 or given.shape[:2] != (d, d) or given.dtype.kind not in "iu" or bool((given < -1).any()):
        raise InvalidRule(
            f"contention {name!r} gave an array of shape {given.shape} and dtype {given.dtype}; expected whole "
            f"numbers >= -1 of shape [{d}, {d}, k]"
        )
    channels = np.array(given, dtype=np.int64)
    channels[np.arange(d), np.arange(d)] = -1
    used = np.unique(channels[channels >= 0])
    return np.where(channels >= 0, np.searchsorted(used, channels), -1).astype(np.int32)
