"""RunFolder: the names of the files that a run writes."""

from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from placement_gym.problem import Problem


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
