"""Standings of a study: means and spreads, who is better, and what is drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.baselines import nothing_found
from experiments.curves import draw_samples
from experiments.folder import RunFolder
from experiments.standings import Cell, Standings, as_markdown, panels, relation, sentences
from experiments.table import TableRow
from experiments.tracking import CALLS
from experiments.trial import Outcome, Trial
from placement_gym.files import write_text
from placement_gym.workloads import layered


def _row(method: str, objective_s: float, calls: int = 100, seconds: float = 2.0) -> TableRow:
    return TableRow(
        method=method,
        objective="makespan",
        objective_s=objective_s,
        lower_bound_s=0.0,
        simulator_calls=calls,
        seconds=seconds,
        status="feasible",
        is_baseline=method != "agent",
    )


def _cell(*values_s: float) -> Cell:
    return Cell(values_s, len(values_s), "feasible")


@pytest.fixture
def outcomes(tmp_path: Path) -> list[tuple[Trial, Outcome]]:
    """An agent of two seeds with its curves, a search with two budgets, a rule of thumb, and one that finds nothing."""
    problem = layered(n_ops=4, n_devices=2)

    def trial(method: str, seed: int | None) -> Trial:
        config = OmegaConf.create({"agent": {}} if method == "agent" else {"baseline": {method: {}}})
        return Trial("w", method, seed, config, problem, RunFolder.at(tmp_path / f"{method}{seed}"))

    found = []
    for seed, curve in enumerate(([(10, 4.0), (100, 2.0)], [(20, 3.0), (100, 2.5)])):
        made = trial("agent", seed)
        lines = (f'{{"{CALLS}": {calls}, "train/best_makespan_s": {best}}}\n' for calls, best in curve)
        write_text(made.folder.metrics, "".join(lines))
        found.append((made, Outcome(_row("agent", curve[-1][1]), _row("agent", 5.0), episodes=50.0)))
    for method, values, calls in (("search", (2.1, 2.3), 100), ("search_long", (1.9, 2.0), 400), ("thumb", (4.0,), 1)):
        for seed, value in enumerate(values):
            found.append((trial(method, seed), Outcome(_row(method, value, calls))))
    return [*found, (trial("none", None), Outcome(nothing_found("none", status="unsuited")))]


def _standings(outcomes: Sequence[tuple[Trial, Outcome]], unit: str = "s") -> Standings:
    methods = list(dict.fromkeys(trial.method for trial, _ in outcomes))
    return Standings.of(outcomes, methods, {"w": 1.5}, None, unit)


def test_tables_say_mean_spread_and_least(outcomes: list[tuple[Trial, Outcome]]) -> None:
    """The best mean is bold; what found nothing says why; calls and seconds are means; only learners have episodes."""
    text = as_markdown(_standings(outcomes))
    best, greedy, calls, episodes, seconds, _ = (part.strip() for part in text.split("## ")[1:])
    assert best.splitlines()[4:] == [
        "| agent | 2.2500 ± 0.3536 (2.0000) |",
        "| search | 2.2000 ± 0.1414 (2.1000) |",
        "| search_long | **1.9500 ± 0.0707 (1.9000)** |",
        "| thumb | 4.0000 |",
        "| none | unsuited |",
        "| (lower bound) | 1.5000 |",
    ]
    assert greedy.splitlines()[4:] == ["| agent | **5.0000 ± 0.0000 (5.0000)** |", "| (lower bound) | 1.5000 |"]
    assert calls.splitlines()[4:] == ["| agent | 100 |", "| search | 100 |", "| search_long | 400 |", "| thumb | 1 |"]
    assert episodes.splitlines()[4:] == ["| agent | 40.00 |"]
    assert seconds.splitlines()[4] == "| agent | 2.00 |"


def test_the_first_learner_is_compared_with_all_others(outcomes: list[tuple[Trial, Outcome]]) -> None:
    """By the means, with the spread, and with the calls of those that had another number of them."""
    (sentence,) = sentences(_standings(outcomes))
    assert sentence == (
        "w: agent (2.2500 ± 0.3536; 100 calls, 2 seeds) is better than thumb (4.0000, +77.8 %, 1 call); "
        "not told apart from search (2.2000 ± 0.1414, -2.2 %), search_long (1.9500 ± 0.0707, -13.3 %, 400 calls)."
    )


def test_a_greedy_placement_may_not_fit(outcomes: list[tuple[Trial, Outcome]]) -> None:
    """Its seed is not in the mean; a cell without any says so."""
    (trial, _), *others = outcomes
    unfit = (trial, Outcome(_row("agent", 2.0), None))
    assert "| agent | **5.0000 [1 of 2]** |" in as_markdown(_standings([unfit, *others]))
    assert _standings([unfit]).said(_standings([unfit]).cell("w", "agent", greedy=True)) == "infeasible"


def test_milliseconds_are_seconds_times_a_thousand(outcomes: list[tuple[Trial, Outcome]]) -> None:
    """With five significant digits."""
    assert "| agent | 2,250.0 ± 353.6 (2,000.0) |" in as_markdown(_standings(outcomes, "ms"))


def test_means_are_told_apart_by_twice_their_standard_error() -> None:
    """Two values without spread are told apart unless they differ by less than is said."""
    assert relation(_cell(1.0), _cell(2.0)) == "better than"
    assert relation(_cell(2.0), _cell(1.0)) == "worse than"
    assert relation(_cell(1.0), _cell(1.0004)) == "as good as"
    # Standard deviation 1, standard error 0.5 of four seeds.
    spread = _cell(*(3.0 + x * np.sqrt(0.75) for x in (-1, -1, 1, 1)))
    assert spread.spread_s == pytest.approx(1.0)
    assert relation(spread, _cell(3.99)) == "not told apart from"
    assert relation(spread, _cell(4.01)) == "better than"
    assert relation(spread, _cell(1.99)) == "worse than"


def test_curves_are_means_over_seeds_within_a_band(outcomes: list[tuple[Trial, Outcome]]) -> None:
    """From where every seed has found something; budgets of one search are joined."""
    like = {"search_long": "search"}
    drawn = panels(outcomes, {"w": 1.5}, {trial.method: like.get(trial.method, trial.method) for trial, _ in outcomes})
    assert list(drawn[0].points) == ["search", "thumb"]
    (axis,) = draw_samples(drawn, 1e-3, "ms").axes
    agent, *_ = axis.get_lines()
    assert agent.get_xdata().tolist() == [20, 100]
    assert agent.get_ydata().tolist() == [3500.0, 2250.0]
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (2000.0, 4000.0)
    search = next(line for line in axis.get_lines() if list(line.get_xdata()) == [100, 400])
    assert search.get_ydata().tolist() == pytest.approx([2200.0, 1950.0])
