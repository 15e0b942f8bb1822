"""evaluate: a trained agent places its workload.

python -m experiments.evaluate run=outputs/train/<run>
python -m experiments.evaluate run=outputs/train/<run> samples=4096 seed=1
"""

import sys
import time
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments import build
from experiments.command import command
from experiments.folder import RunFolder, write_text
from experiments.record import Effort, Record, append
from experiments.solve import describe
from experiments.table import HEADINGS, cells, markdown, row_of_record, terminal, wide_console
from experiments.tracking import Tracker
from placement_gym.baselines import lower_bound_s
from placement_gym.errors import InvalidFile
from placement_gym.problem import Problem
from placement_gym.render import save_chrome_trace, save_gantt
from placement_gym.simulator import simulate


def run_of(config: DictConfig) -> DictConfig:
    """The configuration of the training run.

    Raises:
        InvalidFile: The folder holds none.
    """
    path = RunFolder(Path(config.run)).config
    if not path.exists():
        raise InvalidFile(f"{config.run} is no training run: it holds no {path.name}")
    trained = OmegaConf.load(path)
    assert isinstance(trained, DictConfig)
    trained.torch_device = config.torch_device
    return trained


def run(config: DictConfig) -> int:
    """Places with the policy's most likely choices and records the schedule."""
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
    bound, start = lower_bound_s(problem), time.perf_counter()
    schedule, calls = simulate(problem, agent.act_greedy(), rule=rule), 1
    schedule.check()
    effort = Effort(
        lower_bound_s=bound, simulator_calls=calls, seconds=time.perf_counter() - start, seed=int(config.seed)
    )
    method = f"{trained.agent_name} (greedy)"
    row = Record.of(
        schedule, verb="evaluate", method=method, effort=effort, problem_file=folder.problem.name, config=whole
    )
    append(folder.records, row)
    save_gantt(schedule, folder.gantt)
    save_chrome_trace(schedule, folder.trace)
    rows = [row_of_record(row)]
    with Tracker(folder, whole, instantiate(config.tracking), f"evaluate {method} on {problem.name}") as tracker:
        tracker.log(
            {
                "eval/makespan_s": schedule.makespan_s,
                "eval/greedy_makespan_s": schedule.makespan_s,
                "eval/ratio_to_lower_bound": schedule.makespan_s / bound if bound > 0 else float("nan"),
                "eval/simulator_calls": calls,
                "eval/seconds": effort.seconds,
            }
        )
        tracker.finish(rows, bound)
    vec_env.close()
    write_text(folder.table, markdown(HEADINGS, cells(rows, bound)))
    console.print(terminal(problem.name, HEADINGS, cells(rows, bound)))
    console.print(f"wrote {folder.path}", highlight=False)
    return 0


main = command("evaluate")(run)

if __name__ == "__main__":
    sys.exit(main(None))
