"""transfer: one policy learns on a family of graphs, places graphs it has not seen, and is fine-tuned on them.

python -m experiments.transfer
python -m experiments.transfer experiment=doppler_transfer
python -m experiments.transfer experiment=doppler_transfer budget.seconds=3600 fine_tune=null

Given again, a command goes on where it was: training from its checkpoint, and what is recorded is not run again.
"""

import sys
from collections.abc import Mapping

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from agents.dual_family import DualFamily
from experiments import build
from experiments.command import INTERRUPTED, command
from experiments.family import cases, training_problems
from experiments.folder import RunFolder
from experiments.grid import TrialGrid, as_markdown, on_terminal
from experiments.learning import Budget, learn
from experiments.table import markdown, terminal, wide_console
from experiments.tracking import Tracker, rewind_metrics
from experiments.unseen import Unseen, agent_config
from placement_gym.errors import InvalidOption
from placement_gym.files import write_text

# What all methods are compared with.
REFERENCE = "critical_path"


def train(config: DictConfig, folder: RunFolder, console: Console, tracker: Tracker) -> tuple[DualFamily, bool]:
    """Trains a family, or goes on; the family, and whether it was interrupted.

    Raises:
        InvalidOption: The folder's policy has other hyper-parameters.
        CheckpointMismatch: The folder's policy learned from other problems.
    """
    problems, own = training_problems(config), agent_config(config, "training")
    rule, torch_device = build.build_rule(config), build.torch_device(config.torch_device)
    vec_envs = [build.build_vector_env(config, problem, rule) for problem in problems]
    if folder.checkpoint.exists():
        family = DualFamily.load(folder.checkpoint, vec_envs, torch_device=torch_device)
        if family.config != own:
            raise InvalidOption(
                f"{folder.checkpoint} was trained with {family.config}; expected {own} "
                "(another hydra.run.dir starts afresh)"
            )
        rewind_metrics(folder.metrics, family.simulator_calls)
    else:
        family = DualFamily(vec_envs, own, seed=config.seed, torch_device=torch_device)
    console.print(f"seed {config.seed}: learning from {len(problems)} problems", highlight=False)
    every_s = float(config.checkpoint_every_s)
    _, interrupted = learn(family, Budget(**config.budget), tracker, checkpoint_every_s=every_s, console=console)
    for vec_env in vec_envs:
        vec_env.close()
    return family, interrupted


def train_and_place(config: DictConfig, folder: RunFolder, console: Console) -> dict[str, TrialGrid] | None:
    """What one policy and the baselines make of the graphs that it was not trained on; None if interrupted."""
    with Tracker(folder, build.plain(config), instantiate(config.tracking), f"transfer seed {config.seed}") as tracker:
        family, interrupted = train(config, folder, console, tracker)
        if interrupted:
            console.print("Interrupted; the same command goes on.", highlight=False)
            return None
        grids = Unseen(config, folder, console, family.policy).evaluate(cases(config))
        rows = {
            (f"{group}/{name}", method): row
            for group, grid in grids.items()
            for (name, method), row in grid.rows.items()
        }
        tracker.instances(rows)
    return grids


def summary(grids: Mapping[int, Mapping[str, TrialGrid]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(headings, lines) of all policies' grids by seed and group.

    Per group and method: the ratio to critical path, its mean over graphs with the standard deviation of that over
    policies, the worst, and the most seconds.
    """
    lines: list[tuple[str, ...]] = []
    first = next(iter(grids.values()))
    for group in first:
        for method in first[group].methods:
            ratios, seconds = [], 0.0
            for grid in (of_seed[group] for of_seed in grids.values()):
                rows = [grid.rows[name, method] for name in grid.instances]
                reference = [grid.rows[name, REFERENCE] for name in grid.instances]
                ratios.append([row.objective_s / one.objective_s for row, one in zip(rows, reference, strict=True)])
                seconds = max(seconds, *(row.seconds for row in rows))
            means = np.mean(ratios, axis=1)
            spread = f" ± {means.std(ddof=1):.3f}" if len(means) > 1 else ""
            lines.append((group, method, f"{means.mean():.3f}{spread}", f"{np.max(ratios):.3f}", f"{seconds:.2f}"))
    return ("instance", "method", f"mean ratio to {REFERENCE}", "worst ratio", "most seconds"), lines


def run(config: DictConfig) -> int:
    """Trains a policy per seed, places what was not trained on, fine-tunes, and writes the tables."""
    console, folder = wide_console(), RunFolder.of_hydra()
    build.set_torch_threads(config.torch_threads)
    if REFERENCE not in (config.get("baseline") or {}):
        raise InvalidOption(f"baseline lacks {REFERENCE}, with which all methods are compared")
    if not config.seeds:
        raise InvalidOption("seeds is empty; expected one per policy that is to be trained")
    if config.env.get("priority") == "selection":
        raise InvalidOption(
            "env.priority is selection, but placements of unseen graphs are evaluated without an order; expected none"
        )
    cases(config)  # mistakes are found before the training and not behind it
    write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    grids: dict[int, dict[str, TrialGrid]] = {}
    for seed in config.seeds:
        own = config.copy()
        own.seed = seed
        found = train_and_place(own, RunFolder.at(folder.path / f"seed-{seed}"), console)
        if found is None:
            return INTERRUPTED
        grids[seed] = found
    headings, lines = summary(grids)
    text = [f"# Mean over graphs\n\n{markdown(headings, lines)}"]
    for seed, of_seed in grids.items():
        for group, grid in of_seed.items():
            title = f"{group}, seed {seed}"
            text.append(f"# {title}\n\n{as_markdown(grid)}")
            for shown in on_terminal(grid):
                console.print(title, shown, highlight=False)
    console.print(terminal("", headings, lines))
    write_text(folder.table, "\n".join(text))
    console.print(
        f"wrote {folder.path}/: {folder.table.name}, per seed {folder.checkpoint.name} and records by graph",
        highlight=False,
    )
    return 0


main = command("transfer")(run)

if __name__ == "__main__":
    sys.exit(main(None))
