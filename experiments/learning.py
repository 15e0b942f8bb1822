"""learning: an agent trains within a budget, with a progress bar, checkpoints and Ctrl-C."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agents.agent import Update
from experiments.tracking import CALLS, SECONDS, Tracker
from placement_gym.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Budget:
    """When training ends: whichever comes first.

    Attributes:
        seconds: Wall-clock seconds of training, None for no limit.
        simulator_calls: Placements simulated, None for no limit.
        updates: Updates, None for no limit; a limit of its own only beside one of the others.

    Raises:
        InvalidOption: No limit at all, or one that is not positive.
    """

    seconds: float | None
    simulator_calls: int | None
    updates: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.simulator_calls is None:
            raise InvalidOption("budget has neither seconds nor simulator_calls; expected at least one")
        for name in ("seconds", "simulator_calls", "updates"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidOption(f"budget.{name} is {value}; expected a number > 0, or null for no limit")

    def share(self, simulator_calls: int, seconds: float) -> float:
        """How much of the budget is used, in [0, 1]."""
        used = [0.0]
        if self.seconds is not None:
            used.append(seconds / self.seconds)
        if self.simulator_calls is not None:
            used.append(simulator_calls / self.simulator_calls)
        return min(1.0, max(used))


class Trainable(Protocol):
    """What can be trained and saved: an agent, or a family of them."""

    def train(self, *, simulator_calls: int | None = None, seconds: float | None = None) -> Iterator[Update]:
        """As `Agent.train`."""
        ...

    def save(self, path: Path) -> None:
        """As `Agent.save`."""
        ...


class Interrupt:
    """Ctrl-C (or SIGTERM) as a flag that is read between two updates; a second one ends the process at once."""

    def __init__(self) -> None:
        self.asked = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def listening(self) -> Iterator["Interrupt"]:
        """Handlers are those of before afterwards."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def progress_bar(console: Console, *, transient: bool = False) -> Progress:
    """A bar per line: what is done (`label`), how much of it, and the description."""
    return Progress(
        TextColumn("{task.fields[label]}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=transient,
    )


def learn(
    agent: Trainable,
    budget: Budget,
    tracker: Tracker,
    *,
    checkpoint_every_s: float,
    console: Console,
    shown: Progress | None = None,
) -> tuple[Update | None, bool]:
    """Trains until the budget or Ctrl-C ends it; the checkpoint is written in between and at the end.

    Args:
        agent: The learner.
        budget: When training ends.
        tracker: Where the learning curve goes, and the folder of the checkpoint.
        checkpoint_every_s: Seconds between two checkpoints.
        console: Where the progress bar is shown.
        shown: A `progress_bar` that is on the console already and gets a line for this training; None: one of its own.

    Returns:
        The last update (None if the budget was spent already) and whether training was interrupted.
    """
    bar = progress_bar(console) if shown is None else shown
    saved, update = time.monotonic(), None
    with Interrupt().listening() as interrupt, nullcontext() if shown is not None else bar:
        line = bar.add_task("starting", total=1.0, label="training")
        for update in agent.train(simulator_calls=budget.simulator_calls, seconds=budget.seconds):
            # There is no best makespan before the first feasible episode.
            found = math.isfinite(update.best_makespan_s)
            tracker.log(
                {
                    CALLS: update.simulator_calls,
                    SECONDS: update.seconds,
                    "train/updates": update.number,
                    "train/episodes": update.episodes,
                    **({"train/best_makespan_s": update.best_makespan_s} if found else {}),
                    **{f"train/{name}": value for name, value in update.metrics.items()},
                }
            )
            bar.update(
                line,
                completed=budget.share(update.simulator_calls, update.seconds),
                description=f"best {update.best_makespan_s * 1e3:,.4f} ms, {update.simulator_calls:,} simulator calls",
            )
            if interrupt.asked or (budget.updates is not None and update.number >= budget.updates):
                break
            if time.monotonic() - saved > checkpoint_every_s:
                agent.save(tracker.folder.checkpoint)
                saved = time.monotonic()
        agent.save(tracker.folder.checkpoint)
        if shown is not None:
            shown.remove_task(line)
    return update, interrupt.asked
