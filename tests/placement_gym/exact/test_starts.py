"""Starts: the heuristics keep to the deadline of `mip`."""

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.exact import Solver, mip, starts
from placement_gym.exact.deadline import Deadline, OutOfTimeError
from placement_gym.exact.device_classes import DeviceClasses
from placement_gym.exact.max_load import pipeline
from placement_gym.exact.max_load.blocks import Blocks
from placement_gym.result import Answer

pytest.importorskip("ortools")


@pytest.mark.parametrize(("limit_s", "all_s", "first_s"), [(2.0, 0.4, 1.0), (300.0, 20.0, 20.0)])
def test_the_first_pipeline_leaves_half_of_a_short_limit(
    monkeypatch: pytest.MonkeyPatch, limit_s: float, all_s: float, first_s: float
) -> None:
    """Its blocks included, which are not built once that is over; of a long limit it has what all pipelines have."""
    problem = pg.Problem.from_times(pg.OpGraph.build(["a", "b"], [(0, 1, 1.0)]), np.ones((2, 2)), link_bytes_per_s=1.0)
    given = list[float]()

    def best_pipeline(problem: pg.Problem, deadline: Deadline, *, first: Deadline) -> Answer:
        given.extend((deadline.left_s, first.left_s))
        return pipeline.best_pipeline(problem, deadline, first=first)

    monkeypatch.setattr(starts, "best_pipeline", best_pipeline)
    mip(problem, objective="gpipe_load", solver=Solver(time_limit_s=limit_s, workers=1))
    assert given == pytest.approx([all_s, first_s], rel=0.2)
    assert pipeline.best_pipeline(problem, Deadline()).op_device is not None
    assert pipeline.best_pipeline(problem, Deadline(), first=Deadline(0.0)).op_device is None
    with pytest.raises(OutOfTimeError):
        Blocks.of(problem, DeviceClasses.of(problem), Deadline(0.0))
