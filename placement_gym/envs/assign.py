"""placement_gym/Assign-v0: one op per step, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from placement_gym.arrays import BoolArray, IntArray
from placement_gym.envs.actions import Invalid
from placement_gym.envs.base import PlacementEnv
from placement_gym.envs.device_features import describe
from placement_gym.envs.observation import PLACE, Form, Sizes
from placement_gym.envs.problems import Draw, GroupName, Path
from placement_gym.envs.process import Process, Rows
from placement_gym.envs.reward import Reward
from placement_gym.envs.stack import ProblemStack, StackArrays, problem_at
from placement_gym.envs.task import task_of
from placement_gym.envs.vector import PlacementVectorEnv
from placement_gym.errors import check_choice
from placement_gym.objectives import Objective
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.rule import Rule
from placement_gym.simulator.partial import PartialPlacement, clear_row, put

Order = Literal["rank", "topological"]


def assignment_order(problem: Problem, order: Order) -> IntArray:
    """int32 [n_ops]: the order in which ops are placed, inputs before readers.

    `rank` takes the ready op with the largest b-level (mean times), `topological` the graph's own order.

    Raises:
        InvalidOption: An unknown order.
    """
    check_choice("order", order, Order)
    if order == "topological":
        return problem.graph.order
    level = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
    position = np.empty(problem.n_ops, dtype=np.int64)
    position[problem.graph.order] = np.arange(problem.n_ops)
    # b-level falls along every edge, except across free ops and edges, where the topological order decides.
    return np.lexsort((position, -level)).astype(np.int32)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _begin(
    stack: StackArrays,
    s: PartialPlacement,
    rows: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
    position: np.ndarray,
    op: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> None:
    for b in rows:
        f = problem_at(stack, place[b])
        clear_row(f.partial, s, b)
        for d in range(mask.shape[1]):
            mask[b, d] = False
            for i in range(features.shape[2]):
                features[b, d, i] = 0.0
        position[b] = 0
        op[b, 0] = order[place[b], 0]
        describe(f, s, b, np.int64(op[b, 0]), b, features, mask)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _step(
    stack: StackArrays,
    s: PartialPlacement,
    actions: np.ndarray,
    active: np.ndarray,
    by_group: bool,
    place: np.ndarray,
    order: np.ndarray,
    position: np.ndarray,
    op: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
    done: np.ndarray,
) -> None:
    b = 0
    while b < actions.size:
        p = place[b]
        f = problem_at(stack, p)
        # Rows of one problem in a row: the compiler keeps what it reads of the problem.
        while b < actions.size and place[b] == p:
            device = np.int64(actions[b]) if active[b] else np.int64(-1)
            while device >= 0:
                put(f.partial, s, b, np.int64(op[b, 0]), device)
                position[b] += 1
                device = np.int64(-1)
                if position[b] == stack.n_ops[p]:
                    done[b] = True
                    break
                op[b, 0] = order[p, position[b]]
                if by_group:
                    device = np.int64(s.group_device[b, f.partial.op_group[op[b, 0]]])
            if active[b] and not done[b]:
                describe(f, s, b, np.int64(op[b, 0]), b, features, mask)
            b += 1


class AssignProcess(Process):
    """Episodes that place ops in one given order."""

    def __init__(self, stack: ProblemStack, n_rows: int, *, order: Order) -> None:
        super().__init__(stack, n_rows)
        self._order: Order = order
        self.position = np.zeros(n_rows, np.int64)
        self.phase[:] = PLACE
        self.shared["order"] = np.zeros((len(stack.entries), stack.sizes.n_ops), np.int32)

    @classmethod
    def n_actions(cls, sizes: Sizes) -> int:
        """One action per device."""
        return sizes.n_devices

    def new_problem(self, place: int) -> None:
        """Writes the problem's order."""
        problem = self.stack.entry(place).problem
        self.shared["order"][place, : problem.n_ops] = assignment_order(problem, self._order)

    def n_steps(self, place: int) -> int:
        """One per op, or per group."""
        return self.n_decisions(place)

    def begin(self, rows: Rows, generators: Sequence[np.random.Generator]) -> None:  # noqa: ARG002
        """Takes everything off the devices; the first op is next."""
        written = (self.place, self.shared["order"], self.position, self.op, self.features, self.mask)
        _begin(self.stack.arrays, self.partial, rows, *written)

    def step(self, actions: NDArray[np.int64], active: BoolArray) -> None:
        """Puts the next op of each active episode, or its group, on a device."""
        written = (self.place, self.shared["order"], self.position, self.op, self.features, self.mask, self.done)
        _step(self.stack.arrays, self.partial, actions, active, self.stack.by_group, *written)


class AssignEnv(PlacementEnv):
    """Places the ops of a problem one by one in a fixed order; the simulator evaluates the whole.

    ## Action Space

    `Discrete(max_devices)`: the device of the op that is next. `action_mask` allows a device that can run the op and
    every other op of its colocation group and has room for all of them; once one op of a group is placed, it allows
    only that device for the others (with `groups` the same action places them). Where there is room nowhere, it allows
    all devices that can run the op, and the episode may end overfull.

    ## Observation Space

    The `Dict` of `placement_gym.envs.observation`, or a `Box` under `observation="flat"`. `op` is the op that is next,
    `phase` is always PLACE, and `action_features` has a row for each device. The observation after the last step
    repeats the one before it, except for `op_device` and `context`.

    ## Rewards

    The return of an episode is minus its objective over the reference: all ops one after the other, each on its
    fastest device. `reward="terminal"` gives it at the last step. `reward="dense"` gives, at each step, minus what the
    placed op adds to the estimate (the clock of `simulator.clock`; under the loads' objectives the largest work on a
    device), and at the last step what is missing. Unplaced ops add nothing to the estimate. An episode that ends over
    memory has the return of the worst placement that the problem can have, minus 1; so does one
    without a latency, because the accelerators' subgraphs wait for each other in a circle (`objective_s` is inf).

    ## Episode End

    Terminates when all ops are placed. `info` then has `makespan_s`, `objective_s`, `excess_bytes`, `overfull` and
    `op_device` (int32 [max_ops], -1 behind the last op); unless `invalid="raise"`, also `invalid_actions`, their
    number.

    ## Arguments

    * `problem`: a `Problem`, or the path of a saved one; a toy of 12 ops on 3 devices where nothing is given.
    * `problems`: instead, a sequence of them, of which each episode draws one; or a function that draws a problem with
      a `numpy.random.Generator`, which needs `sizes`.
    * `sizes`: `Sizes(n_ops, n_edges, n_devices)`, what observations are padded to.
    * `groups`: an action places a whole group: None (one op), "colocation", "metis" (parts of about equal work with few
      bytes between them, one for four ops, at most 200) or int [n_ops], equal numbers for ops that go together.
    * `rule`: simulator rule, a preset's name or a `Rule`; under a `priority` queue ops go by b-level.
    * `objective`: "makespan", "max_load", "gpipe_load" or "latency".
    * `reward`: "terminal" or "dense".
    * `invalid`: what an action outside the mask does: "raise" (InvalidAction), "nearest" (the allowed action of nearest
      number is done, the lower of two), or "penalty" (as nearest, and the reward is 0.1 lower).
    * `noise`: standard deviation of the logarithm of the factor on every duration, drawn anew for each episode. `info`
      has the noisy makespan, `schedule()` the exact one, `noisy_makespans_s()` those of 64 draws.
    * `observation`: "dict" or "flat".
    * `order`: "rank" (largest b-level first) or "topological".
    * `render_mode`: None, "rgb_array" or "human": a Gantt chart of the placement so far.

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
        order: Order = "rank",
        render_mode: str | None = None,
    ) -> None:
        check_choice("order", order, Order)
        task = task_of(problem, problems, sizes, groups, rule, objective, reward, invalid, noise, observation)
        super().__init__(task, partial(AssignProcess, order=order), render_mode)
        self.order = order


class AssignVectorEnv(PlacementVectorEnv):
    """The native vector form of `AssignEnv`."""

    form = AssignEnv
