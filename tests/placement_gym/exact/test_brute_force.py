"""brute_force: what it refuses, and what an interruption leaves."""

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InvalidOption
from placement_gym.exact import brute_force
from placement_gym.result import Evaluator


def independent(n_ops: int, n_devices: int = 2) -> pg.Problem:
    """Ops without edges, one second each."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(n_ops)], [])
    return pg.Problem.from_times(graph, np.ones((n_ops, n_devices)), link_bytes_per_s=1.0, name="many")


@pytest.mark.parametrize(
    ("n_ops", "n_devices", "said"),
    [(20, 2, "1.05e.06 placements"), (600, 4, "1e361 placements"), (3000, 8, "1e2709 placements")],
)
def test_too_many_placements_are_refused_whatever_their_number(n_ops: int, n_devices: int, said: str) -> None:
    """2 ** 20 is above a million; 4 ** 600 is above what a float holds."""
    with pytest.raises(InvalidOption, match=f"has {said}; brute force is limited to 1000000"):
        brute_force(independent(n_ops, n_devices))


def test_an_interruption_leaves_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one of two chunks there is a placement, before the first there is none."""
    real, calls = Evaluator.makespans_s, [0]

    def interrupted(after: int) -> None:
        def makespans_s(self: Evaluator, op_devices: np.ndarray) -> np.ndarray:
            calls[0] += 1
            if calls[0] > after:
                raise KeyboardInterrupt
            return real(self, op_devices)

        calls[0] = 0
        monkeypatch.setattr(Evaluator, "makespans_s", makespans_s)

    interrupted(1)
    result = brute_force(independent(13))
    assert (result.status, result.objective) == ("limit_reached", 7.0)
    assert result.lower_bound == pytest.approx(6.5)
    assert result.simulator_calls == 4096
    interrupted(0)
    with pytest.raises(KeyboardInterrupt):
        brute_force(independent(13))
