"""report: tables and figures from recorded rows; nothing is typed by hand.

python -m experiments.report records=outputs
python -m experiments.report readme=true
"""

import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.command import CONF, command
from experiments.curves import draw, save_png
from experiments.folder import RunFolder
from experiments.record import Record, RecordedAt, read
from experiments.table import TableRow, markdown, number, row_of_record, terminal, wide_console
from experiments.tracking import read_metrics
from placement_gym.bounds import lower_bound_s
from placement_gym.errors import InvalidFile
from placement_gym.files import write_text
from placement_gym.objectives import Objective
from placement_gym.rule import PRESETS, Rule

README = CONF.parent / "README.md"
BLOCK = re.compile(r"(<!-- figures -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)
# <!-- table <file> "<beginning of a section's title>" ... -->, where the sections of the file are put.
TABLE = re.compile(r'(<!-- table (\S+)((?: "[^"]+")+) -->\n).*?(<!-- /table -->)', re.DOTALL)
OTHER_COLUMNS = ("simulator calls", "seconds", "runs")
FIGURE_FORMAT = "placement_gym.figure.v1"


@dataclass(frozen=True, slots=True)
class TrialComparison:
    """All results on one problem for one objective, with makespans under one rule.

    Attributes:
        title: Workload and rule.
        objective: What is compared.
        method_rows: Results by method, one per run.
        lower_bound_s: No placement is better.
    """

    title: str
    objective: Objective
    method_rows: dict[str, list[RecordedAt]]
    lower_bound_s: float


def rule_name(rule: Rule) -> str:
    """The preset's name, or the options."""
    return next((name for name, preset in PRESETS.items() if preset == rule), str(rule))


def comparisons(rows: Sequence[RecordedAt]) -> list[TrialComparison]:
    """Rows by problem, objective and rule; of a run that was resumed, a method's last result counts."""
    last = {(row.file, row.record.method): row for row in rows}
    grouped: dict[tuple[str, Objective, str], list[RecordedAt]] = defaultdict(list)
    for row in last.values():
        # Other objectives than the makespan do not depend on the simulator's rule.
        rule = f", rule {rule_name(row.record.resolve_rule())}" if row.record.objective == "makespan" else ""
        grouped[row.record.fingerprint, row.record.objective, rule].append(row)
    found = []
    for (_, objective, rule), group in sorted(grouped.items(), key=lambda item: (item[1][0].record.workload, item[0])):
        by_method: dict[str, list[RecordedAt]] = defaultdict(list)
        for row in group:
            by_method[row.record.method].append(row)
        first: Record = group[0].record
        # What an exact method has proved of its own kind of placement (contiguous ones) need not hold for others.
        bound = lower_bound_s(group[0].load_problem(), objective)
        if objective == "makespan":
            bound = max(bound, *(row.record.lower_bound_s for row in group))
        found.append(TrialComparison(f"{first.workload}{rule}", objective, dict(by_method), bound))
    return found


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 of one value)."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def headings(objective: Objective) -> tuple[str, ...]:
    """The column headings of a comparison over runs."""
    return ("method", f"{objective.replace('_', '-')} (ms)", "spread", "ratio to best", *OTHER_COLUMNS)


def lines_of(comparison: TrialComparison) -> list[tuple[str, ...]]:
    """One line per method, best mean first; the spread is over runs (seeds), their number in the last column."""
    stats = {
        method: mean_and_spread([row.record.objective_s for row in rows])
        for method, rows in comparison.method_rows.items()
    }
    best = min(mean for mean, _ in stats.values())
    lines = []
    for method, (mean, spread) in sorted(stats.items(), key=lambda item: item[1]):
        rows = comparison.method_rows[method]
        calls, _ = mean_and_spread([row.record.simulator_calls for row in rows])
        seconds, _ = mean_and_spread([row.record.seconds for row in rows])
        ratio = f"{mean / best:.3f}" if best > 0 else "-"
        lines.append(
            (
                method,
                f"{mean * 1e3:,.4f}",
                f"± {spread * 1e3:.2g}" if len(rows) > 1 else "",
                ratio,
                f"{calls:,.0f}",
                f"{seconds:,.2f}",
                str(len(rows)),
            )
        )
    bound = comparison.lower_bound_s
    last = ("(lower bound)", f"{bound * 1e3:,.4f}", "", f"{bound / best:.3f}" if best > 0 else "-", "", "", "")
    return [*lines, last]


def draw_curves(comparison: TrialComparison, path: Path) -> bool:
    """Draws the learning curves of a comparison's runs; returns False, and draws nothing, if none of them learned."""
    rows = [row for group in comparison.method_rows.values() for row in group]
    curves = {}
    for row in rows:
        metrics = row.file.parent / "metrics.jsonl"
        method = row.record.method
        if row.record.verb == "train" and metrics.exists() and method == row.record.config.get("agent_name"):
            curves[f"{method}, seed {row.record.seed}, {row.file.parent.name}"] = read_metrics(metrics)
    if not curves:
        return False
    best: dict[str, TableRow] = {}
    for row in rows:
        line = row_of_record(row.record)
        if line.is_baseline and line.objective_s <= best.get(line.method, line).objective_s:
            best[line.method] = line
    save_png(draw(curves, list(best.values()), comparison.lower_bound_s, comparison.title), path)
    return True


def read_figures(path: Path) -> list[dict[str, Any]]:
    """The newest row of each figure below `path`, in the order of their names.

    Raises:
        InvalidFile: A malformed row (the message says file:line).
    """
    latest: dict[str, dict[str, Any]] = {}
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InvalidFile(f"cannot read figures: {error}") from error
        for i, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidFile(f"{file}:{i}: not a JSON row, or truncated ({error})") from error
            if not isinstance(row, dict) or row.get("format") != FIGURE_FORMAT:
                raise InvalidFile(f"{file}:{i}: not a row of format {FIGURE_FORMAT!r}")
            latest[row["name"]] = row
    return [latest[name] for name in sorted(latest)]


def rounded(value: object) -> str:
    """What a figure was measured on, as a table shows it; numbers have four digits, in lists and mappings as well."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(rounded(one) for one in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} {rounded(one)}' for key, one in value.items())}}}"
    return str(value)


def figures_table(figures: Sequence[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = []
    for row in figures:
        said = {None: "", True: "holds", False: "**missed**"}[row["holds"]]
        context = ", ".join(f"{key} {rounded(value)}" for key, value in row["context"].items())
        sign, _, target = (row["target"] or "").partition(" ")
        asked = f"{sign} {target if len(target) <= 8 else rounded(float(target))}".strip()
        lines.append((row["name"], f"{number(row['value'])} {row['unit']}".strip(), asked, said, context))
    return markdown(("figure", "measured", "target", "", "of"), lines)


def sections_of(table: Path, titles: Sequence[str]) -> str:
    """The sections (# ... or ## ...) of a file of tables whose titles begin with `titles`, in the order of these.

    Raises:
        InvalidFile: No title of the file begins with one of `titles`.
    """
    sections = re.split("^##? ", table.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = []
    for title in titles:
        section = next((one for one in sections if one.startswith(title)), None)
        if section is None:
            raise InvalidFile(
                f"{table} has no section {title!r}; expected one of {[s.splitlines()[0] for s in sections]}"
            )
        name, _, text = section.partition("\n")
        found.append(f"**{name}**\n\n{text.strip()}\n")
    return "\n".join(found)


def merged(shown: str, measured: str) -> str:
    """The table `shown` with the rows of `measured` added, or in place of its own of the same name (the first cell)."""
    lines = measured.splitlines()
    head, by_name = lines[:2], {row.split(" | ")[0]: row for row in [*shown.splitlines()[2:], *lines[2:]]}
    return "\n".join([*head, *(by_name[name] for name in sorted(by_name))]) + "\n"


def rewrite_readme(figures: Sequence[dict[str, Any]], readme: Path) -> None:
    """Replaces what stands between the markers of the README: figures that were measured, tables whose files exist.

    Raises:
        InvalidFile: The markers are missing, or a table lacks a section.
    """

    def renewed(match: re.Match[str]) -> str:
        table = Path(match[2])
        return (
            match[1] + sections_of(table, re.findall('"([^"]+)"', match[3])) + match[4] if table.exists() else match[0]
        )

    text = readme.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise InvalidFile(f"{readme} lacks the markers <!-- figures --> and <!-- /figures -->")
    text = BLOCK.sub(lambda match: match[1] + merged(match[2], figures_table(figures)) + match[3], text)
    write_text(readme, TABLE.sub(renewed, text))


def run(config: DictConfig) -> int:
    """Prints every comparison and the figures; writes them to `config.out`.

    Raises:
        InvalidFile: Nothing was recorded, or a row is malformed.
    """
    console, out = wide_console(), RunFolder.at(Path(config.out)).path
    records, bench = Path(config.records), Path(config.figures)
    figures = read_figures(bench) if bench.exists() else []
    if config.readme:
        rewrite_readme(figures, README)
        console.print(f"rewrote the figures of {README}", highlight=False)
    rows = read(records)
    if not rows and not figures:
        raise InvalidFile(f"nothing to report: no records.jsonl below {records}, no figures in {bench}")
    text = []
    for i, comparison in enumerate(comparisons(rows)):
        lines = lines_of(comparison)
        console.print(terminal(comparison.title, headings(comparison.objective), lines))
        picture = f"curves_{i}.png"
        drawn = f"\n![learning curves]({picture})\n" if draw_curves(comparison, out / picture) else ""
        text.append(f"## {comparison.title}\n\n{markdown(headings(comparison.objective), lines)}{drawn}")
    if figures:
        console.print(figures_table(figures), highlight=False, soft_wrap=True)
        text.append(f"## Figures\n\n{figures_table(figures)}")
    write_text(out / "report.md", "\n".join(text))
    console.print(f"wrote {out / 'report.md'}", highlight=False)
    return 0


main = command("report")(run)

if __name__ == "__main__":
    sys.exit(main(None))
