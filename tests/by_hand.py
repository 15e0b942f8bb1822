"""Placements made by hand in SelectPlace-v0, and the clock as they leave it."""

import placement_gym as pg
from placement_gym.envs import SelectPlaceEnv
from placement_gym.envs.select_place import SelectPlaceProcess


class ByHand:
    """One episode of SelectPlace-v0.

    Attributes:
        env: The environment.
        info: Of the last step.
    """

    def __init__(self, problem: pg.Problem, rule: str | pg.Rule = "physical", *, priority: str = "none") -> None:
        self.env = SelectPlaceEnv(problem, rule=rule, priority=priority)  # type: ignore[arg-type]
        self.info: dict[str, object] = {}
        self.env.reset(seed=0)

    def put(self, op: int, device: int) -> None:
        """Selects an op and places it."""
        self.env.step(op)
        *_, self.info = self.env.step(device)

    @property
    def process(self) -> SelectPlaceProcess:
        """What the episode knows."""
        process = self.env.episodes.process
        assert isinstance(process, SelectPlaceProcess)
        return process

    @property
    def finish_s(self) -> list[float]:
        """When each op finishes on the clock."""
        finish_s: list[float] = self.process.partial.clock.finish[0].tolist()
        return finish_s

    @property
    def reached_s(self) -> float:
        """The latest of them."""
        return float(self.process.partial.reached[0])
