"""solve: baselines place a workload.

python -m experiments.solve baseline=heft workload=pytorch cluster=4xp100_pcie
python -m experiments.solve baseline=[heft,simulated_annealing] baseline.simulated_annealing.simulator_calls=200000
python -m experiments.solve -m baseline=heft,m_etf seed=0,1,2
python -m experiments.solve experiment=dnn_partitioning_throughput
"""

import math
import sys
from collections.abc import Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments import build, instances, table
from experiments.baselines import run_baselines
from experiments.command import command
from experiments.folder import RunFolder
from experiments.table import TableRow
from experiments.tracking import Tracker
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InfeasiblePlacement
from placement_gym.files import write_text
from placement_gym.objectives import Objective
from placement_gym.problem import Problem


def by_objective(rows: Sequence[TableRow]) -> dict[Objective, list[TableRow]]:
    """The rows of each objective; methods that found nothing go with the first that found something."""
    found = [row for row in rows if math.isfinite(row.objective_s)]
    groups: dict[Objective, list[TableRow]] = {}
    for row in rows:
        groups.setdefault((row if row in found else found[0]).objective, []).append(row)
    return groups


def describe(problem: Problem, rule: object) -> str:
    """One line about the problem, for the head of a run."""
    graph = problem.graph
    return f"{problem.name}: {graph.n_ops:,} ops, {graph.n_edges:,} edges, {problem.n_devices} devices; rule {rule}"


def run(config: DictConfig) -> int:
    """Runs the configured baselines on the workload, or on every instance; writes records and the table."""
    if config.instances is not None:
        return instances.run(config)
    console = table.wide_console()
    folder = RunFolder.of_hydra()
    rule = build.build_rule(config)
    baselines = build.build_baselines(config, rule)
    problem = build.build_problem(config)
    whole = build.plain(config)
    write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    problem.save(folder.problem)
    console.print(describe(problem, config.rule), highlight=False)
    tracking = instantiate(config.tracking)
    with Tracker(folder, whole, tracking, name=f"solve {problem.name} seed {config.seed}") as tracker:
        rows = run_baselines(problem, baselines, folder, verb="solve", config=whole, console=console)
        if not any(math.isfinite(row.objective_s) for row in rows):
            raise InfeasiblePlacement(f"{', '.join(baselines)}: no feasible placement of {problem.name} was found")
        tracker.baselines(rows, lower_bound_s(problem))
        tracker.finish(rows, lower_bound_s(problem))
    text = []
    for objective, group in by_objective(rows).items():
        bound = lower_bound_s(problem, objective)
        lines, columns = table.cells(group, bound), table.headings(objective)
        text.append(table.markdown(columns, lines))
        console.print(table.terminal(problem.name, columns, lines))
    console.print(table.order_note(rule), highlight=False)
    write_text(folder.table, "\n".join([*text, table.order_note(rule) + "\n"]))
    console.print(f"wrote {folder.path}/: {', '.join(sorted(p.name for p in folder.path.iterdir()))}", highlight=False)
    return 0


main = command("solve")(run)

if __name__ == "__main__":
    sys.exit(main(None))
