"""real: the dual policy learns in three stages, the last on real devices; then all methods' placements are measured.

python -m experiments.real workload=chain_mm workload.program.size=1536
python -m experiments.real experiment=doppler_real
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from experiments import build
from experiments.agreement import Execution
from experiments.command import command
from experiments.execute import fingerprint, read_executions
from experiments.folder import RunFolder
from experiments.profile import profiled_problems
from experiments.ranking import HEADINGS, Ranked, lines, measured_methods, sentences
from experiments.stages import LearningStages, calibrated_once
from experiments.table import markdown, terminal, wide_console
from placement_gym.errors import InvalidOption
from placement_gym.files import write_text
from placement_gym.problem import Problem
from placement_gym.pytorch import RunOptions
from placement_gym.pytorch.runner import Runner

# What a run that goes on may change; all else is the run's own.
RESUMABLE = ("seeds", "passes", "tracking", "checkpoint_every_s", "timeout_s")


def check_resumed(config: DictConfig, folder: RunFolder) -> None:
    """Raises unless a run that lies in the folder is this one.

    Raises:
        InvalidOption: Something differs that changes what was found there.
    """
    if not folder.config.exists():
        return
    saved, asked = OmegaConf.to_container(OmegaConf.load(folder.config)), build.plain(config)
    assert isinstance(saved, dict)
    differing = [key for key in asked if key not in RESUMABLE and asked[key] != saved.get(key)]
    if differing:
        raise InvalidOption(
            f"{folder.path} holds a run with other {', '.join(differing)}; a run that goes on keeps its own: expected "
            "the same command, or another hydra.run.dir"
        )


def executed(stages: LearningStages, name: str, found: Sequence[Ranked], path: Path) -> list[Execution]:
    """Every placement found, run once in each of `config.passes` passes, in an order that is drawn for each pass.

    Runs are kept in the file at `path`; they count as long as the placements are the same, since those of one pass are
    compared with each other.
    """
    config, kept = stages.config, read_executions(path)
    first = {tuple(one.op_device): one for one in reversed(found)}
    if [tuple(execution.op_device) for execution in kept] != list(first):
        graph = fingerprint(stages.problem.graph)
        kept = [
            Execution(
                program=name,
                graph=graph,
                placement=f"{one.method}, seed {one.seed}",
                kind="baseline" if one.is_baseline else "agent",
                op_device=one.op_device,
                makespans_s=[],
                overheads_s=[],
                op_s=[],
                edge_s=[],
            )
            for one in first.values()
        ]
    op_device, done = np.array(list(first), dtype=np.int32), len(kept[0].makespans_s)
    columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=stages.console, transient=True) as progress:
        what = f"{name}: passes over {len(kept)} placements"
        for number in progress.track(range(done, config.passes), description=what):
            turns = np.random.default_rng([config.seed, number]).permutation(len(kept)).tolist()
            for turn, makespan_s in zip(turns, stages.runner(op_device, None, turns).tolist(), strict=True):
                kept[turn].makespans_s.append(makespan_s)
            write_text(path, "".join(json.dumps(execution.row()) + "\n" for execution in kept))
    return kept


def run(config: DictConfig) -> int:
    """Trains, finds, measures and compares on every program; writes what was found, the runs, table and sentences.

    Raises:
        InvalidOption: The folder holds another run, or the agent does not learn in stages.
        InvalidProblem: A workload that cannot be run.
        ExecutionError: A run that failed.
    """
    console, root = wide_console(), RunFolder.of_hydra()
    check_resumed(config, root)
    build.set_torch_threads(config.torch_threads)
    sections = config.programs or {config.workload_name: config.workload}
    graphs = {name: build.build_executable(section, name) for name, section in sections.items()}
    write_text(root.config, OmegaConf.to_yaml(config, resolve=True))
    text = []
    try:
        for name, problem in profiled_problems(graphs, config, console).items():
            text.append(_compared(config, name, problem, root, console))
    except KeyboardInterrupt:
        console.print("interrupted; the same command, with the same hydra.run.dir, goes on", highlight=False)
        raise
    write_text(root.table, "\n".join(text))
    console.print(f"wrote {root.path}/: {root.table.name}, and what was found and run by program", highlight=False)
    return 0


def _compared(config: DictConfig, name: str, problem: Problem, root: RunFolder, console: Console) -> str:
    """All methods on one program: printed, and as Markdown."""
    folder, rule = RunFolder.at(root.path / name), build.build_rule(config)
    problem = calibrated_once(problem, rule, config, folder.problem, console)
    options = RunOptions(seed=config.seed, timeout_s=config.timeout_s)
    runner = Runner(problem, list(config.torch_devices), rule=rule, options=options)
    stages = LearningStages(config, folder, problem, rule, runner, console)
    found = [one for seed in config.seeds for one in stages.found(seed)]
    methods = measured_methods(found, executed(stages, name, found, folder.path / "executions.jsonl"))
    title = f"{name}: measured makespans, {len(config.seeds)} seeds, {config.passes} passes"
    own = f"{config.agent_name}, stage III"
    console.print(terminal(title, HEADINGS, lines(methods), bold={own}))
    said = sentences(methods, own)
    for sentence in said:
        console.print(f"{name}: {sentence}", highlight=False, soft_wrap=True)
    return (
        f"## {title}\n\n{markdown(HEADINGS, lines(methods))}\n" + "\n".join(f"- {sentence}" for sentence in said) + "\n"
    )


main = command("real")(run)

if __name__ == "__main__":
    sys.exit(main(None))
