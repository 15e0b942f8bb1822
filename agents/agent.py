"""Agent: what every learner offers, and the update that its training yields."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from placement_gym.envs import AssignEnv, AssignVectorEnv, PlacementVectorEnv, SelectPlaceEnv
from placement_gym.envs.assign import Order
from placement_gym.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Update:
    """One update of a learner.

    Attributes:
        number: Updates so far.
        episodes: Episodes so far.
        simulator_calls: Placements simulated so far.
        seconds: Training time so far, over all runs of a resumed training.
        best_makespan_s: Smallest makespan of any feasible episode so far; inf before the first.
        best_op_device: int32 [n_ops], its placement; all -1 before the first.
        metrics: Numbers of this update by name.
        best_priority: float64 [n_ops], its ranks for the rule's queue, where the agent chooses the order of ops; else
            None.
    """

    number: int
    episodes: int
    simulator_calls: int
    seconds: float
    best_makespan_s: float
    best_op_device: NDArray[np.int32]
    metrics: dict[str, float] = field(default_factory=dict)
    best_priority: NDArray[np.float64] | None = None


class Agent(Protocol):
    """A learner of placements. Same seed, same weights; a resumed training ends as an uninterrupted one."""

    @property
    def simulator_calls(self) -> int:
        """Placements simulated so far."""
        ...

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """Learns until either budget, counted from the first training on, is spent; yields after every update."""
        ...

    def act_greedy(self) -> NDArray[np.int32]:
        """int32 [n_ops]: the placement of the policy's most likely actions."""
        ...

    def act_sampled(self, placements: int, *, seed: int) -> NDArray[np.int32]:
        """int32 [placements, n_ops], drawn from the policy; training goes on as if they had not been."""
        ...

    def save(self, path: Path) -> None:
        """Writes a checkpoint from which training goes on as if it had not stopped."""
        ...

    @classmethod
    def load(cls, path: Path, vec_env: "VectorEnv[Any, Any, Any]", *, torch_device: str = "auto") -> Self:
        """The learner that `save` wrote; raises CheckpointMismatch if it is of another problem or agent."""
        ...


class Spender(Protocol):
    """Whatever counts simulator calls and seconds against a budget."""

    @property
    def simulator_calls(self) -> int:
        """Placements simulated so far."""
        ...

    @property
    def seconds(self) -> float:
        """Training time so far."""
        ...


def spent_share(agent: Spender, simulator_calls: int | None, seconds: float | None, *, batch: int = 0) -> float:
    """The share of its budget that an agent has used, the larger of two; inf if the calls allow no other batch.

    Args:
        agent: The agent.
        simulator_calls: Its calls in all, None for no limit.
        seconds: Its time in all, None for no limit.
        batch: How many placements are simulated at once.

    Raises:
        InvalidOption: There is no limit.
    """
    if simulator_calls is None and seconds is None:
        raise InvalidOption("train needs simulator_calls or seconds; got neither")
    if simulator_calls and agent.simulator_calls + batch > simulator_calls:
        return math.inf
    return max(
        agent.simulator_calls / simulator_calls if simulator_calls else 0.0, agent.seconds / seconds if seconds else 0.0
    )


def resolve_torch_device(name: str) -> torch.device:
    """The torch device of that name; "auto" is a GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def check_task(env: PlacementVectorEnv) -> None:
    """Checks that an environment poses what the learners here learn: one problem, op by op, for a short makespan.

    All its episodes are then at the same step all the time.

    Raises:
        InvalidOption: It does not; the first option in the way is named.
    """
    task, single = env.task, env.single
    several = task.problems.draw is not None or len(task.problems.known) > 1
    by_selection = isinstance(single, SelectPlaceEnv) and single.priority == "selection"
    in_the_way = (
        (several, "draws its problems; learners expect the same one in all episodes"),
        (task.problems.groups is not None, "places groups; learners expect groups=None"),
        (task.objective != "makespan", f"has objective {task.objective!r}; learners expect 'makespan'"),
        (task.noise > 0, f"has noise {task.noise}; learners expect 0"),
        (task.observation != "dict", f"has observation {task.observation!r}; learners expect 'dict'"),
        (env.autoreset_mode == AutoresetMode.SAME_STEP, "has autoreset_mode SAME_STEP; learners expect NEXT_STEP"),
        (
            env.rule.queue == "priority" and not by_selection,
            "has rule.queue 'priority', but learners rank no ops unless priority='selection'; they expect fifo or lifo",
        ),
    )
    for is_so, what in in_the_way:
        if is_so:
            raise InvalidOption(f"vec_env {what}")


def native_env(vec_env: "VectorEnv[Any, Any, Any]") -> AssignVectorEnv:
    """The native vector environment inside `vec_env`.

    Raises:
        InvalidOption: `vec_env` holds none, or as `check_task`.
    """
    env = vec_env.unwrapped
    if not isinstance(env, AssignVectorEnv):
        raise InvalidOption(f"vec_env is a {type(env).__name__}; expected the native AssignVectorEnv (gym.make_vec)")
    check_task(env)
    return env


def order_of(env: AssignVectorEnv) -> Order:
    """The option `order` of the environment."""
    assert isinstance(env.single, AssignEnv)
    return env.single.order
