"""Every method on every instance of a folder: found, run, recorded, shown, and gone on with after an interrupt."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import placement_gym.baselines
from experiments import instances, solve, validate
from experiments.baselines import solve_and_record
from experiments.command import INTERRUPTED
from experiments.curves import save_png
from experiments.folder import RunFolder
from experiments.grid import TrialGrid, as_markdown, draw_ratios
from experiments.instances import find_instances
from experiments.record import read
from experiments.table import TableRow, is_baseline
from placement_gym.baselines import round_robin
from placement_gym.errors import InfeasiblePlacement, InvalidFile, InvalidOption, InvalidProblem
from placement_gym.problem import Problem
from placement_gym.result import Result
from placement_gym.workloads import layered

OUT = Path("outputs/dnn_partitioning_throughput")
CHEAP = "baseline=[round_robin,heft]"
LAYERS = "instances.pattern=throughput-inputs/LayerGraphs/*.json"


def _instance(path: Path, times_ms: list[float], *, memory: float = 100.0) -> None:
    """A chain for two accelerators and a CPU; every tensor takes a millisecond."""
    nodes = [{"id": i, "fpgaLatency": t, "cpuLatency": 10 * t, "size": 10} for i, t in enumerate(times_ms, start=1)]
    edges = [{"sourceId": i, "destId": i + 1, "cost": 1.0} for i in range(1, len(times_ms))]
    path.parent.mkdir(parents=True, exist_ok=True)
    devices = {"maxFPGAs": 2, "maxCPUs": 1, "maxSizePerFPGA": memory}
    path.write_text(json.dumps({"nodes": nodes, "edges": edges, **devices}))


@pytest.fixture
def folder(workbench: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three instances as the paper's are laid out; an expert has split `chain`, whose layers it knows."""
    # Drawing takes half of the time of a run this small; one test draws.
    monkeypatch.setattr(instances, "save_png", lambda *_: None)
    root = workbench / "published"
    _instance(root / "throughput-inputs/LayerGraphs/chain.json", [4.0, 2.0, 6.0])
    _instance(root / "throughput-inputs/LayerGraphs/other.json", [3.0, 3.0, 3.0, 3.0])
    _instance(root / "throughput-inputs/OperatorGraphs/chain.json", [1.0, 2.0, 3.0, 4.0, 5.0])
    split = {"fpgas": [{"nodes": ["1", "2"]}, {"nodes": ["3"]}], "cpus": []}
    (root / "human-experts").mkdir()
    (root / "human-experts/chain_expert.json").write_text(json.dumps(split))
    return root


def _solve(folder: Path, *overrides: str) -> int:
    # The integer programmes are many and slow, and tested where they are.
    without = ["~baseline.ilp", "~baseline.ilp_free", "~baseline.ilp_gpipe"]
    arguments = [f"instances.folder={folder}", "tracking.wandb=disabled", *without, *overrides]
    return solve.main(["experiment=dnn_partitioning_throughput", *arguments])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often heft and round_robin have been called, by "method problem with so many ops", warming up apart."""
    counts: Counter[str] = Counter()
    for name in ("heft", "round_robin"):
        _replace(monkeypatch, name, lambda method, problem: counts.update([f"{method} {problem.name} {problem.n_ops}"]))
    return counts


def _replace(monkeypatch: pytest.MonkeyPatch, name: str, before: Callable[[str, Problem], object]) -> None:
    """Has `before` called ahead of each run of a baseline on an instance."""
    original = getattr(placement_gym.baselines, name)

    def replaced(problem: Problem, **options: Any) -> Result:
        if "layered" not in problem.name:
            before(name, problem)
        result: Result = original(problem, **options)
        return result

    monkeypatch.setattr(placement_gym.baselines, name, replaced)


def test_every_method_runs_on_every_instance(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each (instance, method) is a line of the output, a record that validates, and a cell of the tables."""
    monkeypatch.setattr(instances, "save_png", save_png)
    assert _solve(folder, "baseline=[pipeline_split,load_local_search,expert]") == 0
    out = capsys.readouterr().out
    assert "LayerGraphs/chain  expert: 7.0000 ms in " in out
    rows = read(OUT)
    methods = Counter(row.record.method for row in rows)
    assert methods == {"pipeline_split": 3, "load_local_search": 3, "expert": 1}
    assert {row.record.objective for row in rows} == {"max_load"}
    assert validate.main([]) == 0
    # The chain 4, 2, 6 cut in the middle: 4 + 2 + 1 ms against 6 + 1 ms; the expert found the same.
    text = (OUT / "table.md").read_text()
    assert "| instance | pipeline split | load local search | expert |" in text
    assert "| LayerGraphs/chain | **7.0000** | **7.0000** | **7.0000** |" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## max-load (ms)",
        "## Seconds to find it (max-load)",
        "## Gap to what the method has proved, in percent (max-load)",
    ]
    assert (OUT / "ratios.png").stat().st_size > 10_000


def test_an_expert_without_a_file_has_an_empty_cell(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And an operator graph that shares a layer graph's name is not given the layer graph's split."""
    assert _solve(folder, "baseline=[round_robin,expert]") == 0
    out = capsys.readouterr().out
    assert re.search(r"LayerGraphs/other .* no file", out)
    assert re.search(r"OperatorGraphs/chain .* - ", out)
    assert [row.file.parent.relative_to(OUT).as_posix() for row in read(OUT) if row.record.method == "expert"] == [
        "throughput-inputs/LayerGraphs/chain"
    ]


def test_a_second_run_solves_nothing_again(
    folder: Path, calls: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows the same tables from the records."""
    assert _solve(folder, CHEAP) == 0
    before = (OUT / "table.md").read_text()
    assert sorted(calls.values()) == [1] * 6
    capsys.readouterr()
    assert _solve(folder, CHEAP) == 0
    assert sorted(calls.values()) == [1] * 6
    assert "6 of 6 were recorded before" in capsys.readouterr().out
    assert (OUT / "table.md").read_text() == before
    assert len(read(OUT)) == 6


def test_only_what_has_changed_is_solved_again(folder: Path, calls: Counter[str]) -> None:
    """Another rule is another schedule, a new instance a new line."""
    assert _solve(folder, LAYERS, CHEAP) == 0
    calls.clear()
    _instance(folder / "throughput-inputs/LayerGraphs/new.json", [1.0, 1.0])
    assert _solve(folder, LAYERS, CHEAP) == 0
    assert calls == {"heft new 2": 1, "round_robin new 2": 1}
    calls.clear()
    assert _solve(folder, LAYERS, CHEAP, "rule=giph") == 0
    assert sum(calls.values()) == 6


def test_a_changed_option_solves_again(folder: Path) -> None:
    """More restarts than recorded is another question, and only for the method whose option it is."""
    methods = "baseline=[load_local_search,round_robin]"
    for given in (1, 3, 1):
        assert _solve(folder, LAYERS, methods, f"baseline.load_local_search.restarts={given}") == 0
    rows = [row.record for row in read(OUT)]
    restarts = Counter(r.config["baseline"][r.method]["restarts"] for r in rows if r.method == "load_local_search")
    assert restarts == {1: 2, 3: 2}
    assert Counter(r.method for r in rows)["round_robin"] == 2


def test_a_changed_instance_leaves_the_records_of_the_old_one_valid(folder: Path, calls: Counter[str]) -> None:
    """Its results lie beside them."""
    assert _solve(folder, LAYERS, CHEAP) == 0
    calls.clear()
    _instance(folder / "throughput-inputs/LayerGraphs/other.json", [3.0, 3.0, 9.0])
    for _ in range(2):
        assert _solve(folder, LAYERS, CHEAP) == 0
    assert calls == {"heft other 3": 1, "round_robin other 3": 1}
    assert len(read(OUT)) == 6
    assert validate.main([]) == 0


@pytest.mark.parametrize(
    ("error", "cell"), [(InfeasiblePlacement("too large"), "infeasible"), (InvalidProblem("links"), "unsuited")]
)
def test_a_method_that_cannot_solve_an_instance_stops_no_other(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    cell: str,
) -> None:
    """The cell says so in a word, a line of the output says why."""

    def refuse(_: str, problem: Problem) -> None:
        if problem.name == "other":
            raise error

    _replace(monkeypatch, "round_robin", refuse)
    assert _solve(folder, CHEAP) == 0
    assert f"LayerGraphs/other  round_robin: {cell} ({error})" in capsys.readouterr().out
    text = (OUT / "table.md").read_text()
    assert f"| LayerGraphs/other | {cell} | **" in text
    assert f"| LayerGraphs/chain | {cell} |" not in text
    assert Counter(row.record.method for row in read(OUT)) == {"heft": 3, "round_robin": 2}


def test_a_package_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cells of the methods that need it."""
    monkeypatch.setitem(sys.modules, "pymetis", None)
    assert _solve(folder, "baseline=[metis,heft]") == 0
    assert "| LayerGraphs/chain | missing pymetis |" in (OUT / "table.md").read_text()


def test_nothing_but_failures_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 1."""
    monkeypatch.setitem(sys.modules, "pymetis", None)
    assert _solve(folder, "baseline=metis") == 1
    assert capsys.readouterr().err == "solve: error: metis: no placement of any of 3 instances found\n"


def test_an_interrupted_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 130; what was finished is kept, what was cut off starts anew."""
    begun: list[str] = []

    def interrupt(method: str, problem: Problem) -> None:
        begun.append(f"{method} {problem.name} {problem.n_ops}")
        if len(begun) == 4:
            raise KeyboardInterrupt

    for name in ("heft", "round_robin"):
        _replace(monkeypatch, name, interrupt)
    assert _solve(folder, CHEAP) == INTERRUPTED
    captured = capsys.readouterr()
    assert "3 of 6 are done; the same command goes on" in captured.out
    assert captured.err == "solve: interrupted\n"
    assert len(read(OUT)) == 3
    assert _solve(folder, CHEAP) == 0
    assert len(read(OUT)) == 6
    assert begun[4:] == [begun[3], "round_robin chain 5", "heft chain 5"]
    assert validate.main([]) == 0


def test_one_function_may_have_two_entries(folder: Path) -> None:
    """The key in the configuration is the method's name in records and tables, whatever the function is called."""
    search = "_target_: placement_gym.baselines.load_local_search, _partial_: true"
    entries = [f"+baseline.{name}={{{search}, restarts: {n}}}" for name, n in (("once", 1), ("often", 5))]
    assert _solve(folder, "baseline=[]", *entries) == 0
    rows = [row.record for row in read(OUT)]
    assert Counter(row.method for row in rows) == {"once": 3, "often": 3}
    assert all(is_baseline(row) for row in rows)
    assert "| instance | once | often |" in (OUT / "table.md").read_text()


def test_options_of_an_unknown_baseline_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of a known one that is left out are not: an experiment sets them for whoever runs it."""
    assert _solve(folder, CHEAP, "+baseline.nope.seed=1") == 1
    assert "unknown baseline 'nope'; known: brute_force" in capsys.readouterr().err


def test_a_folder_without_instances_is_one_clear_error(workbench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where was looked, for what, and how to look elsewhere; nothing is written."""
    assert _solve(workbench / "nowhere") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"nothing below {workbench / 'nowhere'} matches 'throughput-inputs/*/*.json'" in line
    assert "instances.folder=<folder>" in line
    assert not OUT.exists()


def test_a_workload_that_reads_no_instance_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be the same problem under every name."""
    assert _solve(folder, CHEAP, f"workload.path={folder / 'throughput-inputs/LayerGraphs/chain.json'}") == 1
    assert "expected workload.path=${instance.path}" in capsys.readouterr().err


def test_instances_are_sorted_and_named_by_their_path(folder: Path) -> None:
    """Below the folder, without the suffix; two of one name are refused, and so is a pattern from the root."""
    assert [instance.name for instance in find_instances(folder / "throughput-inputs", "*/*.json")] == [
        "LayerGraphs/chain",
        "LayerGraphs/other",
        "OperatorGraphs/chain",
    ]
    (folder / "throughput-inputs/LayerGraphs/chain.txt").touch()
    with pytest.raises(InvalidFile, match=r"chain\.json and .*chain\.txt would be one instance"):
        find_instances(folder, "throughput-inputs/*/*")
    with pytest.raises(InvalidOption, match=r"pattern below instances\.folder"):
        find_instances(folder, "/tmp/*.json")


def _row(method: str, objective_s: float, status: str, objective: Any = "max_load", bound: float = 0.0) -> TableRow:
    return TableRow(
        method=method,
        objective=objective,
        objective_s=objective_s,
        lower_bound_s=bound,
        simulator_calls=1,
        seconds=1.5,
        status=status,
        is_baseline=True,
    )


def test_methods_are_compared_by_their_own_objective() -> None:
    """A GPipe load has tables of its own; a method that found nothing goes with the first objective."""
    rows = {
        ("a", "dp"): _row("dp", 0.003, "optimal", bound=0.003),
        ("a", "ilp"): _row("ilp", 0.002, "limit_reached", bound=0.0015),
        ("a", "gpipe"): _row("gpipe", 0.009, "feasible", "gpipe_load"),
        ("a", "none"): _row("none", float("inf"), "infeasible", "makespan"),
    }
    grid = TrialGrid(("a",), ("dp", "ilp", "gpipe", "none"), rows)
    assert grid.objective_methods() == {"max_load": ["dp", "ilp", "none"], "gpipe_load": ["gpipe"]}
    values, seconds, gaps, *_ = [part.splitlines()[-1] for part in as_markdown(grid).split("\n## ") if part.strip()]
    assert values == "| a | 3.0000 | **2.0000** | infeasible |"
    assert seconds == "| a | 1.50 | 1.50 |  |"
    assert gaps == "| a | 0.00 | 25.00 |  |"
    (panel,) = draw_ratios(grid).axes
    assert [line.get_xdata().tolist() for line in panel.lines] == [[1.5], [1.0], []]


def test_what_an_interrupted_method_had_is_not_recorded(tmp_path: Path) -> None:
    """An exact method returns its best on Ctrl-C; the run ends, and the method starts anew when it goes on."""
    problem, folder = layered(n_ops=4, n_devices=2), RunFolder(tmp_path)
    result = replace(round_robin(problem), interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        solve_and_record("mip", lambda _: result, problem, folder, verb="solve", config={})
    assert not folder.records.exists()
