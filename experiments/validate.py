"""validate: every recorded placement is simulated and evaluated again and must give what the record says.

python -m experiments.validate records=outputs
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from experiments.command import command
from experiments.record import RecordedAt, read
from experiments.table import wide_console
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InvalidFile, PlacementGymError
from placement_gym.objectives import objective_s
from placement_gym.simulator import simulate

# The simulator is deterministic to the last bit; another machine's libraries may round a bound otherwise. A solver that
# proves its placement optimal records a higher bound than the cheap one.
TOLERANCE = 1e-9


def mismatch(row: RecordedAt) -> str | None:
    """Why the record does not hold, or None if it does."""
    record = row.record
    try:
        problem = row.load_problem()
        schedule = simulate(problem, record.op_device, rule=record.resolve_rule(), priority=record.priority)
        schedule.check()
        value = objective_s(record.objective, schedule, record.op_subgraph)
    except PlacementGymError as error:
        return " ".join(str(error).split())
    if schedule.makespan_s != record.makespan_s:
        return (
            f"makespan_s is recorded as {record.makespan_s!r}; simulating the placement gives {schedule.makespan_s!r}"
        )
    if abs(value - record.objective_s) > TOLERANCE * value:
        return f"objective_s ({record.objective}) is recorded as {record.objective_s!r}; the placement gives {value!r}"
    bound = lower_bound_s(problem, record.objective)
    if not bound * (1 - TOLERANCE) <= record.lower_bound_s <= value * (1 + TOLERANCE):
        return f"lower_bound_s is recorded as {record.lower_bound_s!r}; expected {bound!r} to {value!r}"
    return None


def run(config: DictConfig) -> int:
    """Checks every record; 0 if all hold, 1 otherwise.

    Raises:
        InvalidFile: A malformed row, or no record at all.
    """
    rows = read(Path(config.records))
    if not rows:
        raise InvalidFile(f"no records.jsonl below {config.records}")
    wrong = 0
    for row in rows:
        reason = mismatch(row)
        if reason is not None:
            wrong += 1
            print(f"{row.where}: {row.record.method} on {row.record.workload}: {reason}", file=sys.stderr)
    files = len({row.file for row in rows})
    wide_console().print(f"{len(rows) - wrong} of {len(rows)} records in {files} files hold", highlight=False)
    return 1 if wrong else 0


main = command("validate")(run)

if __name__ == "__main__":
    sys.exit(main(None))
