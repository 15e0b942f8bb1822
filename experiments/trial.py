"""Trial: one method on one workload with one seed; recorded in a folder of its own, and gone on with if cut short."""

from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from agents.agent import Agent, Update
from experiments import build, record
from experiments.baselines import nothing_found, solve_and_record, warm_up
from experiments.command import one_line
from experiments.evaluate import best_schedule
from experiments.folder import RunFolder
from experiments.instances import short
from experiments.learning import Budget, learn
from experiments.record import Record
from experiments.table import TableRow, row_of_record
from experiments.tracking import CALLS, SECONDS, Tracker, read_metrics, rewind_metrics
from experiments.train import Workbench, final_metrics, results
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InfeasiblePlacement, InvalidOption, InvalidProblem, MissingDependency
from placement_gym.files import write_text
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.workloads import layered

# What a method is: a trial whose configuration differs in one of them is another trial.
OPTIONS = ("baseline", "env", "agent", "budget", "teacher", "samples")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        best: The best placement found; `inf` where there is none, and `status` says why.
        greedy: A learner's most likely placement, None where it is infeasible and for baselines.
        episodes: Of a learner's training, 0 for baselines.
        reason: Why nothing was found.
    """

    best: TableRow
    greedy: TableRow | None = None
    episodes: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One method on one workload with one seed.

    Attributes:
        workload: Its name.
        method: Its name.
        seed: None where the method does not depend on it.
        config: All that concerns this trial: `baseline`, or `agent`, `env` and `budget`.
        problem: What is placed.
        folder: A run's folder, with the problem in it.
    """

    workload: str
    method: str
    seed: int | None
    config: DictConfig
    problem: Problem
    folder: RunFolder

    @property
    def learns(self) -> bool:
        """Whether the method is an agent."""
        return "agent" in self.config

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.workload}  {self.method}{'' if self.seed is None else f' seed {self.seed}'}"

    def outcome(self) -> Outcome | None:
        """What is recorded of the trial as it is configured now; None if it has not been finished."""
        if not self.folder.records.exists():
            return None
        own, rule = build.plain(self.config), asdict(build.evaluation_rule(self.config))
        rows = {
            row.method: row
            for row in (at.record for at in record.read(self.folder.records))
            if row.fingerprint == self.problem.fingerprint and row.rule == rule and _same(row.config, own)
        }
        if self.method not in rows:
            return None
        greedy = rows.get(f"{self.method} (greedy)")
        return Outcome(
            _row(rows[self.method]),
            None if greedy is None else _row(greedy),
            self._episodes() if self.learns else 0.0,
        )

    def _episodes(self) -> float:
        curve = read_metrics(self.folder.metrics)
        return max((row["train/episodes"] for row in curve if "train/episodes" in row), default=0.0)

    def run(self, console: Console, shown: Progress) -> Outcome:
        """Runs and records the trial; a training that was interrupted goes on from its checkpoint."""
        try:
            if self.learns:
                self._train(console, shown)
            else:
                self._solve()
        except (InfeasiblePlacement, InvalidProblem, MissingDependency) as error:
            # One that cannot solve this workload says nothing about the others; any other error is a mistake to mend.
            row = nothing_found(self.method, is_baseline=not self.learns, status=short(error))
            return Outcome(row, reason=one_line(error))
        outcome = self.outcome()
        assert outcome is not None
        return outcome

    def warm_up(self) -> None:
        """Has Numba and torch compile what the method needs: on a machine's first run that is not the method's time."""
        rule = build.build_rule(self.config)
        if not self.learns:
            warm_up(build.build_baselines(self.config, rule)[self.method])
            return
        vec_env = build.build_vector_env(self.config, layered(n_ops=4, n_devices=2), rule)
        # An update of each stage, where the first is not long.
        for update in islice(build.build_agent(self.config, vec_env).train(seconds=5.0), 10):
            if update.simulator_calls:
                break
        vec_env.close()

    def _solve(self) -> None:
        solve = build.build_baselines(self.config, build.build_rule(self.config))[self.method]
        write_text(self.folder.config, OmegaConf.to_yaml(self.config, resolve=True))
        solve_and_record(self.method, solve, self.problem, self.folder, verb="solve", config=build.plain(self.config))

    def _train(self, console: Console, shown: Progress) -> None:
        """Trains within the budget; the records are those of `experiments.train`.

        Raises:
            KeyboardInterrupt: The user asked for it; the checkpoint is written.
            InvalidOption: The budget is less than an update needs.
        """
        config, folder = self.config, self.folder
        rule, whole = build.build_rule(config), build.plain(config)
        resumed = self._is_begun(whole)
        if not resumed:
            for file in (folder.checkpoint, folder.metrics):
                file.unlink(missing_ok=True)
        write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
        vec_env, bound = build.build_vector_env(config, self.problem, rule), lower_bound_s(self.problem)
        if resumed:
            agent = build.load_agent(config, folder.checkpoint, vec_env)
            rewind_metrics(folder.metrics, agent.simulator_calls)
        else:
            agent = build.build_agent(config, vec_env)
            build.teach(agent, config, self.problem, rule)
        with Tracker(folder, whole, instantiate(config.tracking), self.name) as tracker:
            learned, interrupted = learn(
                agent,
                Budget(**config.budget),
                tracker,
                checkpoint_every_s=config.checkpoint_every_s,
                console=console,
                shown=shown,
            )
            if interrupted:
                raise KeyboardInterrupt
            if learned is not None:
                learned = self._sample(agent, learned, rule, tracker)
                bench = Workbench(config, folder, self.problem, rule, console)
                rows, _ = results(bench, agent, learned, bound)
                tracker.log(final_metrics(rows, bound))
                tracker.finish(rows, bound)
        vec_env.close()
        if learned is None:
            if not resumed:
                raise InvalidOption(
                    f"{self.name}: budget {whole['budget']} ends before the first update of {config.env.num_envs} "
                    "episodes (a teacher's simulator calls count); expected a larger budget, or a smaller env.num_envs"
                )
            # Interrupted between the end of training and the record: what was best is not in a checkpoint.
            folder.checkpoint.unlink()
            self._train(console, shown)

    def _is_begun(self, whole: dict[str, Any]) -> bool:
        """Whether the folder holds a checkpoint of this very training, that has not ended yet."""
        if not self.folder.checkpoint.exists() or not self.folder.config.exists() or self.outcome() is not None:
            return False
        # A learner does not know of a limit of updates, so that it would make one too many.
        if self.config.budget.get("updates") is not None:
            return False
        before = OmegaConf.load(self.folder.config)
        assert isinstance(before, DictConfig)
        return bool(before.rule == self.config.rule) and _same(build.plain(before), whole)

    def _sample(self, agent: Agent, learned: Update, rule: Rule, tracker: Tracker) -> Update:
        """`samples` placements drawn from the trained policy count as found by it, if any are configured."""
        samples = self.config.get("samples")
        if not samples:
            return learned
        if learned.best_priority is not None:
            raise InvalidOption(f"{self.name}: samples with env.priority=selection; expected either")
        schedule = best_schedule(self.problem, agent.act_sampled(samples, seed=self.config.seed), rule)
        learned = replace(learned, simulator_calls=learned.simulator_calls + samples)
        if schedule.makespan_s < learned.best_makespan_s:
            best = np.asarray(schedule.op_device, np.int32)
            learned = replace(learned, best_makespan_s=schedule.makespan_s, best_op_device=best)
        tracker.log(
            {
                CALLS: learned.simulator_calls,
                SECONDS: learned.seconds,
                "train/best_makespan_s": learned.best_makespan_s,
            }
        )
        return learned


def _same(config: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether two trials' configurations are one method's with one seed."""
    options = (*OPTIONS, "seed") if "agent" in own else OPTIONS
    return all(config.get(name) == own.get(name) for name in options)


def _row(made: Record) -> TableRow:
    return row_of_record(made, by_makespan=True)
