"""Unseen: graphs that a policy was not trained on, placed by it as it is and after fine-tuning, and by baselines."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from agents.dual_config import DualPolicyConfig
from agents.dual_policy import DualPolicyAgent
from agents.networks.dual import DualPolicy
from experiments import build, record
from experiments.baselines import solve_and_record, warm_up
from experiments.evaluate import best_schedule
from experiments.family import Case
from experiments.folder import RunFolder
from experiments.grid import TrialGrid
from experiments.record import Effort, Record
from experiments.table import TableRow, row_of_record
from experiments.zero_shot import ways
from placement_gym.bounds import lower_bound_s
from placement_gym.problem import Problem
from placement_gym.schedule import Schedule
from placement_gym.simulator import simulate
from placement_gym.workloads import layered

COLUMNS = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the results of a case go, and what was recorded there before.

    Attributes:
        case: The case.
        folder: Its folder.
        recorded: Its records.
    """

    case: Case
    folder: RunFolder
    recorded: list[Record]

    @classmethod
    def of(cls, case: Case, root: RunFolder) -> "Place":
        """The folder is named after the case; records of another problem of that name do not count."""
        folder = RunFolder.at(root.path / case.group.replace(", ", "-").replace(" ", "-") / case.name)
        case.problem.save(folder.problem)
        recorded = [at.record for at in record.read(folder.records)] if folder.records.exists() else []
        return cls(case, folder, [one for one in recorded if one.fingerprint == case.problem.fingerprint])

    def known(self, method: str, basis: Mapping[str, Any], seed: int) -> TableRow | None:
        """The newest result of the method that rests on the same as now."""
        for one in reversed(self.recorded):
            if (one.method, one.seed, one.config["basis"]) == (method, seed, dict(basis)):
                return row_of_record(one)
        return None


class Unseen:
    """What a policy and the baselines make of graphs that it has not seen.

    Args:
        config: The whole configuration.
        folder: Where results go; one folder below it per case.
        console: The terminal.
        policy: The policy.
    """

    def __init__(self, config: DictConfig, folder: RunFolder, console: Console, policy: DualPolicy) -> None:
        self.config, self.folder, self.console = config, folder, console
        self.plain, self.rule = build.plain(config), build.build_rule(config)
        self.torch_device = build.torch_device(config.torch_device)
        self.policy, self.weights = policy, weights_of(policy)

    def agent(self, problem: Problem, n_episodes: int, part: str, seed: int) -> DualPolicyAgent:
        """A learner of one problem; only one that is trained from scratch does not have the policy's weights."""
        config = self.config.copy()
        config.env.num_envs = n_episodes
        vec_env = build.build_vector_env(config, problem, self.rule)
        agent = DualPolicyAgent(vec_env, agent_config(self.config, part), seed=seed, torch_device=self.torch_device)
        if part != "scratch":
            agent.adopt(self.policy)
        return agent

    def baselines(self, place: Place) -> list[TableRow]:
        """All baselines on a case."""
        rows = []
        for name, solve in build.build_baselines(self.config, self.rule).items():
            basis = self.plain["baseline"][name]
            row = next(
                (row_of_record(o) for o in place.recorded[::-1] if (o.method, o.config["basis"]) == (name, basis)), None
            )
            if row is None:
                warm_up(solve)
                config = {**self.plain, "basis": basis}
                made = solve_and_record(name, solve, place.case.problem, place.folder, verb="transfer", config=config)
                row = row_of_record(made)
            rows.append(row)
        return rows

    def zero_shot(self, place: Place) -> list[TableRow]:
        """The policy as it is places a case in several ways, and as a control one with random weights.

        Seconds count from the problem to the schedule: environment, networks, choices and simulation.
        """
        seed, rows = int(self.config.seed), []
        for way in ways(self.config.zero_shot):
            basis = {"weights": self.weights if way.trained else "", **asdict(way)}
            row = place.known(way.method, basis, seed)
            if row is None:
                start, problem = time.perf_counter(), place.case.problem
                agent = self.agent(problem, way.n_episodes, "training" if way.trained else "scratch", seed)
                schedule = best_schedule(problem, way.place(agent, seed), self.rule)
                effort = Effort(
                    lower_bound_s=lower_bound_s(problem),
                    # A search ends early where it finds nothing new; the other ways evaluate what they are given.
                    simulator_calls=agent.simulator_calls or way.simulator_calls,
                    seconds=time.perf_counter() - start,
                    seed=seed,
                )
                agent.env.close()
                row = self.add(place, way.method, schedule, effort, basis)
            rows.append(row)
        return rows

    def fine_tune(self, place: Place) -> list[TableRow]:
        """Trains on the case alone, from the policy's weights and from scratch; means of the best found over seeds."""
        rows = []
        for part, method in (("fine_tune", "fine-tuned"), ("scratch", "from scratch")):
            calls, own = int(self.config[part].simulator_calls), asdict(agent_config(self.config, part))
            basis = {"weights": self.weights if part == "fine_tune" else "", "simulator_calls": calls, "agent": own}
            found = []
            for seed in self.config.fine_tune.seeds:
                row = place.known(method, basis, seed)
                if row is None:
                    agent = self.agent(place.case.problem, int(self.config.env.num_envs), part, seed)
                    *_, last = agent.train(simulator_calls=calls)
                    agent.env.close()
                    effort = Effort(
                        lower_bound_s=lower_bound_s(place.case.problem),
                        simulator_calls=last.simulator_calls,
                        seconds=last.seconds,
                        seed=seed,
                    )
                    schedule = simulate(place.case.problem, last.best_op_device, rule=self.rule)
                    row = self.add(place, method, schedule, effort, basis)
                found.append(row)
            mean_s, seconds = (
                float(np.mean([getattr(row, name) for row in found])) for name in ("objective_s", "seconds")
            )
            rows.append(replace(found[0], objective_s=mean_s, seconds=seconds))
        return rows

    def add(self, place: Place, method: str, schedule: Schedule, effort: Effort, basis: Mapping[str, Any]) -> TableRow:
        """Checks and records a schedule of the policy; its line of the table."""
        schedule.check()
        made = Record.of(
            schedule,
            verb="transfer",
            method=method,
            effort=effort,
            problem_file=place.folder.problem.name,
            config={**self.plain, "basis": dict(basis)},
        )
        record.append(place.folder.records, made)
        return row_of_record(made)

    def evaluate(self, all_cases: Sequence[Case]) -> dict[str, TrialGrid]:
        """All methods on all cases; a grid per group."""
        found: dict[str, dict[tuple[str, str], TableRow]] = {}
        self.zero_shot(Place.of(Case("warm-up", "layered", layered(n_ops=4, n_devices=2)), self.folder))
        with Progress(*COLUMNS, console=self.console, transient=True) as progress:
            bar = progress.add_task("", total=len(all_cases))
            for case in all_cases:
                progress.update(bar, description=f"{case.group}: {case.name}")
                place = Place.of(case, self.folder)
                rows = self.baselines(place) + self.zero_shot(place)
                if case.group in self.config.fine_tune.groups:
                    rows += self.fine_tune(place)
                found.setdefault(case.group, {}).update({(case.name, row.method): row for row in rows})
                progress.advance(bar)
        return {group: grid_of(rows) for group, rows in found.items()}


def weights_of(policy: DualPolicy) -> str:
    """A digest of the weights, which is what results rest on."""
    digest = hashlib.sha256()
    for value in policy.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def agent_config(config: DictConfig, part: str) -> DualPolicyConfig:
    """Hyper-parameters: those of `agent`, but for what this part of the configuration says."""
    made = instantiate(OmegaConf.merge(config.agent.config, config[part].config), _convert_="all")
    assert isinstance(made, DualPolicyConfig)
    return made


def grid_of(rows: Mapping[tuple[str, str], TableRow]) -> TrialGrid:
    """Instances and methods in the order in which they come."""
    return TrialGrid(tuple(dict.fromkeys(i for i, _ in rows)), tuple(dict.fromkeys(m for _, m in rows)), dict(rows))
