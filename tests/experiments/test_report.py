"""Figures: recorded by benchmarks, printed as a table, put into the README between its markers."""

import json
from pathlib import Path

import pytest
from benchmarks.conftest import holds

from experiments import report
from placement_gym.errors import InvalidFile
from placement_gym.files import write_text

ROW = {
    "format": report.FIGURE_FORMAT, "name": "kernel over C loop", "value": 1.25, "unit": "x", "target": "<= 1.5",
    "holds": True, "context": {"n_ops": 1000, "rule": "giph"}, "benchmark": "b", "cores": 2, "time": "now",
}  # fmt: skip


def _write(folder: Path, name: str, *rows: dict[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    return write_text(folder / name, "".join(json.dumps(row) + "\n" for row in rows))


def test_the_newest_row_of_a_figure_counts(tmp_path: Path) -> None:
    """Files are named by time; a later benchmark replaces an earlier one."""
    _write(tmp_path, "2026-01-01.jsonl", {**ROW, "value": 9.0, "holds": False}, {**ROW, "name": "another"})
    _write(tmp_path, "2026-01-02.jsonl", ROW)
    figures = report.read_figures(tmp_path)
    assert [(row["name"], row["value"]) for row in figures] == [("another", 1.25), ("kernel over C loop", 1.25)]


def test_figures_are_printed_from_their_rows(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Value, unit, target, whether it holds, and of what."""
    context = {"seconds": {"a": 1 / 3, "b": [2e6, 12]}, "kind": "mean"}
    missed = {
        **ROW,
        "name": "speed-up on two cores",
        "value": 1.5,
        "target": ">= 1.8",
        "holds": False,
        "context": context,
    }
    _write(workbench / "bench", "a.jsonl", ROW, missed)
    (workbench / "outputs").mkdir()
    assert report.main(["figures=bench"]) == 0
    out = capsys.readouterr().out
    assert "| kernel over C loop | 1.25 x | <= 1.5 | holds | n_ops 1000, rule giph |" in out
    assert "| 1.5 x | >= 1.8 | **missed** | seconds {a 0.3333, b [2,000,000, 12]}, kind mean |" in out


def test_the_readme_is_rewritten_between_its_markers(tmp_path: Path) -> None:
    """All else stays as it is, figures too that were measured elsewhere, and twice is once."""
    readme = write_text(tmp_path / "README.md", "# a\n<!-- figures -->\n<!-- /figures -->\nz\n")
    report.rewrite_readme([ROW | {"name": "zz, measured elsewhere"}, ROW | {"value": 7.0}], readme)
    assert "| 7 " in readme.read_text()
    for _ in range(2):
        report.rewrite_readme([ROW, ROW | {"name": "aa"}], readme)
    text = readme.read_text()
    assert text.startswith("# a\n<!-- figures -->\n| figure |")
    assert text.endswith("|\n<!-- /figures -->\nz\n")
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["| figure", "| aa", f"| {ROW['name']}", "| zz, measured elsewhere"]
    assert "| 7 " not in text
    assert report.BLOCK.search(report.README.read_text())


def test_tables_that_are_there_are_put_where_the_readme_names_them(workbench: Path) -> None:
    """Sections by the beginning of their titles, in the order asked for; what is not there stays as it was."""
    (workbench / "out").mkdir()
    write_text(
        workbench / "out" / "table.md",
        "# Best (s)\n\n| a |\n|---|\n| 1 |\n\n## Seconds\n\nno\n\n## In words\n\n- yes\n",
    )
    block = '<!-- table out/table.md "In words" "Best" -->\nold\n<!-- /table -->\n'
    absent = '<!-- table out/absent.md "Best" -->\nkept\n<!-- /table -->\n'
    readme = write_text(workbench / "README.md", f"<!-- figures -->\n<!-- /figures -->\n{block}{absent}z\n")
    report.rewrite_readme([ROW], readme)
    _, _, text = readme.read_text().partition("<!-- /figures -->\n")
    told = "**In words**\n\n- yes\n\n**Best (s)**\n\n| a |\n|---|\n| 1 |\n"
    assert text == block.replace("old\n", told) + absent + "z\n"
    write_text(workbench / "out" / "table.md", "## Worst\n")
    with pytest.raises(InvalidFile, match=r"no section 'In words'; expected one of \['Worst'\]"):
        report.rewrite_readme([ROW], readme)


def test_a_malformed_figure_is_named_by_file_and_line(tmp_path: Path) -> None:
    """As with records."""
    path = _write(tmp_path, "a.jsonl", ROW)
    path.write_text(path.read_text() + '{"format": ')
    with pytest.raises(InvalidFile, match=r"a\.jsonl:2: .*truncated"):
        report.read_figures(tmp_path)


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [(1.5, "<= 1.5", True), (1.51, "<= 1.5", False), (2, ">= 1.8", True), (3, "< 3", False), (1, None, None)],
)
def test_a_target_holds_or_not(value: float, target: str | None, expected: bool | None) -> None:
    """What `figure` of the benchmarks says."""
    assert holds(value, target) is expected


def test_a_target_of_another_form_is_refused() -> None:
    """A typing mistake must not count as held."""
    with pytest.raises(ValueError, match="about 3"):
        holds(1.0, "about 3")


def test_mean_and_spread_by_hand() -> None:
    """Sample standard deviation of 1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7."""
    mean, spread = report.mean_and_spread([1.0, 2.0, 6.0])
    assert mean == 3.0
    assert spread == pytest.approx(7**0.5)
    assert report.mean_and_spread([4.0]) == (4.0, 0.0)
