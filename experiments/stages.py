"""Stages: the dual policy learns by imitation, in the simulator and on real devices, next to every baseline."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from agents.dual_policy import DualPolicyAgent
from experiments import build
from experiments.baselines import warm_up
from experiments.folder import RunFolder
from experiments.learning import Budget, learn
from experiments.placements import random
from experiments.ranking import Ranked
from experiments.tracking import Tracker, rewind_metrics
from placement_gym.arrays import IntArray
from placement_gym.calibration import Run, calibrated
from placement_gym.errors import InfeasiblePlacement, InvalidFile, InvalidOption
from placement_gym.files import write_text
from placement_gym.problem import Problem
from placement_gym.pytorch import RunOptions, execute
from placement_gym.pytorch.measured_makespan import MeasuredMakespan
from placement_gym.pytorch.runner import Runner
from placement_gym.rule import Rule
from placement_gym.simulator import simulate


@dataclass(frozen=True, slots=True, eq=False)
class LearningStages:
    """All methods on one program.

    Attributes:
        config: The whole configuration.
        folder: Of the program.
        problem: With kernels.
        rule: Of simulator and devices.
        runner: Runs placements on the devices.
        console: Where progress is shown.
    """

    config: DictConfig
    folder: RunFolder
    problem: Problem
    rule: Rule
    runner: Runner
    console: Console

    def found(self, seed: int) -> list[Ranked]:
        """What baselines and agent find with this seed; read from the folder where they have found it before."""
        folder = RunFolder.at(self.folder.path / f"seed_{seed}")
        path = folder.path / "found.jsonl"
        if path.exists():
            return read_found(path)
        config = OmegaConf.merge(self.config, {"seed": seed})
        assert isinstance(config, DictConfig)
        found = [*self._of_baselines(config), *self._of_agent(config, folder)]
        write_text(path, "".join(json.dumps(one.row()) + "\n" for one in found))
        return found

    def _of_baselines(self, config: DictConfig) -> list[Ranked]:
        found = []
        for name, solve in build.build_baselines(config, self.rule).items():
            try:
                with self.console.status(f"{self.problem.name}, seed {config.seed}: {name}"):
                    warm_up(solve)
                    result = solve(self.problem)
            except InfeasiblePlacement:
                continue
            one = self._found(name, config.seed, result.placement.op_device, result.simulator_calls, result.runtime_s)
            found.append(replace(one, is_baseline=True))
        return found

    def _of_agent(self, config: DictConfig, folder: RunFolder) -> list[Ranked]:
        """Stages I and II, from a checkpoint where there is one, then stage III."""
        name, two = str(config.agent_name), RunFolder.at(folder.path / "stage_two")
        vec_env = build.build_vector_env(config, self.problem, self.rule)
        resumed = two.checkpoint.exists()
        agent = build.load_agent(config, two.checkpoint, vec_env) if resumed else build.build_agent(config, vec_env)
        if not isinstance(agent, DualPolicyAgent) or agent.episodes.by_selection:
            raise InvalidOption(
                f"agent={name} with env.priority={config.env.get('priority')}; expected agent=dual_policy, "
                "the only one that learns in stages, and env.priority=none"
            )
        if resumed:
            rewind_metrics(two.metrics, agent.simulator_calls)
        else:
            build.teach(agent, config, self.problem, self.rule)
        self._learn(agent, config, two, "stages I and II", config.stage_two.simulator_calls)
        calls, seconds, best = agent.simulator_calls, agent.seconds, agent.found.best.op_device.copy()
        found = [
            self._found(f"{name}, stage II", config.seed, best, calls, seconds),
            self._found(f"{name}, stage II (greedy)", config.seed, agent.act_greedy(), calls, seconds),
        ]
        three = RunFolder.at(folder.path / "stage_three")
        three.metrics.unlink(missing_ok=True)
        options = config.stage_three
        with self.console.status(f"{self.problem.name}, seed {config.seed}: measuring what stage II found"):
            evaluator = MeasuredMakespan(
                self.runner, best, repeats=options.repeats, confirmations=options.confirmations
            )
            agent.evaluate_by(evaluator, candidates=min(options.candidates, options.calls - 1))
        self._learn(agent, config, three, "stage III", calls + options.calls)
        vec_env.close()
        with self.console.status(f"{self.problem.name}, seed {config.seed}: stage III's placement against stage II's"):
            stays = evaluator.settle()
        if not stays:
            told = "what stage III found did not win once more; the placement of stage II stays"
            self.console.print(f"{self.problem.name}, seed {config.seed}: {told}", highlight=False)
        for method, op_device in (("", evaluator.op_device), (" (greedy)", agent.act_greedy())):
            one = self._found(f"{name}, stage III{method}", config.seed, op_device, calls, agent.seconds)
            found.append(replace(one, measured_calls=agent.simulator_calls - calls))
        return found

    def _learn(self, agent: DualPolicyAgent, config: DictConfig, folder: RunFolder, stage: str, calls: int) -> None:
        """Trains until the agent has had so many calls of its evaluator, earlier ones included.

        Raises:
            KeyboardInterrupt: Ctrl-C ended it, after what was learned was saved.
        """
        told = f"{self.problem.name}, seed {config.seed}, {stage}"
        self.console.print(told, highlight=False)
        budget = Budget(seconds=None, simulator_calls=calls)
        with Tracker(folder, build.plain(config), instantiate(config.tracking), told) as tracker:
            every_s = config.checkpoint_every_s
            _, interrupted = learn(agent, budget, tracker, checkpoint_every_s=every_s, console=self.console)
        if interrupted:
            raise KeyboardInterrupt

    def _found(self, method: str, seed: int, op_device: IntArray, calls: int, seconds: float) -> Ranked:
        return Ranked(
            method=method,
            seed=seed,
            is_baseline=False,
            op_device=op_device.tolist(),
            simulated_s=simulate(self.problem, op_device, rule=self.rule).makespan_s,
            simulator_calls=calls,
            measured_calls=0,
            seconds=seconds,
        )


def read_found(path: Path) -> list[Ranked]:
    """What was found before.

    Raises:
        InvalidFile: A malformed row.
    """
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Ranked(**json.loads(text)))
        except (ValueError, TypeError) as error:
            raise InvalidFile(f"{path}:{number}: not a placement found, or truncated ({error})") from error
    return found


def calibrated_once(problem: Problem, rule: Rule, config: DictConfig, path: Path, console: Console) -> Problem:
    """The problem with times from real runs of some random placements, which are kept in the file at `path`.

    Raises:
        ExecutionError: A run failed.
    """
    if not path.exists():
        with console.status(f"{problem.name}: calibrating the simulator's costs"):
            _calibrated(problem, rule, config).save(path)
    saved = Problem.load(path)
    # A file does not hold kernels.
    return replace(
        problem,
        op_time_s=saved.op_time_s,
        link_latency_s=saved.link_latency_s,
        link_bytes_per_s=saved.link_bytes_per_s,
    )


def _calibrated(problem: Problem, rule: Rule, config: DictConfig) -> Problem:
    runs = []
    for placement in random(problem, config.calibration.placements, np.random.default_rng([config.seed, 1])):
        schedule = execute(
            problem,
            placement.op_device,
            torch_devices=list(config.torch_devices),
            repeats=config.calibration.repeats,
            rule=rule,
            options=RunOptions(seed=config.seed, timeout_s=config.timeout_s),
        )
        trace = schedule.trace
        op_s, edge_s = trace.op_finish_s - trace.op_start_s, trace.transfer_arrival_s - trace.transfer_start_s
        runs.append(Run(placement.op_device, op_s, edge_s))
    return calibrated(problem, runs) if runs else problem
