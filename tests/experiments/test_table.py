"""Tables of results: order, ratios, and an honest last sentence."""

import math
from dataclasses import replace

from experiments.table import TableRow, cells, headings, markdown, number, order_note, verdict
from placement_gym.rule import Rule


def _row(method: str, makespan_s: float, *, is_baseline: bool = True, status: str = "feasible") -> TableRow:
    return TableRow(
        method=method,
        objective="makespan",
        objective_s=makespan_s,
        lower_bound_s=0.0,
        simulator_calls=4000,
        seconds=1.5,
        status=status,
        is_baseline=is_baseline,
    )


def test_the_best_is_first_and_the_bound_last() -> None:
    """Milliseconds, and ratios to the best found."""
    lines = cells([_row("slow", 0.004), _row("fast", 0.002)], 0.001)
    assert [line[0] for line in lines] == ["fast", "slow", "(lower bound)"]
    assert [line[1:3] for line in lines] == [("2.0000", "1.000"), ("4.0000", "2.000"), ("1.0000", "0.500")]


def test_a_method_without_a_placement_has_no_makespan() -> None:
    """It stays in the table, at its end, as infeasible."""
    lines = cells([_row("single_device", math.inf, status="infeasible"), _row("heft", 0.002)], 0.001)
    assert lines[1][0] == "single_device"
    assert lines[1][1:3] == ("-", "-")
    assert lines[1][-1] == "infeasible"


def test_the_verdict_says_which_baselines_are_better() -> None:
    """With their effort; those that are worse are not mentioned."""
    said = " ".join(verdict([_row("agent", 0.0022, is_baseline=False), _row("annealing", 0.002), _row("heft", 0.003)]))
    assert "annealing (4,000 simulator calls, 1.5 s) is better than agent: agent takes 10.0% longer." in said
    assert "heft" not in said


def test_the_verdict_says_when_none_is() -> None:
    """And with what effort."""
    said = verdict([_row("agent", 0.001, is_baseline=False), _row("heft", 0.003)])
    assert said[0] == "agent is better than every baseline here."
    assert "4,000 simulator calls" in said[-1]


def test_numbers_have_four_digits_and_markdown_has_bars() -> None:
    """5.8 million is written out; 0.0018 is not."""
    assert number(5.8e6) == "5,800,000"
    assert number(0.00181234) == "0.001812"
    assert markdown(headings("makespan")[:2], [("a", "b")]).splitlines()[-1] == "| a | b |"


def test_a_status_that_is_about_one_kind_of_placements_says_so() -> None:
    """An optimum among pipelines is not an optimum; its gap is that to what was proved of pipelines."""
    about = {"objective": "max_load", "simulator_calls": 1, "seconds": 1.0, "status": "optimal", "is_baseline": True}
    kept = TableRow(method="dp", objective_s=0.004, lower_bound_s=0.004, restricted_to="pipelines", **about)  # type: ignore[arg-type]
    free = TableRow(method="mip", objective_s=0.003, lower_bound_s=0.003, **about)  # type: ignore[arg-type]
    assert [line[3:] for line in cells([kept, free], None)] == [
        ("0.00 %", "1.00", "optimal"),
        ("0.00 %", "1.00", "optimal among pipelines"),
    ]


def test_a_table_says_whose_order_counts() -> None:
    """Under a priority queue a method without an order is named; under others one sentence says that none counts."""
    without, own = _row("round_robin", 2.0), _row("heft", 1.0)
    assert cells([replace(without, by_b_level=True), own], None)[1][-1] == "b-level order"
    assert cells([without, own], None)[1][-1] == ""
    assert "each method is simulated in its own order" in order_note(Rule(queue="priority"))
    assert (
        order_note(Rule()) == "Queue `fifo`: what is ready first runs first; orders that methods decide do not count."
    )
