"""study: many methods on many workloads over several seeds, such that an interrupted study goes on.

python -m experiments.study experiment=doppler_main
python -m experiments.study experiment=doppler_main seeds=[0,1] '~workloads.layer' workloads.chain.simulator_calls=1000
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from experiments import build
from experiments.command import USER_ERRORS, command, one_line
from experiments.curves import draw_samples, save_png
from experiments.folder import RunFolder
from experiments.learning import progress_bar
from experiments.solve import describe
from experiments.standings import UNITS, Standings, as_markdown, number_in, on_terminal, panels, sentences
from experiments.table import TableRow, order_note, wide_console
from experiments.tracking import Tracker
from experiments.trial import OPTIONS, Outcome, Trial
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InfeasiblePlacement, InvalidFile, InvalidOption, unknown_name
from placement_gym.files import write_text
from placement_gym.problem import Problem

# What belongs to the study as a whole and to none of its trials.
OF_STUDY = ("workloads", "methods", "seeds", "only", "compared", "unit")
# What a learner's section may hold; the rest of a trial's configuration is the study's.
OF_LEARNER = tuple(name for name in OPTIONS if name != "baseline")
OF_WORKLOAD = ("workload", "cluster", "costs", "rule", "simulator_calls")


def plain_section(section: DictConfig) -> dict[str, Any]:
    """A part of the configuration whose interpolations wait for the trial that they are resolved in."""
    held = OmegaConf.to_container(section, resolve=False)
    assert isinstance(held, dict)
    return {str(name): value for name, value in held.items()}


def check_names(config: DictConfig) -> None:
    """Whether there are workloads, methods and seeds, and whether all names are known.

    Raises:
        InvalidOption: Something is missing or unknown.
    """
    for what in ("workloads", "methods", "seeds"):
        if not config[what]:
            raise InvalidOption(f"no {what} are configured; expected some, or experiment=<name>")
    if config.unit not in UNITS:
        raise InvalidOption(unknown_name("unit", config.unit, UNITS))
    for name, section in config.workloads.items():
        _check_keys(f"workloads.{name}", section, OF_WORKLOAD)
    for name in config.methods:
        section = section_of(config, name)
        if "agent" in section:
            _check_keys(f"methods.{name}", section, OF_LEARNER)
        elif "_target_" not in section:
            raise InvalidOption(f"methods.{name} is {section}; expected a baseline's _target_, an agent, or like")
    if config.compared is not None and config.compared not in config.methods:
        raise InvalidOption(f"compared: {unknown_name('method', config.compared, config.methods)}")


def _check_keys(where: str, section: DictConfig, known: tuple[str, ...]) -> None:
    for key in section:
        if key not in known:
            raise InvalidOption(f"{where}: {unknown_name('option', key, known)}")


def section_of(config: DictConfig, method: str) -> DictConfig:
    """The method's section; where it is `like` another method, that one's with this one's options.

    Raises:
        InvalidOption: The other one is unknown, or like a third.
    """
    section = config.methods[method]
    like = section.get("like")
    if like is None:
        return DictConfig(plain_section(section))
    if like not in config.methods or config.methods[like].get("like") is not None:
        known = (name for name, other in config.methods.items() if other.get("like") is None)
        raise InvalidOption(f"methods.{method}.like: {unknown_name('method', like, known)}")
    whole = OmegaConf.merge(plain_section(config.methods[like]), plain_section(section))
    assert isinstance(whole, DictConfig)
    del whole["like"]
    return whole


def trial_config(config: DictConfig, workload: str, method: str, seed: int) -> DictConfig:
    """The configuration of one trial, as `solve` or `train` would have it.

    Raises:
        InvalidOption: As `section_of`.
    """
    shared = {name: value for name, value in plain_section(config).items() if name not in OF_STUDY}
    own: dict[str, Any] = {"workload_name": workload, "seed": seed}
    section = section_of(config, method)
    if "agent" in section:
        own |= {"agent_name": method, **plain_section(section)}
    else:
        # A budget is a learner's: one that a baseline has is an option of its own.
        del shared["budget"]
        own["baseline"] = {method: plain_section(section)}
    whole = OmegaConf.merge(shared, plain_section(config.workloads[workload]), own)
    assert isinstance(whole, DictConfig)
    return whole


def seeds_of(config: DictConfig, method: str) -> list[int | None]:
    """The seeds of a method; None alone for a baseline whose options do not refer to the seed."""
    section = section_of(config, method)
    if "agent" not in section and "${seed}" not in str(plain_section(section)):
        return [None]
    return [int(seed) for seed in config.seeds]


def build_problems(config: DictConfig) -> dict[str, Problem]:
    """The workloads by name; all are built before anything runs.

    Raises:
        InvalidFile: One cannot be built; the message names its option.
    """
    problems = {}
    for name in config.workloads:
        try:
            problems[str(name)] = build.build_problem(trial_config(config, name, next(iter(config.methods)), 0))
        except USER_ERRORS as error:
            has_path = "path" in config.workloads[name].workload
            option = f"workloads.{name}.workload" + (".path=<file>" if has_path else "")
            raise InvalidFile(f"workload {name}: {one_line(error)} (set {option})") from error
    return problems


@dataclass(frozen=True, slots=True)
class Study:
    """The trials of a study.

    Attributes:
        config: The study's configuration.
        root: Folder of all trials.
        problems: The workloads, by name.
    """

    config: DictConfig
    root: RunFolder
    problems: Mapping[str, Problem]

    def keys(self) -> list[tuple[str, str, int | None]]:
        """(workload, method, seed) of each trial, seed by seed, so that a study cut short compares all methods."""
        only = self.config.only or {}
        keys = [
            (workload, str(method), seed)
            for method in self.config.methods
            for seed in seeds_of(self.config, method)
            for workload in self.problems
            if workload in only.get(method, self.problems)
        ]
        order, workloads = [None, *self.config.seeds], list(self.problems)
        return sorted(keys, key=lambda key: (order.index(key[2]), workloads.index(key[0])))

    def trial(self, workload: str, method: str, seed: int | None) -> Trial:
        """The trial, with its folder."""
        config = trial_config(self.config, workload, method, int(self.config.seeds[0]) if seed is None else seed)
        name = f"{workload}/{method}" + ("" if seed is None else f"/seed{seed}")
        problem = self.problems[workload]
        return Trial(workload, method, seed, config, problem, self.root.of_problem(name, problem))

    def run(self, console: Console) -> tuple[list[tuple[Trial, Outcome]], int]:
        """Runs what is not recorded yet; returns the outcomes, and how many of them were recorded before.

        Raises:
            KeyboardInterrupt: What was finished by then is recorded.
        """
        outcomes: list[tuple[Trial, Outcome]] = []
        keys, n_recorded, warm = self.keys(), 0, set[str]()
        with progress_bar(console, transient=True) as shown:
            line = shown.add_task("", total=len(keys), label="study")
            try:
                for key in keys:
                    trial = self.trial(*key)
                    shown.update(line, description=f"{len(outcomes) + 1} of {len(keys)}: {trial.name}")
                    outcome = trial.outcome()
                    if outcome is None:
                        if trial.method not in warm:
                            trial.warm_up()
                            warm.add(trial.method)
                        outcome = trial.run(console, shown)
                        said = said_of(trial, outcome, self.config.unit)
                        console.print(said, highlight=False, markup=False, soft_wrap=True)
                    else:
                        n_recorded += 1
                    outcomes.append((trial, outcome))
                    shown.advance(line)
            except KeyboardInterrupt:
                console.print(f"{len(outcomes)} of {len(keys)} are done; the same command goes on", highlight=False)
                raise
        return outcomes, n_recorded


def said_of(trial: Trial, outcome: Outcome, unit: str) -> str:
    """One line about a finished trial."""
    row = outcome.best
    if not math.isfinite(row.objective_s):
        return f"{trial.name}: {row.status} ({outcome.reason})"
    greedy = f" (greedy {number_in(unit, outcome.greedy.objective_s)})" if outcome.greedy else ""
    calls = "call" if row.simulator_calls == 1 else "calls"
    effort = f"{row.simulator_calls:,} simulator {calls}, {row.seconds:,.2f} s"
    return f"{trial.name}: {number_in(unit, row.objective_s)} {unit}{greedy}, {effort}"


def track(config: DictConfig, root: RunFolder, outcomes: list[tuple[Trial, Outcome]]) -> None:
    """A run of its own in Weights & Biases with the results of all trials; the learners' curves are in theirs."""
    rows: dict[tuple[str, str], TableRow] = {}
    for trial, outcome in outcomes:
        rows[trial.workload, trial.method + ("" if trial.seed is None else f"/seed{trial.seed}")] = outcome.best
    with Tracker(root, build.plain(config), instantiate(config.tracking), name=f"study {root.path.name}") as tracker:
        tracker.instances(rows)


def run(config: DictConfig) -> int:
    """Runs every trial that is not recorded yet; prints and writes tables, sentences and curves.

    Raises:
        InvalidOption: The configuration names what is not there.
        InvalidFile: A workload cannot be built.
        InfeasiblePlacement: No method found anything on any workload.
    """
    console = wide_console()
    check_names(config)
    build.set_torch_threads(config.torch_threads)
    problems = build_problems(config)
    study = Study(config, RunFolder.of_hydra(), problems)
    write_text(study.root.config, OmegaConf.to_yaml(config, resolve=True))
    for name, problem in problems.items():
        rule = config.workloads[name].get("rule", config.rule)
        console.print(f"{name}: {describe(problem, rule)}", highlight=False)
    outcomes, n_recorded = study.run(console)
    if not any(math.isfinite(outcome.best.objective_s) for _, outcome in outcomes):
        raise InfeasiblePlacement(
            f"{', '.join(config.methods)}: no placement of any of {', '.join(problems)} was found"
        )
    if n_recorded:
        console.print(f"{n_recorded} of {len(outcomes)} were recorded before", highlight=False)
    bounds = {name: lower_bound_s(problem) for name, problem in problems.items()}
    standings = Standings.of(outcomes, [str(name) for name in config.methods], bounds, config.compared, config.unit)
    for shown in on_terminal(standings):
        console.print(shown)
    for sentence in sentences(standings):
        console.print(sentence, highlight=False, soft_wrap=True)
    root = study.root
    note = order_note(build.build_rule(config))
    console.print(note, highlight=False)
    write_text(root.table, f"{as_markdown(standings)}\n{note}\n")
    like = {str(name): str(section.get("like") or name) for name, section in config.methods.items()}
    save_png(draw_samples(panels(outcomes, bounds, like), UNITS[config.unit], config.unit), root.samples)
    if n_recorded < len(outcomes):
        track(config, root, outcomes)
    console.print(f"wrote {root.path}/: {root.table.name}, {root.samples.name}, a folder per trial", highlight=False)
    return 0


main = command("study")(run)

if __name__ == "__main__":
    sys.exit(main(None))
