"""RunFolder: the names of the files that a run writes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.command import CONF
from placement_gym.errors import InvalidFile
from placement_gym.problem import Problem

# Sections of a saved configuration that are never built again: the problem is read from its own file.
NOT_BUILT = ("workload", "cluster", "costs")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where one run writes.

    Attributes:
        path: The folder; it exists.
    """

    path: Path

    @classmethod
    def of_hydra(cls) -> "RunFolder":
        """The folder that Hydra made for this job."""
        return cls.at(Path(HydraConfig.get().runtime.output_dir))

    @classmethod
    def at(cls, path: Path) -> "RunFolder":
        """The folder at `path`, made if need be."""
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def of_problem(self, name: str, problem: Problem) -> "RunFolder":
        """The folder below for results on a problem, with the problem in it.

        Where results of another problem lie under this name (its file has changed), it is a folder beside them: records
        are validated against the problem in their folder.
        """
        folder = RunFolder.at(self.path / name)
        if folder.problem.exists() and Problem.load(folder.problem).fingerprint != problem.fingerprint:
            folder = RunFolder.at(self.path / f"{name}-{problem.fingerprint[:8]}")
        if not folder.problem.exists():
            problem.save(folder.problem)
        return folder

    def saved_config(self) -> DictConfig:
        """The configuration of the run. A folder may be a stranger's: it must call nothing but what `conf/` calls.

        Raises:
            InvalidFile: There is none, or it calls something else.
        """
        if not self.config.exists():
            raise InvalidFile(f"{self.path} is no training run: it holds no {self.config.name}")
        saved = OmegaConf.load(self.config)
        if not isinstance(saved, DictConfig):
            raise InvalidFile(f"{self.config}: not a configuration; expected a mapping")
        files = [file for room in ("agent", "baseline", "env", "tracking") for file in (CONF / room).glob("*.yaml")]
        known = {name for file in files for name in re.findall(r"_target_: (\S+)", file.read_text(encoding="utf-8"))}
        # Resolved, since a section that is built may stand for one that is not.
        whole = cast(dict[str, Any], OmegaConf.to_container(saved, resolve=True))
        rest: list[Any] = [value for name, value in whole.items() if name not in NOT_BUILT]
        while rest:
            one = rest.pop()
            if isinstance(one, dict) and "_target_" in one and str(one["_target_"]) not in known:
                raise InvalidFile(f"{self.config} calls {one['_target_']!r}; expected what the files of conf/ call")
            rest += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        return saved

    @property
    def config(self) -> Path:
        """The whole resolved configuration."""
        return self.path / "config.yaml"

    @property
    def problem(self) -> Path:
        """The problem that was placed (`Problem.load`)."""
        return self.path / "problem.npz"

    @property
    def records(self) -> Path:
        """Results, one JSON row each (`record.py`)."""
        return self.path / "records.jsonl"

    @property
    def metrics(self) -> Path:
        """Learning curves, one JSON row per update (`tracking.py`)."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The agent, as it was saved last."""
        return self.path / "checkpoint.pt"

    @property
    def gantt(self) -> Path:
        """Gantt chart of the best schedule."""
        return self.path / "gantt.png"

    @property
    def trace(self) -> Path:
        """The best schedule for chrome://tracing and ui.perfetto.dev."""
        return self.path / "trace.json"

    @property
    def curve(self) -> Path:
        """Learning curve, with the baselines as horizontal lines."""
        return self.path / "learning_curve.png"

    @property
    def ratios(self) -> Path:
        """Each method's ratio to the best value, for many instances."""
        return self.path / "ratios.png"

    @property
    def samples(self) -> Path:
        """Sample efficiency: the best found against simulator calls, on many workloads."""
        return self.path / "sample_efficiency.png"

    @property
    def table(self) -> Path:
        """The final table."""
        return self.path / "table.md"
