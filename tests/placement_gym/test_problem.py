"""Problem: fingerprint, nodes, kinds, files, text."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from strategies import random_problem

import placement_gym as pg
from placement_gym.errors import InfeasiblePlacement, InvalidFile, InvalidProblem


def _problem(name: str = "one", **options: object) -> pg.Problem:
    graph = pg.OpGraph.build(["a", "b"], [(0, 1, 4.0)])
    return pg.Problem.from_times(graph, np.ones((2, 2)), name=name, **options)  # type: ignore[arg-type]


def test_the_fingerprint_is_of_the_content() -> None:
    """Equal content under another name has the same fingerprint; other nodes are other content."""
    assert _problem("one").fingerprint == _problem("two").fingerprint
    assert _problem().fingerprint != _problem(device_node=[0, 0]).fingerprint
    assert _problem().fingerprint == _problem(device_node=[0, 1]).fingerprint


def test_nodes_survive_the_file(tmp_path: Path) -> None:
    """device_node is saved; by default each device is a node of its own; a cluster brings its nodes."""
    assert _problem().device_node.tolist() == [0, 1]
    _problem(device_node=[3, 3]).save(tmp_path / "p.npz")
    assert pg.Problem.load(tmp_path / "p.npz").device_node.tolist() == [3, 3]
    cluster = pg.presets.cluster("2x8v100_ethernet")
    built = pg.Problem.build(pg.OpGraph.build(["a"], []), cluster)
    assert built.device_node.tolist() == [0] * 8 + [1] * 8


def test_files_of_the_first_format_are_read(tmp_path: Path) -> None:
    """A file without device_node, with a fingerprint over the name, too."""
    problem = _problem()
    problem.save(tmp_path / "p.npz")
    arrays = dict(np.load(tmp_path / "p.npz"))
    del arrays["problem.device_node"]
    fingerprint = problem._hash("placement_gym.problem.v1")
    header = f'{{"format": "placement_gym.problem.v1", "fingerprint": "{fingerprint}"}}'
    arrays["header"] = np.frombuffer(header.encode(), np.uint8)
    np.savez_compressed(tmp_path / "old.npz", **arrays)
    assert pg.Problem.load(tmp_path / "old.npz").fingerprint == problem.fingerprint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"device_kinds": ["accelerator", "banana"]},
            "device 'device1': unknown kind 'banana'; known: accelerator, cpu",
        ),
        ({"device_node": [0, -1]}, "device_node of device 'device1' is -1"),
        ({"device_node": [0, 1, 2]}, r"device_node has shape \(3,\); expected \(2,\)"),
    ],
)
def test_what_is_refused(options: dict[str, object], said: str) -> None:
    """Kinds and nodes are checked."""
    with pytest.raises(InvalidProblem, match=said):
        _problem(**options)


def test_damaged_files_are_invalid_files(tmp_path: Path) -> None:
    """Of 600 files with random bytes changed, dropped or doubled, each loads or raises InvalidFile."""
    path = tmp_path / "p.npz"
    random_problem(np.random.default_rng(0), n_ops=12, n_devices=3).save(path)
    sound = path.read_bytes()
    for seed in range(600):
        rng = np.random.default_rng(seed)
        data = bytearray(sound)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(data)))
            way = rng.integers(0, 3)
            if way == 0:
                data[at] = int(rng.integers(0, 256))
            elif way == 1:
                del data[at : at + int(rng.integers(1, 64))]
            else:
                data[at:at] = data[at : at + 16]
        path.write_bytes(data)
        try:
            pg.Problem.load(path)
        except InvalidFile:
            continue


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is known before anything is unpacked."""
    monkeypatch.setattr("placement_gym.files.LARGEST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", b"0" * 10_000)
    with pytest.raises(InvalidFile, match="would unpack to 10000 bytes"):
        pg.Problem.load(tmp_path / "bomb.npz")


def test_texts_are_short() -> None:
    """Problem, schedule and result print at most five lines with units."""
    problem = random_problem(np.random.default_rng(0), n_ops=300, n_devices=4)
    result = pg.baselines.round_robin(problem)
    for thing in (problem, result.schedule, result):
        text = repr(thing)
        assert len(text.splitlines()) <= 5, text
        assert len(text) < 900
        assert " s" in text
    assert pg.__version__ == "0.2.0"


def test_batches_of_fractions_are_refused() -> None:
    """simulate_batch took 1.7 for device 1."""
    with pytest.raises(InfeasiblePlacement, match="dtype float64; expected whole numbers"):
        pg.simulate_batch(_problem(), [[0.0, 1.7]])
