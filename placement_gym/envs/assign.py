"""placement_gym/Assign-v0: one op per step, in a fixed order."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray, IntArray
from placement_gym.envs.episodes import AssignEpisodes
from placement_gym.envs.observation import Observation, Sizes, observation_space, static_observation
from placement_gym.envs.reward import Reward, check_reward, of_one, reference_s, settle
from placement_gym.errors import InvalidAction, InvalidOption, unknown_name
from placement_gym.problem import Problem
from placement_gym.ranks import b_level_s, mean_edge_time_s, mean_op_time_s
from placement_gym.rule import Rule, resolve_rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import compile_problem, simulate

Order = Literal["rank", "topological"]


def assignment_order(problem: Problem, order: Order) -> IntArray:
    """int32 [n_ops]: the order in which ops are placed, inputs before readers.

    `rank` takes the ready op with the largest b-level (mean times), `topological` the graph's own order.

    Raises:
        InvalidOption: An unknown order.
    """
    if order not in get_args(Order):
        raise InvalidOption(unknown_name("order", order, get_args(Order)))
    if order == "topological":
        return problem.graph.order
    level = b_level_s(problem, mean_op_time_s(problem), mean_edge_time_s(problem))
    position = np.empty(problem.n_ops, dtype=np.int64)
    position[problem.graph.order] = np.arange(problem.n_ops)
    # b-level falls along every edge, except across free ops and edges, where the topological order decides.
    return np.lexsort((position, -level)).astype(np.int32)


def check_sizes(problem: Problem, sizes: Sizes) -> None:
    """Raises InvalidOption if the problem is larger than what observations are padded to."""
    for what, got, most in (
        ("ops", problem.n_ops, sizes.n_ops),
        ("edges", problem.graph.n_edges, sizes.n_edges),
        ("devices", problem.n_devices, sizes.n_devices),
    ):
        if got > most:
            raise InvalidOption(f"{problem.name!r} has {got} {what}; this environment is padded to {most}")


def schedule_so_far(problem: Problem, op_device: IntArray, rule: Rule, priority: FloatArray | None = None) -> Schedule:
    """The schedule of int32 [n_ops], where -1 stands for the first device that can run the op; it may not fit."""
    fallback = np.argmax(np.isfinite(problem.op_time_s), axis=1)
    devices = np.where(op_device >= 0, op_device, fallback)
    return simulate(problem, devices, rule=rule, priority=priority, memory="report")


class AssignEnv(gym.Env[Observation, np.int64]):
    """Places the ops of a problem one by one in a fixed order; the simulator evaluates the whole.

    ## Action Space

    `Discrete(max_devices)`: the device of the op that is next. Only devices in `action_mask` are allowed.

    ## Observation Space

    A `Dict` of `Box`es, see `placement_gym.envs.observation`: the graph (`op_features`, `edge_index`,
    `edge_features`, `n_ops`, `n_edges`), the op that is next (`op`), what each device would mean for it
    (`device_features`), the placement so far (`op_device`, -1 for none) and `action_mask`. The mask allows a device
    that can run the op and every other op of its colocation group and has room for all of them; once one op of a
    group is placed, the others follow. Where there is room nowhere, it allows all devices that can run the op, and
    the episode ends overfull.

    ## Rewards

    The return of an episode is minus its simulated makespan over `reference_s` (all ops one after the other, each
    on its fastest device), -10 if a device is over its memory. `reward="terminal"` gives it at the last step;
    `reward="dense"` gives, at each step, minus what the placed op adds to the estimated makespan (the clock of
    `simulator.clock`), and at the last step what is missing.

    ## Episode End

    Terminates when all ops are placed. `info` then has `makespan_s`, `op_device` and `overfull`.

    ## Version History

    * v0: initial version.

    Args:
        problem: What is placed; `reset(options={"problem": ...})` changes it.
        rule: Simulator rule, a preset's name or a `Rule` (not `priority`, which needs ranks).
        reward: "terminal" or "dense".
        order: "rank" or "topological", see `assignment_order`.
        max_ops: Padding of ops (default: those of `problem`); likewise `max_edges`, `max_devices`.
        max_edges: See `max_ops`.
        max_devices: See `max_ops`.
        render_mode: None or "rgb_array" (Gantt chart).

    Raises:
        InvalidOption: An unknown reward, order or render mode, or a problem larger than the padding.
        InvalidRule: An unknown rule.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  (gymnasium's own contract)

    def __init__(
        self,
        problem: Problem,
        *,
        rule: str | Rule = "physical",
        reward: Reward = "terminal",
        order: Order = "rank",
        max_ops: int | None = None,
        max_edges: int | None = None,
        max_devices: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_reward(reward)
        if render_mode not in (None, "rgb_array"):
            raise InvalidOption(unknown_name("render_mode", render_mode, ("None", "rgb_array")))
        self.rule, self.reward, self.order, self.render_mode = resolve_rule(rule), reward, order, render_mode
        if self.rule.queue == "priority":
            raise InvalidOption(
                "rule.queue is 'priority', which needs ranks; Assign-v0 places without: use fifo or lifo"
            )
        self.sizes = Sizes(
            max_ops or problem.n_ops, max_edges or problem.graph.n_edges, max_devices or problem.n_devices
        )
        self.observation_space = observation_space(self.sizes)
        self.action_space = spaces.Discrete(self.sizes.n_devices)
        self._set_problem(problem)

    def _set_problem(self, problem: Problem) -> None:
        check_sizes(problem, self.sizes)
        self.problem = problem
        self._static = static_observation(problem, self.sizes)
        self.episodes = AssignEpisodes(
            compile_problem(problem, self.rule), assignment_order(problem, self.order), 1, reference_s(problem)
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

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Places the next op.

        Raises:
            InvalidAction: The device is not in the action mask, or the episode is over; nothing changes.
        """
        episodes = self.episodes
        if episodes.done:
            raise InvalidAction("the episode is over; call reset()")
        before = episodes.reached_s.copy()
        episodes.step([int(action)])
        reward, info = of_one(*settle(self.reward, before, episodes))
        return self._observation(), reward, episodes.done, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool [max_devices], under the name that sb3-contrib looks for."""
        mask = np.zeros(self.sizes.n_devices, dtype=np.bool_)
        mask[: self.problem.n_devices] = self.episodes.mask[0]
        return mask

    def schedule(self) -> Schedule:
        """The schedule of the placement so far; ops not placed yet run on the first device that can run them."""
        return schedule_so_far(self.problem, self.episodes.op_device[0], self.rule)

    def render(self) -> NDArray[np.uint8] | None:
        """uint8 [height, width, 3]: Gantt chart of `schedule()`; None without a render mode."""
        if self.render_mode is None:
            return None
        from placement_gym.render import gantt_rgb  # matplotlib takes a second to import

        return gantt_rgb(self.schedule())

    def _observation(self) -> Observation:
        episodes, n, d = self.episodes, self.problem.n_ops, self.problem.n_devices
        features = np.zeros((self.sizes.n_devices, episodes.features.shape[2]), np.float32)
        features[:d] = episodes.features[0]
        op_device = np.full(self.sizes.n_ops, -1, np.int32)
        op_device[:n] = episodes.op_device[0]
        return {
            **{name: value.copy() for name, value in self._static.items()},
            "op": np.array([episodes.op], np.int32),
            "device_features": features.ravel(),
            "op_device": op_device,
            "action_mask": self.action_masks().astype(np.int8),
        }
