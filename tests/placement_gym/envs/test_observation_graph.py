"""to_pyg: observations as graphs of PyTorch Geometric."""

import itertools
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

import placement_gym as pg
from placement_gym.envs import Sizes, to_pyg
from placement_gym.envs.observation import DYNAMIC, PAIR, PLACE, SELECT, STATIC, table
from placement_gym.errors import InvalidOption
from placement_gym.pytorch.observation_graph import ObservationGraph

ENVS = sorted(name for name in gym.registry if name.startswith("placement_gym/"))
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "placement_gym/Assign-v0": [{}, {"order": "topological"}, {"groups": "colocation"}],
    "placement_gym/SelectPlace-v0": [{}, {"action": "joint"}, {"action": "joint", "groups": "colocation"}],
}
CASES = [(name, options) for name in ENVS for options in OPTIONS.get(name, [{}])]
NUMBERS = ("op", "action_op", "action_device", "placed_op", "placed_device", "edge_index", "op_time_index")


def problems() -> list[pg.Problem]:
    """Three problems of other sizes each."""
    sizes = ((7, 2), (12, 3), (9, 4))
    return [pg.workloads.layered(n_ops=n, n_devices=d, seed=n) for n, d in sizes]


def played(name: str, n_steps: int, **options: Any) -> tuple[VectorEnv, dict[str, np.ndarray]]:
    """A vector environment of four episodes after some random steps, and what it sees."""
    env = gym.make_vec(name, num_envs=4, problems=problems(), **options)
    seen, _ = env.reset(seed=1)
    env.action_space.seed(0)
    for _ in range(n_steps):
        seen = env.step(env.action_space.sample())[0]
    return env, seen


def equal(a: Any, b: Any) -> bool:
    """Whether two graphs have the same fields with equal tensors of equal types."""
    return set(a.keys()) == set(b.keys()) and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key])
        for key in a.keys()  # noqa: SIM118
    )


def row_of(seen: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    """One row's observation."""
    return {key: value[row] for key, value in seen.items()}


@pytest.mark.parametrize("n_steps", [0, 5, 40])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_batch_is_what_pyg_makes_of_single_graphs(name: str, options: dict[str, Any], n_steps: int) -> None:
    """All fields, `batch` and `ptr` are equal, and the batch can be taken apart again."""
    _, seen = played(name, n_steps, **options)
    batch, singles = to_pyg(seen), [to_pyg(row_of(seen, row)) for row in range(4)]
    assert equal(batch, Batch.from_data_list(singles))
    assert batch.num_graphs == 4
    assert all(equal(a, b) for a, b in zip(batch.to_data_list(), singles, strict=True))
    loaded = next(iter(DataLoader(singles, batch_size=4)))
    assert torch.equal(loaded.op_graph, loaded.batch)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_padding_changes_only_the_numbers_of_actions(name: str, options: dict[str, Any]) -> None:
    """The same episode under larger sizes gives the same graph."""
    problem = problems()[1]
    sizes = Sizes(problem.n_ops + 5, problem.graph.n_edges + 9, problem.n_devices + 2)
    tight = gym.make(name, problem=problem, **options).unwrapped
    wide = gym.make(name, problem=problem, sizes=sizes, **options).unwrapped
    seen, seen_wide = tight.reset(seed=0)[0], wide.reset(seed=0)[0]
    rng, done = np.random.default_rng(0), False
    while not done:
        graph, graph_wide = to_pyg(seen), to_pyg(seen_wide)
        number, number_wide = graph.action_number, graph_wide.action_number
        graph.action_number = graph_wide.action_number
        assert equal(graph, graph_wide)
        choice = rng.choice(np.flatnonzero(graph.action_mask.numpy()))
        seen, _, done, _, _ = tight.step(number[choice].numpy())
        seen_wide, *_ = wide.step(number_wide[choice].numpy())


@pytest.mark.parametrize("n_steps", [7, 12])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_fields_say_what_the_observation_says(name: str, options: dict[str, Any], n_steps: int) -> None:
    """Counts, allowed actions and their ops and devices agree; nothing is -1 but times that cannot be."""
    _, seen = played(name, n_steps, **options)
    for row, graph in enumerate(to_pyg(seen).to_data_list()):
        one = row_of(seen, row)
        n, m, d = (int(one[key][0]) for key in ("n_ops", "n_edges", "n_devices"))
        assert (graph.num_nodes, graph.num_edges, len(graph.device_x)) == (n, m, d)
        assert all(int(graph[key].min()) >= 0 for key in NUMBERS if graph[key].numel())
        assert graph.action_number[graph.action_mask].tolist() == np.flatnonzero(one["action_mask"]).tolist()
        assert graph.placed_device.tolist() == [device for device in one["op_device"][:n].tolist() if device >= 0]
        assert torch.equal(graph.op_time.view(n, d), torch.from_numpy(one["op_time"].reshape(-1, 4)[:n, :d].copy()))
        phase, max_devices = int(graph.phase), len(one["device_kind"])
        pairs = list(itertools.product(range(n), range(d)))
        expected = {
            SELECT: [(op, 0) for op in range(n)],
            PLACE: [(int(one["op"][0]), device) for device in range(d)],
            PAIR: pairs,
        }[phase]
        assert (
            list(zip(graph.action_op.tolist(), graph.action_device.tolist(), strict=True))[: len(expected)] == expected
        )
        assert graph.action_has_op[: len(expected)].all()
        assert bool(graph.action_has_device[: len(expected)].all()) == (phase != SELECT)
        described = table("action_features", one["action_features"])
        for number, features in zip(graph.action_number.tolist(), graph.action_x.numpy(), strict=True):
            assert (features == (described[number] if number < len(described) else 0)).all()
        assert phase != PAIR or graph.action_number[len(pairs) - 1] == (n - 1) * max_devices + d - 1


def test_an_action_without_op_and_device_is_kept_where_it_is_allowed() -> None:
    """A number behind the last pair (a stop, say) has neither op nor device."""
    env = gym.make("placement_gym/SelectPlace-v0", problem=problems()[0], action="joint").unwrapped
    seen = dict(env.reset(seed=0)[0])
    seen["action_mask"] = np.concatenate([seen["action_mask"], np.ones(1, np.int8)])
    graph = to_pyg(seen)
    assert (int(graph.action_number[-1]), int(graph.action_op[-1]), int(graph.action_device[-1])) == (14, 0, 0)
    assert not graph.action_has_op[-1]
    assert not graph.action_has_device[-1]
    both = to_pyg({key: np.stack([value, value]) for key, value in seen.items()})
    assert int(both.action_op[-1]) == graph.num_nodes


@pytest.mark.parametrize("floats", [False, True])
def test_torch_tensors_will_do(floats: bool) -> None:
    """Also floats for whole numbers, as SB3's policies have them."""
    _, seen = played("placement_gym/Assign-v0", 3)
    tensors = {key: torch.from_numpy(value.copy()) for key, value in seen.items()}
    assert equal(to_pyg(seen), to_pyg({key: value.float() if floats else value for key, value in tensors.items()}))


def test_graphs_do_not_change_with_the_environment() -> None:
    """Under copy=False, too, a graph has tensors of its own."""
    env, seen = played("placement_gym/Assign-v0", 3, copy=False)
    graph = to_pyg(seen)
    before = graph.clone()
    env.step(env.action_space.sample())
    assert equal(graph, before)


@pytest.mark.parametrize("seen", [np.zeros(3), {"op": np.zeros(1)}])
def test_another_form_is_refused(seen: Any) -> None:
    """The flat form has no graph."""
    with pytest.raises(InvalidOption, match="observation='dict'"):
        to_pyg(seen)


def test_importing_the_gym_loads_no_torch() -> None:
    """Nor does the name to_pyg; calling it does."""
    code = "import sys; from placement_gym.envs import to_pyg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_keys_of_observations_are_in_the_graph() -> None:
    """The docstring lists every field; no key of the observation is left out but the counts."""
    _, seen = played("placement_gym/Assign-v0", 0)
    assert set(seen) == {*STATIC, *DYNAMIC}
    documented = ObservationGraph.__doc__ or ""
    assert all(f"        {key}: " in documented for key in to_pyg(row_of(seen, 0)).keys())  # noqa: SIM118
