"""placement_gym/SelectPlace-v0: choose a ready op, then a device for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, FloatArray
from placement_gym.envs.actions import Invalid
from placement_gym.envs.base import PlacementEnv
from placement_gym.envs.observation import PAIR, SELECT, Form, Sizes
from placement_gym.envs.problems import Draw, GroupName, Path
from placement_gym.envs.process import Process, Rows
from placement_gym.envs.reward import Reward
from placement_gym.envs.select_place_steps import begin_rows, describe_pairs, place_pairs, select_or_place
from placement_gym.envs.stack import ProblemStack
from placement_gym.envs.task import task_of
from placement_gym.envs.vector import PlacementVectorEnv
from placement_gym.errors import InvalidOption, check_choice
from placement_gym.objectives import Objective
from placement_gym.problem import Problem
from placement_gym.rule import Rule, resolve_rule

Action = Literal["phased", "joint"]
Priority = Literal["none", "selection"]


def evaluation_rule(rule: str | Rule, priority: Priority) -> Rule:
    """The caller's rule; where the priority is "selection", its queue is changed from "fifo" to "priority".

    Raises:
        InvalidOption: An unknown priority, or "selection" with the queue "lifo".
        InvalidRule: An unknown rule.
    """
    check_choice("priority", priority, Priority)
    resolved = resolve_rule(rule)
    if priority == "none":
        return resolved
    if resolved.queue == "lifo":
        raise InvalidOption("rule.queue is 'lifo', priority is 'selection'; expected fifo or priority with it")
    return replace(resolved, queue="priority")


def priority_of(order: NDArray[Any], n_ops: int) -> FloatArray:
    """float64 [B, n_ops]: n_ops for the op placed first, one less for the next; 0 for those not placed.

    Args:
        order: int [B, n_placed], ops in the order in which they were placed.
        n_ops: Of the problem.
    """
    priority = np.zeros((len(order), n_ops))
    np.put_along_axis(priority, order, np.arange(n_ops, n_ops - order.shape[1], -1.0)[None, :], axis=1)
    return priority


class SelectPlaceProcess(Process):
    """Episodes that choose an op, then a device for it; or both at once.

    Attributes:
        ready: bool [B, max_ops], ops that are not placed, but whose inputs are.
        order: int32 [B, max_ops], `order[b, k]` is the k-th op that was placed, -1 where none is yet.
        position: int64 [B], how many ops are placed.
    """

    def __init__(self, stack: ProblemStack, n_rows: int, *, by_selection: bool) -> None:
        super().__init__(stack, n_rows)
        n = stack.sizes.n_ops
        self.by_selection = by_selection
        self.ready = np.zeros((n_rows, n), np.bool_)
        self.order = np.full((n_rows, n), -1, np.int32)
        self.position = np.zeros(n_rows, np.int64)
        self._missing = np.zeros((n_rows, n), np.int32)

    @property
    def _written(self) -> tuple[NDArray[Any], ...]:
        return self.place, self._missing, self.ready, self.order, self.position

    @classmethod
    def n_actions(cls, sizes: Sizes) -> int:
        """Ops and devices have the same numbers, in turn."""
        return max(sizes.n_ops, sizes.n_devices)

    def n_steps(self, place: int) -> int:
        """Two per op, or per group."""
        return 2 * self.n_decisions(place)

    def begin(self, rows: Rows, generators: Sequence[np.random.Generator]) -> None:  # noqa: ARG002
        """Takes everything off the devices; an op without inputs is to be selected."""
        begin_rows(self.stack.arrays, self.partial, rows, *self._written)
        self.phase[rows], self.op[rows], self.features[rows] = SELECT, -1, 0.0
        self.mask[rows] = False
        self.mask[rows, : self.ready.shape[1]] = self.ready[rows]

    def step(self, actions: NDArray[np.int64], active: BoolArray) -> None:
        """Selects an op in each active episode, or places the selected one, by the episode's phase."""
        seen = (self.phase, self.op, self.features, self.mask, self.done)
        by_group = self.stack.by_group
        select_or_place(self.stack.arrays, self.partial, actions, active, by_group, *self._written, *seen)

    def priorities(self, rows: Rows) -> FloatArray | None:
        """The op selected first has the largest rank, if the environment says so."""
        if not self.by_selection:
            return None
        n, placed = self.stack.entry(int(self.place[rows[0]])).problem.n_ops, self.position[rows]
        return np.concatenate(
            [priority_of(self.order[row : row + 1, :k], n) for row, k in zip(rows, placed, strict=True)]
        )

    def info(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """The order of selection."""
        return {"order": self.order[rows]}


class JointProcess(SelectPlaceProcess):
    """Episodes that choose an op and its device at once: action op * max_devices + device."""

    def __init__(self, stack: ProblemStack, n_rows: int, *, by_selection: bool) -> None:
        super().__init__(stack, n_rows, by_selection=by_selection)
        self.phase[:] = PAIR

    @classmethod
    def n_actions(cls, sizes: Sizes) -> int:
        """All pairs."""
        return sizes.n_ops * sizes.n_devices

    @classmethod
    def n_described(cls, sizes: Sizes) -> int:
        """All pairs."""
        return sizes.n_ops * sizes.n_devices

    def n_steps(self, place: int) -> int:
        """One per op, or per group."""
        return super().n_steps(place) // 2

    def begin(self, rows: Rows, generators: Sequence[np.random.Generator]) -> None:  # noqa: ARG002
        """Takes everything off the devices."""
        begin_rows(self.stack.arrays, self.partial, rows, *self._written)
        self._describe(rows)

    def step(self, actions: NDArray[np.int64], active: BoolArray) -> None:
        """Places an op, or its group, in each active episode."""
        by_group = self.stack.by_group
        place_pairs(self.stack.arrays, self.partial, actions, active, by_group, *self._written, self.done)
        self._describe(np.flatnonzero(active & ~self.done))

    def _describe(self, rows: Rows) -> None:
        n_rows, d = self.n_rows * self.stack.sizes.n_ops, self.stack.sizes.n_devices
        features, mask = self.features.reshape(n_rows, d, -1), self.mask.reshape(n_rows, d)
        describe_pairs(self.stack.arrays, self.partial, rows, self.place, self.ready, features, mask)


class SelectPlaceEnv(PlacementEnv):
    """Chooses an op whose inputs are all placed, then a device for it, until all ops are placed.

    This is the decision process of DOPPLER (arXiv 2505.23131, section "dual policy"): SEL chooses the op, PLC the
    device.

    ## Action Space

    `action="phased"`: `Discrete(max(max_ops, max_devices))`, in turn an op (`phase` SELECT) and a device for it
    (`phase` PLACE), so an episode has two steps per op. `action="joint"`: `Discrete(max_ops * max_devices)`, the number
    op * max_devices + device (`phase` PAIR), one step per op. `action_mask` allows ops that are not placed, but whose
    inputs are, and devices as in Assign-v0.

    ## Observation Space

    The `Dict` of `placement_gym.envs.observation`, or a `Box` under `observation="flat"`. Phased: `op` is the chosen
    op, -1 while one is to be chosen; `action_features` has a row for each device, 0 while an op is to be chosen: to
    choose one, read `op_features`. Joint: `op` is always -1; `action_features` has a row for each pair,
    0 for ops that are not ready. The observation after the last step repeats the one before it, except for
    `op_device` and `context`.

    Times ahead are by the clock of `simulator.clock`, which runs ops and transfers in the order of selection, and
    counts communication, waiting and the contention of the rule. The simulator starts whatever is ready first, so an op
    that was selected later may run before one that was selected earlier on its device, and the two may differ. They
    agree under `priority="selection"` if ops are selected in the order in which they start (multicast apart).

    ## Rewards

    As in Assign-v0; `reward="dense"` gives something where an op is placed.

    ## Episode End

    Terminates when all ops are placed. `info` then says what it says in Assign-v0, and `order`, the ops in the order of
    selection.

    ## Arguments

    Those of Assign-v0 but `order`, and:

    * `action`: "phased" or "joint" (much slower: all pairs are described).
    * `priority`: "none", or "selection": ops that wait for a device or a channel go in the order in which they were
      selected (the rule's queue is then "priority", and the op selected first has the largest).
    * `groups`: where an action places a group, its ops follow as they become ready.

    ## Version History

    * v0: initial version.
    """

    def __init__(
        self,
        problem: Problem | Path | None = None,
        *,
        problems: Sequence[Problem | Path] | Draw | None = None,
        sizes: Sizes | None = None,
        groups: GroupName | ArrayLike | None = None,
        rule: str | Rule = "physical",
        objective: Objective = "makespan",
        reward: Reward = "terminal",
        invalid: Invalid = "raise",
        noise: float = 0.0,
        observation: Form = "dict",
        action: Action = "phased",
        priority: Priority = "none",
        render_mode: str | None = None,
    ) -> None:
        check_choice("action", action, Action)
        resolved = evaluation_rule(rule, priority)
        task = task_of(problem, problems, sizes, groups, resolved, objective, reward, invalid, noise, observation)
        process = JointProcess if action == "joint" else SelectPlaceProcess
        super().__init__(task, partial(process, by_selection=priority == "selection"), render_mode)
        self.action, self.priority = action, priority


class SelectPlaceVectorEnv(PlacementVectorEnv):
    """The native vector form of `SelectPlaceEnv`."""

    form = SelectPlaceEnv
