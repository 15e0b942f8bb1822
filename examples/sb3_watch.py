"""Watch: the makespans of the episodes that a learner of Stable-Baselines3 has played."""

from stable_baselines3.common.callbacks import BaseCallback


class Watch(BaseCallback):  # type: ignore[misc]
    """Collects makespans and stops learning after so many episodes.

    Attributes:
        makespans_s: Of the episodes so far.
    """

    def __init__(self, episodes: int) -> None:
        super().__init__()
        self.episodes = episodes
        self.makespans_s: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "makespan_s" in info and len(self.makespans_s) < self.episodes:
                self.makespans_s.append(info["makespan_s"])
        return len(self.makespans_s) < self.episodes
