"""Tracker: learning curves and results, to JSONL always and to Weights & Biases offline unless told otherwise."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from experiments.folder import RunFolder
from experiments.table import TableRow
from placement_gym.errors import InvalidFile, InvalidOption, unknown_name
from placement_gym.files import write_text

WandbMode = Literal["offline", "online", "disabled"]
CALLS, SECONDS = "train/simulator_calls", "train/seconds"

# Every metric that is logged, and what it means. Curves are drawn against simulator calls; those under
# train/by_seconds/ repeat the two that are compared against wall-clock seconds.
METRICS: dict[str, str] = {
    CALLS: "placements simulated since training began (all sessions of a resumed run)",
    SECONDS: "wall-clock seconds of training (all sessions of a resumed run)",
    "train/episodes": "episodes played since training began",
    "train/best_makespan_s": "best makespan seen so far",
    "train/updates": "updates since training began",
    "train/makespan_mean_s": "mean makespan of this update's sampled episodes",
    "train/makespan_min_s": "best makespan of this update's episodes",
    "train/makespan_greedy_s": "makespan of the policy's most likely placement",
    "train/makespan_guide_s": "makespan of the best placement that episodes follow",
    "train/fresh_share": "share of this update's placements that had not been simulated before",
    "train/agreement_op": "mean probability of selecting as the teacher does",
    "train/agreement_device": "mean probability of placing as the teacher does",
    "train/imitating": "1 while the policy still imitates its teacher, 0 once it learns from returns",
    "train/loss": "total loss of this update",
    "train/policy_loss": "policy-gradient part of the loss",
    "train/value_loss": "critic's part of the loss",
    "train/entropy": "mean entropy of the policy's choices, nats",
    "train/advantage_std": "spread of the advantages before they are normalised",
    "train/gradient_norm": "norm of the gradient before it is clipped",
    "train/learning_rate": "of the optimiser",
    "train/approx_kl": "estimated divergence of the new policy from the one that played",
    "train/clip_fraction": "share of choices at which the ratio was clipped",
    "train/explained_variance": "share of the returns' variance that the critic explains",
    "train/return": "mean return of this update's episodes",
    "train/by_seconds/best_makespan_s": "train/best_makespan_s against train/seconds",
    "train/by_seconds/makespan_mean_s": "train/makespan_mean_s against train/seconds",
    "eval/makespan_s": "makespan of the final placement",
    "eval/greedy_makespan_s": "makespan of the final policy's most likely placement",
    "eval/ratio_to_lower_bound": "eval/makespan_s over the lower bound",
    "eval/simulator_calls": "placements simulated in all",
    "eval/seconds": "seconds in all",
    "baseline/<name>/makespan_s": "makespan of a baseline (a summary value, and a horizontal line in eval/curve); "
    "max_load_s, gpipe_load_s or latency_s where it minimises that",
    "baseline/<name>/simulator_calls": "placements that the baseline simulated",
    "baseline/<name>/seconds": "seconds that the baseline took",
    "baseline/lower_bound_s": "no placement is faster",
    "instance/<name>/<method>/<objective>_s": "what a baseline found on one of many instances (a summary value; absent "
    "where it found nothing): makespan_s, max_load_s, gpipe_load_s or latency_s, whichever it minimises",
    "instance/table": "all of them in one table, with seconds, lower bound and status",
}


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """conf/tracking.

    Attributes:
        wandb: "offline" (no account, no network), "online" or "disabled".
        project: Project of Weights & Biases.
        group: Group there, None for none.

    Raises:
        InvalidOption: An unknown mode.
    """

    wandb: WandbMode = "offline"
    project: str = "placement_gym"
    group: str | None = None

    def __post_init__(self) -> None:
        if self.wandb not in get_args(WandbMode):
            raise InvalidOption(unknown_name("tracking.wandb", self.wandb, get_args(WandbMode)))


class Tracker:
    """Writes `metrics.jsonl` in the run's folder, and the same to Weights & Biases.

    Args:
        folder: The run's folder.
        config: The whole resolved configuration.
        tracking: Mode and names.
        name: Name of the run.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], tracking: TrackingConfig, name: str) -> None:
        self.folder = folder
        self.wandb_folder: Path | None = None
        self._run: Any = None
        if tracking.wandb != "disabled":
            self._start(config, tracking, name)

    def _start(self, config: Mapping[str, Any], tracking: TrackingConfig, name: str) -> None:
        import wandb

        # The service's own log lines would tear the progress bar apart.
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        # Our package `agents` shares its name with a library for which it would advertise Weave.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        try:
            self._run = wandb.init(
                project=tracking.project,
                group=tracking.group,
                name=name,
                dir=str(self.folder.path),
                config=dict(config),
                mode=tracking.wandb,
                settings=settings,
            )
        except wandb.errors.Error as error:
            raise InvalidOption(
                f"tracking.wandb={tracking.wandb}: {error} (tracking.wandb=offline needs no account)"
            ) from error
        self.wandb_folder = Path(self._run.dir).parent
        for metric in METRICS:
            if metric in (CALLS, SECONDS):
                self._run.define_metric(metric, hidden=True)
            elif metric.startswith("train/"):
                by_seconds = metric.startswith("train/by_seconds/")
                self._run.define_metric(metric, step_metric=SECONDS if by_seconds else CALLS)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if error is None else 1)

    def log(self, values: Mapping[str, float]) -> None:
        """Writes one row of metrics, whose names are among METRICS.

        Raises:
            InvalidOption: A metric that METRICS does not document.
        """
        for name in values:
            if name not in METRICS:
                raise InvalidOption(unknown_name("metric", name, METRICS) + " (document it in experiments/tracking.py)")
        row = json.dumps({name: float(value) for name, value in values.items()}) + "\n"
        with self.folder.metrics.open("a", encoding="utf-8") as stream:
            stream.write(row)
        if self._run is not None:
            again = {
                f"train/by_seconds/{name}": values[f"train/{name}"]
                for name in ("best_makespan_s", "makespan_mean_s")
                if f"train/{name}" in values
            }
            self._run.log({**values, **again})

    def baselines(self, rows: Sequence[TableRow], lower_bound_s: float) -> None:
        """Writes the baselines' results as summary values, by name."""
        if self._run is None:
            return
        self._run.summary["baseline/lower_bound_s"] = lower_bound_s
        for row in rows:
            self._run.summary[f"baseline/{row.method}/{row.objective}_s"] = row.objective_s
            for name in ("simulator_calls", "seconds"):
                self._run.summary[f"baseline/{row.method}/{name}"] = getattr(row, name)

    def instances(self, rows: Mapping[tuple[str, str], TableRow]) -> None:
        """Writes results by (instance, method), as summary values and one table."""
        if self._run is None:
            return
        import wandb

        columns = ["instance", "method", "objective", "objective_s", "lower_bound_s", "seconds", "status"]
        data = []
        for (instance, method), row in rows.items():
            found = math.isfinite(row.objective_s)
            if found:
                self._run.summary[f"instance/{instance}/{method}/{row.objective}_s"] = row.objective_s
            values = (row.objective, row.objective_s, row.lower_bound_s, row.seconds) if found else (None,) * 4
            data.append([instance, method, *values, row.status])
        self._run.log({"instance/table": wandb.Table(columns=columns, data=data)})

    def finish(self, rows: Sequence[TableRow], lower_bound_s: float) -> None:
        """Logs the final table, the charts in the folder, and the curve beside lines of baselines and bound."""
        if self._run is None:
            return
        import wandb

        columns = ["method", "objective", "objective_s", "ratio_to_best", "simulator_calls", "seconds", "status"]
        data = []
        for row in rows:
            best = min(other.objective_s for other in rows if other.objective == row.objective)
            ratio = row.objective_s / best if best > 0 else 1.0
            data.append(
                [row.method, row.objective, row.objective_s, ratio, row.simulator_calls, row.seconds, row.status]
            )
        charts: dict[str, Any] = {"eval/table": wandb.Table(columns=columns, data=data)}
        for name, file in (("eval/gantt", self.folder.gantt), ("eval/learning_curve", self.folder.curve)):
            if file.exists():
                charts[name] = wandb.Image(str(file))
        curve = read_metrics(self.folder.metrics) if self.folder.metrics.exists() else []
        if curve:
            charts["eval/curve"] = _line_chart(
                curve, [row for row in rows if row.is_baseline and math.isfinite(row.objective_s)], lower_bound_s
            )
        self._run.log(charts)


def _line_chart(curve: Sequence[Mapping[str, float]], baselines: Sequence[TableRow], lower_bound_s: float) -> Any:  # noqa: ANN401
    import wandb

    shown = [row for row in curve if "train/best_makespan_s" in row]
    stride = max(1, len(shown) // 300)
    shown = [*shown[::stride], shown[-1]]
    calls = [row[CALLS] for row in shown]
    lines = {"agent": [row["train/best_makespan_s"] for row in shown]}
    lines |= {row.method: [row.objective_s] * len(calls) for row in baselines}
    lines["lower bound"] = [lower_bound_s] * len(calls)
    return wandb.plot.line_series(
        xs=calls, ys=list(lines.values()), keys=list(lines), title="best makespan (s)", xname="simulator calls"
    )


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a `metrics.jsonl`; a last row that a killed run left unfinished is left out.

    Raises:
        InvalidFile: A malformed row (the message says file:line).
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows: list[dict[str, float]] = []
    for i, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InvalidFile(f"{path}:{i}: not a JSON row ({error})") from error
    return rows


def rewind_metrics(path: Path, simulator_calls: int) -> None:
    """Drops the rows of updates after a checkpoint: the resumed run makes them again."""
    if path.exists():
        rows = [row for row in read_metrics(path) if row.get(CALLS, 0) <= simulator_calls]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
