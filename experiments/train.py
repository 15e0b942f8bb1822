"""train: an agent learns to place a workload, next to every cheap baseline.

python -m experiments.train experiment=quickstart
python -m experiments.train workload=pytorch cluster=4xp100_pcie agent=reinforce seed=0
python -m experiments.train -m seed=0,1,2 agent=reinforce,ppo
python -m experiments.train resume=outputs/train/<run>
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from agents.agent import Agent, Update
from experiments import build
from experiments.baselines import nothing_found, run_baselines
from experiments.command import command
from experiments.curves import draw, save_png
from experiments.evaluate import greedy_priority, schedule_of
from experiments.folder import RunFolder
from experiments.learning import Budget, learn
from experiments.record import Effort, Record, append, read
from experiments.solve import describe
from experiments.table import (
    TableRow,
    cells,
    headings,
    markdown,
    order_note,
    row_of_record,
    terminal,
    verdict,
    wide_console,
)
from experiments.tracking import Tracker, read_metrics, rewind_metrics
from placement_gym.baselines import simulated_annealing
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InfeasiblePlacement, InvalidFile, InvalidOption
from placement_gym.files import write_text
from placement_gym.problem import Problem
from placement_gym.render import save_chrome_trace, save_gantt
from placement_gym.rule import Rule
from placement_gym.schedule import Schedule


def folder_of(config: DictConfig) -> tuple[RunFolder, bool]:
    """The run's folder, and whether it continues an earlier run.

    Raises:
        InvalidFile: There is no run to resume.
    """
    fresh = RunFolder.of_hydra()
    if config.resume in (None, False):
        return fresh, False
    if config.resume is True:
        # A sweep's runs lie one folder deeper than a single run.
        root = Path("outputs") / HydraConfig.get().job.name
        checkpoints = sorted(root.rglob("checkpoint.pt"), key=lambda path: path.stat().st_mtime)
        if not checkpoints:
            raise InvalidFile(f"nothing to resume: no checkpoint.pt below {root.resolve()}")
        folder = RunFolder(checkpoints[-1].parent)
    else:
        folder = RunFolder(Path(config.resume))
    if not folder.checkpoint.exists():
        raise InvalidFile(f"cannot resume {folder.path}: it holds no {folder.checkpoint.name}")
    if fresh.path != folder.path and not any(fresh.path.iterdir()):
        fresh.path.rmdir()
    return folder, True


# What a resumed run may change; all else is the run's own.
RESUMABLE = ("budget", "tracking", "checkpoint_every_s", "torch_threads", "torch_device", "equal_calls")


def resumed_config(config: DictConfig, folder: RunFolder, overrides: Sequence[str]) -> DictConfig:
    """The run's own configuration, with what this command line says about the budget and the machine.

    Raises:
        InvalidFile: As `RunFolder.saved_config`.
        InvalidOption: The command line asks for something that is not the run's (another workload, say).
    """
    saved = folder.saved_config()
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~").partition(".")[0].partition("@")[0]
        if name in ("resume", "experiment"):
            continue
        asked = OmegaConf.to_container(OmegaConf.create({"it": config[name]}), resolve=True)
        if name in RESUMABLE:
            saved[name] = config[name]
        elif asked != OmegaConf.to_container(OmegaConf.create({"it": saved[name]})):
            raise InvalidOption(
                f"{override} is not what {folder.path} was trained with; a resumed run keeps its own {name}"
            )
    return saved


@dataclass(frozen=True, slots=True)
class Workbench:
    """What one training run works with."""

    config: DictConfig
    folder: RunFolder
    problem: Problem
    rule: Rule
    console: Console

    def record(self, schedule: Schedule, method: str, effort: Effort) -> TableRow:
        """Checks a schedule of the agent and records it; returns its line of the table."""
        schedule.check()
        row = Record.of(
            schedule,
            verb="train",
            method=method,
            effort=effort,
            problem_file=self.folder.problem.name,
            config=build.plain(self.config),
        )
        append(self.folder.records, row)
        return row_of_record(row, by_makespan=True)

    def baselines(self) -> list[TableRow]:
        """Runs the baselines that the folder does not hold yet."""
        done = {}
        if self.folder.records.exists():
            rows = [row_of_record(at.record, by_makespan=True) for at in read(self.folder.records)]
            done = {row.method: row for row in rows if row.is_baseline}
        missing = {n: f for n, f in build.build_baselines(self.config, self.rule).items() if n not in done}
        fresh = run_baselines(
            self.problem,
            missing,
            self.folder,
            verb="train",
            config=build.plain(self.config),
            console=self.console,
            by_makespan=True,
        )
        return [row for name, row in done.items() if name in self.config.baseline] + fresh


def results(bench: Workbench, agent: Agent, learned: Update | None, bound: float) -> tuple[list[TableRow], Schedule]:
    """The agent's lines of the table (greedy placement, best placement) and the better of the two schedules.

    Raises:
        InfeasiblePlacement: The agent has no feasible placement at all.
    """
    name = str(bench.config.agent_name)
    calls, seconds = (learned.simulator_calls, learned.seconds) if learned is not None else (1, 0.0)
    greedy, best_order = greedy_priority(agent), None if learned is None else learned.best_priority
    effort = Effort(
        lower_bound_s=bound,
        simulator_calls=calls,
        seconds=seconds,
        seed=bench.config.seed,
        own_order=greedy is not None or best_order is not None,
    )
    schedules, rows, reason = [], [], f"{name} has found no feasible placement of {bench.problem.name}"
    try:
        schedules.append(schedule_of(bench.problem, agent.act_greedy(), bench.rule, greedy))
        rows.append(bench.record(schedules[0], f"{name} (greedy)", effort))
    except InfeasiblePlacement as error:
        rows.append(nothing_found(f"{name} (greedy)", is_baseline=False))
        reason = f"{reason}: {error}"
    if learned is not None and math.isfinite(learned.best_makespan_s):
        schedules.append(schedule_of(bench.problem, learned.best_op_device, bench.rule, best_order))
    if not schedules:
        raise InfeasiblePlacement(reason)
    best = min(schedules, key=lambda schedule: schedule.makespan_s)
    rows.append(bench.record(best, name, effort))
    return rows, best


def equal_calls(bench: Workbench, simulator_calls: int) -> list[TableRow]:
    """The result of simulated annealing with as many simulator calls as the agent had."""
    # Fewer are no search: annealing spends some on its start.
    if not bench.config.equal_calls or simulator_calls < 100:
        return []
    anneal = partial(simulated_annealing, rule=bench.rule, simulator_calls=simulator_calls, seed=int(bench.config.seed))
    return run_baselines(
        bench.problem,
        {"simulated_annealing (equal calls)": anneal},
        bench.folder,
        verb="train",
        config=build.plain(bench.config),
        console=bench.console,
    )


def draw_all(bench: Workbench, best: Schedule, rows: Sequence[TableRow], bound: float) -> None:
    """Gantt chart, trace, learning curve and table."""
    folder = bench.folder
    save_gantt(best, folder.gantt)
    save_chrome_trace(best, folder.trace)
    curve = read_metrics(folder.metrics) if folder.metrics.exists() else []
    baselines = [row for row in rows if row.is_baseline]
    save_png(draw({str(bench.config.agent_name): curve}, baselines, bound, bench.problem.name), folder.curve)
    write_text(
        folder.table,
        markdown(headings("makespan"), cells(rows, bound))
        + "\n"
        + "\n".join([*verdict(rows), order_note(bench.rule)])
        + "\n",
    )


def run(config: DictConfig) -> int:
    """Trains, compares, records, draws; Ctrl-C ends the training early and still does the rest."""
    folder, resumed = folder_of(config)
    if resumed:
        config = resumed_config(config, folder, HydraConfig.get().overrides.task)
    console = wide_console()
    budget = Budget(**config.budget)
    build.set_torch_threads(config.torch_threads)
    rule = build.build_rule(config)
    problem = Problem.load(folder.problem) if resumed else build.build_problem(config)
    bench = Workbench(config, folder, problem, rule, console)
    problem.save(folder.problem)
    write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    console.print(describe(problem, config.rule), highlight=False)
    bound = lower_bound_s(problem)
    name = f"{config.agent_name} on {problem.name}, seed {config.seed}"
    vec_env = build.build_vector_env(config, problem, rule)
    if resumed:
        agent = build.load_agent(config, folder.checkpoint, vec_env)
        rewind_metrics(folder.metrics, agent.simulator_calls)
    else:
        agent = build.build_agent(config, vec_env)
        build.teach(agent, config, problem, rule)
    with Tracker(folder, build.plain(config), instantiate(config.tracking), name) as tracker:
        rows = bench.baselines()
        learned, interrupted = learn(
            agent, budget, tracker, checkpoint_every_s=config.checkpoint_every_s, console=console
        )
        agent_rows, best = results(bench, agent, learned, bound)
        if not interrupted:
            rows += equal_calls(bench, agent_rows[0].simulator_calls)
        rows += agent_rows
        draw_all(bench, best, rows, bound)
        tracker.log(final_metrics(agent_rows, bound))
        tracker.baselines([row for row in rows if row.is_baseline], bound)
        tracker.finish(rows, bound)
    vec_env.close()
    say(bench, rows, bound, tracker.wandb_folder)
    if interrupted:
        again = f"python -m experiments.train resume={relative(folder.path)}"
        console.print(f"Interrupted; go on with: {again}", highlight=False, soft_wrap=True)
    return 0


def final_metrics(agent_rows: Sequence[TableRow], bound: float) -> dict[str, float]:
    """The metrics whose names begin with eval/; `agent_rows` are those of the greedy and of the best placement."""
    greedy, best = agent_rows
    return {
        "eval/makespan_s": best.objective_s,
        "eval/greedy_makespan_s": greedy.objective_s,
        "eval/ratio_to_lower_bound": best.objective_s / bound if bound > 0 else float("nan"),
        "eval/simulator_calls": best.simulator_calls,
        "eval/seconds": best.seconds,
    }


def relative(path: Path) -> Path:
    """The path as a user in the current folder would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def say(bench: Workbench, rows: Sequence[TableRow], bound: float, wandb_folder: Path | None) -> None:
    """Prints the table, which method is better, and the files."""
    folder, console = bench.folder, bench.console
    agents = {row.method for row in rows if not row.is_baseline}
    title = f"{bench.problem.name}, rule {bench.config.rule}"
    console.print(terminal(title, headings("makespan"), cells(rows, bound), bold=agents))
    for sentence in verdict(rows):
        console.print(sentence, highlight=False, soft_wrap=True)
    files = {
        folder.records: "results, each enough to be simulated again (python -m experiments.validate)",
        folder.metrics: "learning curve, one JSON row per update",
        folder.curve: "learning curve, drawn",
        folder.gantt: "Gantt chart of the best schedule",
        folder.trace: "the best schedule for ui.perfetto.dev or chrome://tracing",
        folder.checkpoint: "the agent",
        folder.problem: "the problem",
        folder.table: "this table",
        folder.config: "the whole configuration",
    }
    if wandb_folder is not None:
        files[wandb_folder] = "Weights & Biases run (offline: send it with `wandb sync`)"
    console.print("\nWritten:", highlight=False)
    for file, what in files.items():
        console.print(f"  {relative(file)}  {what}", highlight=False, soft_wrap=True)


main = command("train")(run)

if __name__ == "__main__":
    sys.exit(main(None))
