"""Pictures of episodes under way. Matplotlib is imported when the first one is asked for: it takes a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from placement_gym.envs.episodes import Episodes
from placement_gym.schedule import Schedule
from placement_gym.simulator import simulate

if TYPE_CHECKING:
    from placement_gym.render import Window


def schedule_so_far(episodes: Episodes, row: int) -> Schedule:
    """The schedule of a row's placement so far; ops not placed yet run on the first device that can run them."""
    priority = episodes.evaluation.priorities(np.array([row]))
    ranks = None if priority is None else priority.reshape(-1)
    problem, op_device = episodes.problems[row], episodes.evaluation.whole_placement(row)
    return simulate(problem, op_device, rule=episodes.task.rule, priority=ranks, memory="report")


def picture(episodes: Episodes, row: int) -> NDArray[np.uint8]:
    """Gantt chart of a row's placement so far: the clock's times while ops are missing, then the schedule."""
    from placement_gym.render import gantt_of_ops, gantt_rgb, rgb

    problem, clock = episodes.problems[row], episodes.process.partial.clock
    op_device = clock.op_device[row, : problem.n_ops]
    if bool((op_device >= 0).all()):
        return gantt_rgb(schedule_so_far(episodes, row))
    finish_s = clock.finish[row, : problem.n_ops]
    start_s = finish_s - problem.op_time_s[np.arange(problem.n_ops), np.maximum(op_device, 0)]
    return rgb(gantt_of_ops(problem, op_device, start_s, finish_s))


def window() -> Window:
    """A window for render mode "human"."""
    from placement_gym.render import Window

    return Window()
