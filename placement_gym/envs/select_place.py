"""placement_gym/SelectPlace-v0: choose a ready op, then a device for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray
from placement_gym.envs.allowed import AllowedDiscrete, AllowedMultiDiscrete
from placement_gym.envs.assign import check_sizes, schedule_so_far
from placement_gym.envs.observation import (
    DYNAMIC_JOINT,
    DYNAMIC_PHASED,
    PLACE,
    SELECT,
    Observation,
    Sizes,
    observation_space,
    static_observation,
)
from placement_gym.envs.reward import Reward, check_reward, of_one, reference_s, settle
from placement_gym.envs.select_place_episodes import SelectPlaceEpisodes
from placement_gym.errors import InvalidAction, InvalidOption, unknown_name
from placement_gym.problem import Problem
from placement_gym.rule import Rule, resolve_rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import compile_problem

Action = Literal["phased", "joint"]
Priority = Literal["none", "selection"]


def check_action(action: str) -> None:
    """Raises InvalidOption, listing the known ones, if `action` is none of them."""
    if action not in get_args(Action):
        raise InvalidOption(unknown_name("action", action, get_args(Action)))


def evaluation_rule(rule: str | Rule, priority: Priority) -> Rule:
    """The caller's rule; where the priority is "selection", its queue is changed from "fifo" to "priority".

    Raises:
        InvalidOption: An unknown priority, or one that does not go with the rule's queue.
        InvalidRule: An unknown rule.
    """
    if priority not in get_args(Priority):
        raise InvalidOption(unknown_name("priority", priority, get_args(Priority)))
    resolved = resolve_rule(rule)
    if priority == "selection":
        if resolved.queue == "lifo":
            raise InvalidOption("rule.queue is 'lifo', priority is 'selection'; expected fifo or priority with it")
        return replace(resolved, queue="priority")
    if resolved.queue == "priority":
        raise InvalidOption("rule.queue is 'priority', which needs ranks: use priority='selection', or fifo or lifo")
    return resolved


class SelectPlaceEnv(gym.Env[Observation, Any]):
    """Chooses an op whose inputs are all placed, then a device for it, until all ops are placed.

    This is the decision process of DOPPLER (arXiv 2505.23131, section "dual policy"): SEL chooses the op, PLC the
    device.

    ## Action Space

    `action="phased"`: `Discrete(max(max_ops, max_devices))`, in turn an op (`phase` 0) and a device for it (`phase`
    1), so an episode has two steps per op. `action="joint"`: `MultiDiscrete([max_ops, max_devices])`, one step per op.
    `sample()` draws from `action_mask`.

    ## Observation Space

    A `Dict` of `Box`es, see `placement_gym.envs.observation`. Always the graph (`op_features`, `edge_index`,
    `edge_features`, `n_ops`, `n_edges`), `ready` (1 for each op that is not placed, but whose inputs are), the
    placement so far (`op_device`, -1 for none) and `action_mask`.

    Phased: `phase`; `op`, the chosen one (-1 while one is to be chosen); `device_features`, what each device would
    mean for it (0 while one is to be chosen). `action_mask` is `ready`, then the devices that the chosen op may go to,
    as in Assign-v0. After the last step, all but `ready` and `op_device` stays.

    Joint: `pair_features` and `pair_mask`, what each device would mean for each ready op and whether it may go there
    (0 for ops that are not ready). All pairs in `pair_mask` may be chosen. Which devices an op may go to depends on
    the op, which a mask of ops and one of devices cannot say: of `action_mask`, max_ops and max_devices long, every op
    and every device make an allowed pair, but where support, memory or colocation bind, not every allowed pair is in
    it: its devices are those of the first ready op, its ops those that may go to all of these.

    Times ahead are by the clock of `simulator.clock`, which takes ops and transfers in the order of selection and
    counts communication, waiting and the contention of the rule. Without contention (multicast apart) it is exactly
    what the simulator says of the ops placed so far if every device takes them in that order and waits for the next
    one. The simulator never waits beside ready work: where an op selected later is ready before one selected earlier
    on its device, it goes first, and what follows may be earlier or later than on the clock. For every placement there
    are orders of selection for which both agree under `priority="selection"`: ops in the order in which they start.

    ## Rewards

    As in Assign-v0: the return of an episode is minus its simulated makespan over `reference_s`, -10 if a device is
    over its memory. `reward="terminal"` gives it at the last step; `reward="dense"` gives, where an op is placed, minus
    what it adds to the estimated makespan, and at the last step what is missing.

    ## Episode End

    Terminates when all ops are placed. `info` then has `makespan_s`, `op_device`, `overfull`, and `order`, the ops in
    the order of selection.

    ## Version History

    * v0: initial version.

    Args:
        problem: What is placed; `reset(options={"problem": ...})` changes it.
        rule: Simulator rule, a preset's name or a `Rule`.
        reward: "terminal" or "dense".
        action: "phased" or "joint".
        priority: "none", or "selection": ops that wait for a device or a channel go in the order in which they were
            selected (the rule's queue is then "priority", and the op selected first has the largest).
        sizes: What observations are padded to (default: the sizes of `problem`).
        render_mode: None or "rgb_array" (Gantt chart).

    Raises:
        InvalidOption: An unknown reward, action, priority or render mode, a queue that does not go with the priority,
            or a problem larger than the padding.
        InvalidRule: An unknown rule.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  (gymnasium's own contract)

    def __init__(
        self,
        problem: Problem,
        *,
        rule: str | Rule = "physical",
        reward: Reward = "terminal",
        action: Action = "phased",
        priority: Priority = "none",
        sizes: Sizes | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_reward(reward)
        check_action(action)
        if render_mode not in (None, "rgb_array"):
            raise InvalidOption(unknown_name("render_mode", render_mode, ("None", "rgb_array")))
        self.rule, self.reward, self.render_mode = evaluation_rule(rule, priority), reward, render_mode
        self.action, self.priority = action, priority
        self.sizes = sizes or Sizes(problem.n_ops, problem.graph.n_edges, problem.n_devices)
        self.observation_space = observation_space(self.sizes, DYNAMIC_JOINT if action == "joint" else DYNAMIC_PHASED)
        n, d = self.sizes.n_ops, self.sizes.n_devices
        self.action_space = (
            AllowedMultiDiscrete([n, d], self.action_masks)
            if action == "joint"
            else AllowedDiscrete(max(n, d), self.action_masks)
        )
        self._set_problem(problem)

    def _set_problem(self, problem: Problem) -> None:
        check_sizes(problem, self.sizes)
        self.problem = problem
        self._static = static_observation(problem, self.sizes)
        self.episodes = SelectPlaceEpisodes(
            compile_problem(problem, self.rule),
            1,
            reference_s(problem),
            by_selection=self.priority == "selection",
            pairs=self.action == "joint",
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode; `options={"problem": problem}` changes the problem for this and later episodes."""
        super().reset(seed=seed)
        if options and "problem" in options:
            self._set_problem(options["problem"])
        self.episodes.reset()
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Chooses an op, or places the chosen one; both if joint.

        Raises:
            InvalidAction: An op that is not ready, a device it may not go to, or the episode is over; nothing changes.
        """
        episodes = self.episodes
        if episodes.done:
            raise InvalidAction("the episode is over; call reset()")
        before = episodes.reached_s.copy()
        episodes.act(np.asarray(action)[None], joint=self.action == "joint")
        reward, info = of_one(*settle(self.reward, before, episodes))
        if episodes.done:
            info["order"] = episodes.order[0].copy()
        return self._observation(), reward, episodes.done, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool `action_mask`, under the name that sb3-contrib looks for."""
        episodes, n, d, most = self.episodes, self.problem.n_ops, self.problem.n_devices, self.sizes.n_ops
        if self.action == "joint":
            product = episodes.product_mask[0]
            mask = np.zeros(most + self.sizes.n_devices, dtype=np.bool_)
            mask[:n], mask[most : most + d] = product[:n], product[n:]
            return mask
        mask = np.zeros(max(most, self.sizes.n_devices), dtype=np.bool_)
        mask[: max(n, d)] = episodes.action_mask[0]
        return mask

    def schedule(self) -> Schedule:
        """The schedule of the placement so far; ops not placed yet run last, on the first device that can run them."""
        return schedule_so_far(self.problem, self.episodes.op_device[0], self.rule, self._priority())

    def _priority(self) -> FloatArray | None:
        return self.episodes.priority[0] if self.priority == "selection" else None

    def render(self) -> NDArray[np.uint8] | None:
        """uint8 [height, width, 3]: Gantt chart of `schedule()`; None without a render mode."""
        if self.render_mode is None:
            return None
        from placement_gym.render import gantt_rgb  # matplotlib takes a second to import

        return gantt_rgb(self.schedule())

    def _observation(self) -> Observation:
        episodes, n, d, sizes = self.episodes, self.problem.n_ops, self.problem.n_devices, self.sizes
        ready, op_device = np.zeros(sizes.n_ops, np.int8), np.full(sizes.n_ops, -1, np.int32)
        ready[:n], op_device[:n] = episodes.ready[0], episodes.op_device[0]
        seen = {**{name: value.copy() for name, value in self._static.items()}, "ready": ready, "op_device": op_device}
        width = episodes.features.shape[2]
        if self.action == "joint":
            features = np.zeros((sizes.n_ops, sizes.n_devices, width), np.float32)
            mask = np.zeros((sizes.n_ops, sizes.n_devices), np.int8)
            features[:n, :d], mask[:n, :d] = episodes.pair_features[0], episodes.pair_mask[0]
            seen |= {"pair_features": features.ravel(), "pair_mask": mask.ravel()}
        else:
            placing = episodes.phase == "place"
            devices = np.zeros((sizes.n_devices, width), np.float32)
            if placing:
                devices[:d] = episodes.features[0]
            seen |= {
                "phase": np.array([PLACE if placing else SELECT], np.int8),
                "op": np.array([episodes.op[0] if placing else -1], np.int32),
                "device_features": devices.ravel(),
            }
        return {**seen, "action_mask": self.action_masks().astype(np.int8)}
