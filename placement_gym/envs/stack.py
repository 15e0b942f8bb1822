"""ProblemStack: several problems side by side in padded arrays, so that one call steps episodes of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray
from placement_gym.envs.device_features import EpisodeProblem
from placement_gym.envs.observation import Observation, Sizes, static_observation
from placement_gym.groups import Groups
from placement_gym.problem import Problem
from placement_gym.ranks import fastest_op_time_s
from placement_gym.rule import Rule
from placement_gym.simulator import CompiledProblem, compile_problem
from placement_gym.simulator.clock import ClockProblem
from placement_gym.simulator.partial import PartialProblem


def reference_s(problem: Problem) -> float:
    """What objectives are measured by: all ops one after the other, each on its fastest device (1 s if that is 0)."""
    return float(fastest_op_time_s(problem).sum()) or 1.0


def worst_s(problem: Problem, rule: Rule) -> float:
    """Seconds that no objective of any placement exceeds.

    The simulator never idles: until the end some op runs, some tensor is on its way, or a device or a channel is held
    after one. Loads count a transfer at both of its ends.
    """
    able = np.where(np.isfinite(problem.op_time_s), problem.op_time_s, 0.0).max(axis=1)
    apart = ~np.eye(problem.n_devices, dtype=np.bool_)
    latency = problem.link_latency_s[apart].max(initial=0.0)
    per_byte = (1.0 / problem.link_bytes_per_s[apart]).max(initial=0.0)
    sending = 2 * (latency * problem.graph.n_edges + problem.graph.edge_bytes.sum() * per_byte)
    return float(able.sum() + sending + rule.device_hold_s * problem.n_ops)


def corner_of(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The index of an array's first corner of that shape."""
    return tuple(slice(length) for length in shape)


def write_corner(into: NDArray[Any], values: NDArray[Any]) -> None:
    """Copies values into the first corner of a larger array."""
    into[corner_of(values.shape)] = values


class StackArrays(NamedTuple):
    """Arrays of `EpisodeProblem` with the problem as axis 0, and how much of each counts; `work` comes last."""

    n_ops: np.ndarray
    n_devices: np.ndarray
    reference_s: np.ndarray
    contended: np.ndarray
    copies: np.ndarray
    device_hold: np.ndarray
    op_time: np.ndarray
    in_start: np.ndarray
    src: np.ndarray
    size: np.ndarray
    tensor: np.ndarray
    delay: np.ndarray
    bytes_per_s: np.ndarray
    hold: np.ndarray
    channels: np.ndarray
    slots: np.ndarray
    memory: np.ndarray
    op_group: np.ndarray
    group_memory: np.ndarray
    group_working: np.ndarray
    allowed: np.ndarray
    out_start: np.ndarray
    out_ops: np.ndarray
    work: np.ndarray


@njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)
def problem_at(s: StackArrays, p: int) -> EpisodeProblem:
    """Problem p of the stack, as views."""
    n, d = s.n_ops[p], s.n_devices[p]
    clock = ClockProblem(
        s.op_time[p],
        s.in_start[p],
        s.src[p],
        s.size[p],
        s.tensor[p],
        s.delay[p],
        s.bytes_per_s[p],
        s.hold[p],
        s.channels[p],
        s.contended[p],
        s.copies[p],
        s.device_hold[p],
    )
    partial = PartialProblem(
        clock,
        s.slots[p, :d],
        s.memory[p],
        s.op_group[p, :n],
        s.group_memory[p],
        s.group_working[p],
        s.allowed[p],
        s.out_start[p],
        s.out_ops[p],
    )
    return EpisodeProblem(partial, s.reference_s[p], s.work[p])


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """What a stack knows of one of its problems beside the arrays.

    Attributes:
        problem: The problem.
        compiled: The problem under the stack's rule.
        groups: Ops that one action places together.
        static: The STATIC keys of its observations.
        reference_s: See `reference_s`.
        worst_s: See `worst_s`.
    """

    problem: Problem
    compiled: CompiledProblem
    groups: Groups
    static: Observation
    reference_s: float
    worst_s: float


class ProblemStack:
    """Problems under one rule in padded arrays. A problem has one place, however many episodes use it.

    Args:
        rule: The rule.
        sizes: What observations are padded to; no problem is larger.
        by_group: Whether an action places a whole group.
        kept: Problems that stay when no episode uses them; others make room.

    Attributes:
        sizes: See above.
        by_group: See above.
        arrays: The arrays; replaced by larger ones where there are more problems, or larger ones.
        entries: The problems, in the order of axis 0; None for a place that is free.
    """

    def __init__(self, rule: Rule, sizes: Sizes, *, by_group: bool, kept: Sequence[Problem] = ()) -> None:
        self.rule, self.sizes, self.by_group = rule, sizes, by_group
        self.entries: list[Stacked | None] = [None]
        self.arrays: StackArrays | None = None
        self._kept, self._users, self._free = {id(problem) for problem in kept}, [0], [0]
        self._places: dict[int, int] = {}  # of problems by identity; `entries` keeps them alive

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a copy, problems are other objects; none is kept, which only costs time."""
        self.__dict__.update(state)
        self._kept = set()
        self._places = {id(entry.problem): place for place, entry in enumerate(self.entries) if entry is not None}

    def entry(self, place: int) -> Stacked:
        """The problem at a place that is used."""
        entry = self.entries[place]
        assert entry is not None
        return entry

    def find(self, problem: Problem) -> int | None:
        """The place of a problem, if it has one."""
        return self._places.get(id(problem))

    def use(self, place: int) -> None:
        """Counts one more episode that uses the problem at a place."""
        self._users[place] += 1

    def release(self, place: int) -> None:
        """Counts one episode less; the place is free after the last one, unless the problem is kept."""
        self._users[place] -= 1
        problem = self.entry(place).problem
        if self._users[place] == 0 and id(problem) not in self._kept:
            del self._places[id(problem)]
            self.entries[place] = None
            self._free.append(place)

    def put(self, problem: Problem, groups: Groups) -> int:
        """Writes a problem, no larger than `sizes`, to a free place, and returns the place."""
        if not self._free:
            n = len(self.entries)
            self.entries += [None] * n
            self._users += [0] * n
            self._free += range(2 * n - 1, n - 1, -1)
        place = self._free.pop()
        compiled, reference = compile_problem(problem, self.rule), reference_s(problem)
        one = self._arrays(compiled, groups, reference)
        if self.arrays is None or any(
            len(wide) < len(self.entries) or any(a < b for a, b in zip(wide.shape[1:], new.shape, strict=True))
            for wide, new in zip(self.arrays, one, strict=True)
        ):
            self._grow(one)
        assert self.arrays is not None
        for wide, new in zip(self.arrays, one, strict=True):
            wide[place] = 0 if wide is not self.arrays.channels else -1
            write_corner(wide[place : place + 1], new[None])
        static = static_observation(problem, self.sizes)
        self.entries[place] = Stacked(problem, compiled, groups, static, reference, worst_s(problem, self.rule))
        self._places[id(problem)] = place
        return place

    def _arrays(self, compiled: CompiledProblem, groups: Groups, reference: float) -> StackArrays:
        """The arrays of one problem, without axis 0."""
        partial, problem = PartialProblem.of(compiled, groups), compiled.problem
        clock, work = partial.clock, partial.clock.op_time
        if self.by_group:
            together = np.zeros((groups.n_groups, problem.n_devices))
            np.add.at(together, groups.op_group, problem.op_time_s)
            work = together[groups.op_group]
        numbers: list[NDArray[np.generic]] = [
            np.array(problem.n_ops),
            np.array(problem.n_devices),
            np.array(reference),
            np.array(clock.contended),
            np.array(clock.copies),
            np.array(clock.device_hold),
        ]
        return StackArrays._make([*numbers, *clock[: clock._fields.index("contended")], *partial[1:], work])

    def _grow(self, one: StackArrays) -> None:
        """Makes room in every array for the problem `one`."""
        grown = []
        for k, new in enumerate(one):
            old: FloatArray = np.zeros((0,) * (new.ndim + 1)) if self.arrays is None else self.arrays[k]
            shape = tuple(max(a, b) for a, b in zip(old.shape[1:], new.shape, strict=True))
            wide = np.full((len(self.entries), *shape), -1 if one._fields[k] == "channels" else 0, new.dtype)
            write_corner(wide, old)
            grown.append(wide)
        self.arrays = StackArrays._make(grown)
