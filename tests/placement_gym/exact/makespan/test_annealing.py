"""anneal: it keeps to its deadline."""

import time

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.exact.deadline import Deadline
from placement_gym.exact.makespan import annealing
from placement_gym.result import Evaluator


def test_annealing_ends_with_its_deadline_whatever_a_placement_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned by a simulation of 1 us, of which there is time for 200,000; each takes far longer."""
    monkeypatch.setattr(annealing, "simulation_s", lambda *_: 1e-6)
    problem = pg.workloads.layered(n_ops=300, seed=0, n_devices=4)
    # First a short search, which may compile.
    for calls, limit_s in ((100, 60.0), (10**7, 0.2)):
        evaluator, began = Evaluator("mip", problem, "physical"), time.process_time()
        (found,) = annealing.anneal(
            evaluator, np.zeros(300, np.int32), None, Deadline(limit_s), calls=calls, hot=0.01, cold=0.001, seed=0
        )
        assert found.score.makespan_s == pg.simulate(problem, found.op_device).makespan_s
    assert time.process_time() - began < 2.0
    assert evaluator.simulator_calls == found.calls < 200_000
