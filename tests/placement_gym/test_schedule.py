"""Schedule.check finds what is wrong in a trace; memory, metrics, pictures by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InvalidSchedule
from placement_gym.metrics import metrics
from placement_gym.render import chrome_trace, gantt_rgb, save_chrome_trace, save_gantt


def made() -> pg.Schedule:
    """A (0-1 on 0) sends 2 bytes (1-3) to b (3-4 on 1); c (1-2 on 0) runs meanwhile."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 2.0), (0, 2, 2.0)], parameter_bytes=[1.0, 1.0, 4.0])
    problem = pg.Problem.from_times(graph, np.ones((3, 2)), link_bytes_per_s=1.0, device_memory_bytes=10.0)
    return pg.simulate(problem, [0, 1, 0])


@pytest.mark.parametrize(
    ("column", "index", "value", "said"),
    [
        ("op_start_s", 1, 2.5, "duration|goes back|precedence"),
        ("op_ready_s", 1, 2.0, "precedence: op 'b' is ready at 2.0 s; expected 3.0 s"),
        ("transfer_ready_s", 0, 0.5, "precedence: transfer of edge 0"),
        ("transfer_arrival_s", 0, np.nan, "lacks one"),
    ],
)
def test_tampered_times_are_found(column: str, index: int, value: float, said: str) -> None:
    """A changed time breaks the proof, and the error says which rule."""
    schedule = made()
    schedule.check()
    getattr(schedule.trace, column)[index] = value
    with pytest.raises(InvalidSchedule, match=said):
        schedule.check()


def shifted(op: int, by: float) -> pg.Schedule:
    """The schedule with one op moved in time, otherwise as it was."""
    schedule = made()
    for column in ("op_start_s", "op_finish_s", "op_release_s"):
        getattr(schedule.trace, column)[op] += by
    return schedule


def test_idling_and_overlap_are_found() -> None:
    """An op that waits beside a free device, and two ops in one slot."""
    with pytest.raises(InvalidSchedule, match=r"work conservation: op 'c' is ready at 1.0 s and starts at 1.5 s"):
        shifted(2, 0.5).check()
    overlapping = shifted(0, 0.5)
    with pytest.raises(InvalidSchedule, match=r"precedence|capacity|work conservation"):
        overlapping.check()


def test_two_transfers_on_one_channel_are_found() -> None:
    """Two transfers from one device at once are legal without contention and not where it sends one at a time."""
    graph = pg.OpGraph.build(["a", "b", "c"], [(0, 1, 2.0), (0, 2, 2.0)])
    problem = pg.Problem.from_times(graph, np.ones((3, 3)), link_bytes_per_s=1.0)
    schedule = pg.simulate(problem, [0, 1, 2], rule=pg.Rule(contention="none"))
    schedule.check()
    said = r"contention \(egress\): channel 0, which transfer of edge 0 .* carries 2 transfers at 1.0 s"
    with pytest.raises(InvalidSchedule, match=said):
        replace(schedule, rule=pg.Rule(contention="egress")).check()


def test_peak_memory_by_hand() -> None:
    """Device 0: parameters 5, output of a (2 bytes) until its reader and its transfer end; device 1: 1 + copy 2."""
    schedule = made()
    assert schedule.peak_memory_bytes.tolist() == [7.0, 3.0]
    assert made().problem.graph.op_output_bytes.tolist() == [2.0, 0.0, 0.0]


def test_metrics_by_hand() -> None:
    """Three ops of 1 s and one transfer of 2 s within 4 s on two devices."""
    found = metrics(made())
    assert found["makespan_s"] == 4.0
    assert found["utilisation"] == pytest.approx(3 / 8)
    assert found["balance"] == pytest.approx(1.5 / 2)
    assert (found["transfers"], found["transfer_bytes"], found["transfer_s"]) == (1.0, 2.0, 2.0)
    assert found["peak_memory_share"] == pytest.approx(0.7)


def test_pictures(tmp_path: Path) -> None:
    """The chart has ink; the Chrome trace has every op and transfer at its time in microseconds."""
    schedule = made()
    assert gantt_rgb(schedule).std() > 5
    save_gantt(schedule, tmp_path / "gantt.png")
    save_chrome_trace(schedule, tmp_path / "trace.json")
    assert (tmp_path / "gantt.png").read_bytes().startswith(b"\x89PNG")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert events == json.loads(json.dumps(chrome_trace(schedule)))["traceEvents"]
    spans = {e["name"]: (e["pid"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"}
    assert spans == {"a": (0, 0.0, 1e6), "c": (0, 1e6, 1e6), "b": (1, 3e6, 1e6), "a -> device1": (0, 1e6, 2e6)}


def test_a_schedule_prints_what_was_sent_and_held() -> None:
    """One transfer of 2 bytes; of 7 and 3 bytes on the two devices, the larger."""
    assert "makespan 4 s\n  1 transfers, 2 bytes; peak memory 7 bytes\n" in repr(made())


def test_schedules_and_results_print_in_five_lines() -> None:
    """With units, whatever their size."""
    result = pg.baselines.round_robin(pg.workloads.layered(n_ops=3000, n_devices=64))
    for noun in (result, result.schedule):
        lines = repr(noun).splitlines()
        assert 1 <= len(lines) <= 5
        assert max(len(line) for line in lines) <= 240
        assert f"{result.objective:.6g} s" in lines[0]
