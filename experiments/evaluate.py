"""evaluate: a trained agent places its workload.

python -m experiments.evaluate run=outputs/train/<run>
python -m experiments.evaluate run=outputs/train/<run> samples=4096 seed=1
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from agents.agent import Agent
from experiments import build
from experiments.command import command
from experiments.folder import RunFolder
from experiments.record import Effort, Record, append
from experiments.solve import describe
from experiments.table import cells, headings, markdown, row_of_record, terminal, wide_console
from experiments.tracking import Tracker
from placement_gym.arrays import FloatArray, IntArray
from placement_gym.bounds import lower_bound_s
from placement_gym.envs.select_place import evaluation_rule
from placement_gym.errors import InvalidOption
from placement_gym.files import write_text
from placement_gym.problem import Problem
from placement_gym.render import save_chrome_trace, save_gantt
from placement_gym.rule import Rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import compile_problem, simulate


def run_of(config: DictConfig) -> DictConfig:
    """The configuration of the training run.

    Raises:
        InvalidFile: As `RunFolder.saved_config`.
    """
    trained = RunFolder(Path(config.run)).saved_config()
    trained.torch_device = config.torch_device
    return trained


def greedy_priority(agent: Agent) -> FloatArray | None:
    """float64 [n_ops]: ranks for the rule's queue that go with `agent.act_greedy()`, where the agent chooses them."""
    ranks: FloatArray | None = agent.greedy_priority() if hasattr(agent, "greedy_priority") else None
    return ranks


def schedule_of(problem: Problem, op_device: IntArray, rule: Rule, priority: FloatArray | None) -> Schedule:
    """The schedule of an agent's placement, ops that wait by `priority` (float64 [n_ops]) where it has chosen that."""
    if priority is None:
        return simulate(problem, op_device, rule=rule)
    return simulate(problem, op_device, rule=evaluation_rule(rule, "selection"), priority=priority)


def best_schedule(problem: Problem, placements: NDArray[np.int32], rule: Rule) -> Schedule:
    """The schedule of the feasible placement (int32 [B, n_ops]) of smallest makespan.

    Raises:
        InfeasiblePlacement: None of them is feasible.
    """
    makespans_s, excess_bytes = compile_problem(problem, rule).weigh(placements)
    return simulate(problem, placements[int(np.lexsort((makespans_s, excess_bytes))[0])], rule=rule)


def place(agent: Agent, problem: Problem, rule: Rule, *, samples: int, seed: int) -> dict[str, tuple[Schedule, Effort]]:
    """What the policy's most likely choices give, and the best of `samples` draws where there are any.

    Raises:
        InvalidOption: Draws of an agent that chooses the order, too.
    """
    priority = greedy_priority(agent)
    if samples > 0 and priority is not None:
        raise InvalidOption(f"samples is {samples}, but draws are evaluated without the order of selection; expected 0")
    ways: dict[str, Callable[[], NDArray[np.int32]]] = {"greedy": lambda: agent.act_greedy()[None]}
    if samples > 0:
        ways[f"best of {samples}"] = lambda: agent.act_sampled(samples, seed=seed)
    bound = lower_bound_s(problem)
    found = {}
    for way, draw in ways.items():
        start = time.perf_counter()
        placements = draw()
        if priority is None:
            schedule = best_schedule(problem, placements, rule)
        else:
            schedule = schedule_of(problem, placements[0], rule, priority)
        schedule.check()
        seconds = time.perf_counter() - start
        found[way] = (
            schedule,
            Effort(lower_bound_s=bound, simulator_calls=len(placements), seconds=seconds, seed=seed),
        )
    return found


def run(config: DictConfig) -> int:
    """Places with the trained policy and records the schedules."""
    console = wide_console()
    trained = run_of(config)
    folder = RunFolder.of_hydra()
    build.set_torch_threads(config.torch_threads)
    rule = build.build_rule(trained)
    if config.get("workload") is None:
        problem = Problem.load(RunFolder(Path(config.run)).problem)
    else:
        problem = build.build_problem(config)
    vec_env = build.build_vector_env(trained, problem, rule)
    agent = build.load_agent(trained, Path(config.checkpoint), vec_env)
    console.print(describe(problem, trained.rule), highlight=False)
    whole = {**build.plain(config), "trained": build.plain(trained)}
    problem.save(folder.problem)
    write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    found = place(agent, problem, rule, samples=int(config.samples), seed=int(config.seed))
    vec_env.close()
    rows = []
    for way, (schedule, effort) in found.items():
        method = f"{trained.agent_name} ({way})"
        row = Record.of(
            schedule, verb="evaluate", method=method, effort=effort, problem_file=folder.problem.name, config=whole
        )
        append(folder.records, row)
        rows.append(row_of_record(row))
    best, bound = min((schedule for schedule, _ in found.values()), key=lambda s: s.makespan_s), lower_bound_s(problem)
    save_gantt(best, folder.gantt)
    save_chrome_trace(best, folder.trace)
    name = f"evaluate {trained.agent_name} on {problem.name}"
    with Tracker(folder, whole, instantiate(config.tracking), name) as tracker:
        tracker.log(
            {
                "eval/makespan_s": best.makespan_s,
                "eval/greedy_makespan_s": rows[0].objective_s,
                "eval/ratio_to_lower_bound": best.makespan_s / bound if bound > 0 else float("nan"),
                "eval/simulator_calls": sum(row.simulator_calls for row in rows),
                "eval/seconds": sum(row.seconds for row in rows),
            }
        )
        tracker.finish(rows, bound)
    write_text(folder.table, markdown(headings("makespan"), cells(rows, bound)))
    console.print(terminal(problem.name, headings("makespan"), cells(rows, bound)))
    console.print(f"wrote {folder.path}", highlight=False)
    return 0


main = command("evaluate")(run)

if __name__ == "__main__":
    sys.exit(main(None))
