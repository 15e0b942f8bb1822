"""Row and the tables of results: on the terminal and as Markdown."""

import math
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.record import Record
from placement_gym.methods import METHODS
from placement_gym.objectives import Objective
from placement_gym.rule import Rule

# A proven gap says more than calls of a simulator that a method for another objective does not make.
OTHER = {"makespan": "simulator calls", "max_load": "gap", "gpipe_load": "gap", "latency": "gap"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One line of a comparison (fields as in `Record`).

    Attributes:
        objective: What is compared.
        objective_s: Its value, `inf` where the method found no feasible placement.
        lower_bound_s: What the method has proved; of placements of the kind `restricted_to` alone where that is given.
        is_baseline: Whether a solver found it (not an agent).
        by_b_level: Whether ready work is taken in b-level order for want of an order of the method's own.
    """

    method: str
    objective: Objective
    objective_s: float
    lower_bound_s: float
    simulator_calls: int
    seconds: float
    status: str
    is_baseline: bool
    restricted_to: str | None = None
    by_b_level: bool = False


def wide_console() -> Console:
    """The terminal; 120 columns where output goes to a file or a pipe."""
    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=120)


def headings(objective: Objective) -> tuple[str, ...]:
    """The column headings of a comparison by this objective."""
    return ("method", f"{objective.replace('_', '-')} (ms)", "ratio to best", OTHER[objective], "seconds", "status")


def row_of_record(record: Record, *, by_makespan: bool = False) -> TableRow:
    """A recorded result as a line of the table, by its own objective or `by_makespan` whatever that was."""
    own = not by_makespan or record.objective == "makespan"
    proved_s = record.lower_bound_s if record.class_lower_bound_s is None else record.class_lower_bound_s
    return TableRow(
        method=record.method,
        objective=record.objective if own else "makespan",
        objective_s=record.objective_s if own else record.makespan_s,
        lower_bound_s=proved_s if own else 0.0,
        simulator_calls=record.simulator_calls,
        seconds=record.seconds,
        status=record.status if own else "feasible",
        is_baseline=is_baseline(record),
        restricted_to=record.restricted_to if own else None,
        by_b_level=record.priority is not None and not record.own_order,
    )


def is_baseline(record: Record) -> bool:
    """Whether a solver found it: the name is a baseline's, or a key of `baseline` in the configuration.

    A key need not be the function's name: two entries may call one function with other options.
    """
    name = record.method.partition(" (")[0]
    return name in METHODS or name in (record.config.get("baseline") or ())


def number(value: float) -> str:
    """Four significant digits; whole numbers with thousands separators from 1,000 on."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.4g}"


def cells(rows: Sequence[TableRow], lower_bound_s: float | None) -> list[tuple[str, ...]]:
    """Lines of a comparison by one objective, best first; of statuses, only those that say something.

    The last line is the lower bound, if there is one for all methods.
    """
    best = min(row.objective_s for row in rows)

    def times(seconds: float) -> tuple[str, str]:
        if not math.isfinite(seconds):
            return "-", "-"
        return f"{seconds * 1e3:,.4f}", f"{seconds / best:.3f}" if best > 0 else "-"

    lines: list[tuple[str, ...]] = []
    for row in sorted(rows, key=lambda row: row.objective_s):
        says_nothing = row.status in ("feasible", "budget_exhausted")
        status = ", ".join(([] if says_nothing else [status_of(row)]) + (["b-level order"] if row.by_b_level else []))
        other = f"{row.simulator_calls:,}" if row.objective == "makespan" else gap(row)
        lines.append((row.method, *times(row.objective_s), other, f"{row.seconds:,.2f}", status))
    return lines if lower_bound_s is None else [*lines, ("(lower bound)", *times(lower_bound_s), "", "", "")]


def order_note(rule: Rule) -> str:
    """One sentence for a table: in which order ready work is taken."""
    if rule.queue == "priority":
        return (
            "Queue `priority`: each method is simulated in its own order, one that decides none in b-level order "
            "(its status says so)."
        )
    first = "first" if rule.queue == "fifo" else "last"
    return f"Queue `{rule.queue}`: what is ready {first} runs first; orders that methods decide do not count."


def status_of(row: TableRow) -> str:
    """The status in words, with the kind of placements that it speaks of."""
    return row.status.replace("_", " ") + (f" among {row.restricted_to}" if row.restricted_to else "")


def gap(row: TableRow) -> str:
    """What the method itself has left open (of its kind of placements), in percent of its value."""
    if row.status not in ("optimal", "limit_reached"):
        return ""
    return f"{100 * (1 - row.lower_bound_s / row.objective_s):.2f} %" if row.objective_s > 0 else "0.00 %"


def terminal(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], *, bold: Collection[str] = ()
) -> Table:
    """A table for the terminal, narrow enough for 80 columns; lines whose first cell is in `bold` stand out."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    # In most tables no status says anything; without the column they fit 80 columns.
    shown = [i for i, name in enumerate(headings) if name != "status" or any(line[i] for line in lines)]
    for heading in (headings[i] for i in shown):
        justify: Literal["left", "right"] = "left" if heading in ("method", "instance", "status") else "right"
        table.add_column(heading.replace(" ", "\n"), justify=justify, no_wrap=True)
    for line in lines:
        table.add_row(*(line[i] for i in shown), style="bold" if line[0] in bold else None)
    return table


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    head = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def verdict(rows: Sequence[TableRow]) -> list[str]:
    """One sentence per baseline that the best agent does not beat, or that it beats them all."""
    agents, baselines = [r for r in rows if not r.is_baseline], [r for r in rows if r.is_baseline]
    if not agents or not baselines:
        return []
    agent = min(agents, key=lambda row: row.objective_s)
    said = []
    for row in sorted(baselines, key=lambda row: row.objective_s):
        effort = _effort(row)
        if row.objective_s < agent.objective_s:
            share = 100 * (agent.objective_s / row.objective_s - 1)
            said.append(
                f"{row.method} ({effort}) is better than {agent.method}: {agent.method} takes {share:.1f}% longer."
            )
        elif row.objective_s == agent.objective_s:
            said.append(f"{row.method} ({effort}) is as good as {agent.method}.")
    if not said:
        said.append(f"{agent.method} is better than every baseline here.")
    return [*said, f"({agent.method} spent {_effort(agent)}.)"]


def _effort(row: TableRow) -> str:
    calls = "call" if row.simulator_calls == 1 else "calls"
    return f"{row.simulator_calls:,} simulator {calls}, {row.seconds:,.1f} s"
