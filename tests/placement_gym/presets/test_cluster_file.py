"""Clusters as TOML: what a file may say, and what a slip in it is answered with."""

import random
from pathlib import Path

import numpy as np
import pytest

import placement_gym as pg
from placement_gym.errors import InvalidCluster, InvalidFile
from placement_gym.presets import read_cluster

# Eight devices, two machines, cards: ten lines.
TEN_LINES = """
outer = { latency_s = 1e-5, bytes_per_s = 50e9 }
[devices.gpu]
peak_flops_per_s = { float32 = 67e12, float16 = 989e12 }
memory_bytes_per_s = 3350e9
memory_bytes = 80e9
[nodes.server]
count = 2
devices = { gpu = 4 }
inner = { latency_s = 5e-6, bytes_per_s = 450e9 }
card_bytes_per_s = 25e9
"""


def write(folder: Path, text: str) -> Path:
    """A file with that text."""
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_ten_lines_describe_eight_devices(tmp_path: Path) -> None:
    """Just what the same nodes make in Python."""
    assert len(TEN_LINES.strip().splitlines()) == 10
    cluster = read_cluster(write(tmp_path, TEN_LINES))
    gpu = pg.Device("gpu", {"float32": 67e12, "float16": 989e12}, 3350e9, 80e9)
    node = pg.Node([gpu], [4], pg.Link(5e-6, 450e9), card_bytes_per_s=25e9, count=2)
    same = pg.Cluster.of_nodes([node], pg.Link(1e-5, 50e9))
    assert cluster.devices == same.devices
    for name in ("latency_s", "bytes_per_s", "device_node"):
        assert np.array_equal(getattr(cluster, name), getattr(same, name))


def test_every_field_of_a_device_and_a_node_can_be_said(tmp_path: Path) -> None:
    """Kind, slots, overhead and links; `inf` and whole numbers are numbers."""
    cluster = read_cluster(
        write(
            tmp_path,
            """
[devices.host]
peak_flops_per_s = { float32 = 1_000_000 }
memory_bytes_per_s = 1
memory_bytes = inf
launch_overhead_s = 1e-6
kind = "cpu"
slots = 3
[nodes.a]
devices = { host = 2 }
inner = { latency_s = 0, bytes_per_s = inf }
[[nodes.a.links]]
latency_s = 1
bytes_per_s = 2
pairs = [["host-0", "host-1"]]
""",
        )
    )
    host = cluster.devices[1]
    assert (host.kind, host.slots, host.launch_overhead_s, host.memory_bytes) == ("cpu", 3, 1e-6, np.inf)
    assert cluster.latency_s.tolist() == [[0, 1], [0, 0]]
    assert cluster.bytes_per_s.tolist() == [[np.inf, 2], [np.inf, np.inf]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("outer =", "outre =", "mine.toml: unknown key 'outre'; known: devices, nodes, outer"),
        (
            "memory_bytes =",
            "memory =",
            "mine.toml: devices.gpu: unknown key 'memory'; known: kind, launch_overhead_s, ",
        ),
        ("card_bytes_per_s", "card", "nodes.server: unknown key 'card'; known: card_bytes_per_s, count, devices, "),
        ("{ latency_s = 1e-5", "{ lag = 1e-5", "outer: unknown key 'lag'; known: bytes_per_s, latency_s, pairs"),
        ("{ latency_s = 1e-5, ", "{ ", "outer: 'latency_s' is missing; expected a number"),
        ("memory_bytes = 80e9", 'memory_bytes = "80 GB"', "devices.gpu.memory_bytes: got '80 GB'; expected a number"),
        ("memory_bytes = 80e9", "memory_bytes = true", "devices.gpu.memory_bytes: got True; expected a number"),
        ("memory_bytes = 80e9", "memory_bytes = -1", "devices.gpu: device 'gpu': memory_bytes is -1"),
        ("memory_bytes = 80e9", "memory_bytes = nan", "devices.gpu: device 'gpu': memory_bytes is nan"),
        ("memory_bytes = 80e9", "memory_bytes = 1" + "0" * 400, "devices.gpu.memory_bytes: the number is too large"),
        (
            "memory_bytes = 80e9",
            'kind = "gpu"',
            "devices.gpu: device 'gpu': unknown kind 'gpu'; known: accelerator, cpu",
        ),
        ("memory_bytes = 80e9", "kind = 1", "devices.gpu.kind: got 1; expected a text"),
        ("memory_bytes = 80e9", "slots = 1.5", "devices.gpu.slots: got 1.5; expected a whole number"),
        ("float32 = 67e12", 'float32 = "x"', "devices.gpu.peak_flops_per_s.float32: got 'x'; expected a number"),
        ("count = 2", "count = 2.0", "nodes.server.count: got 2.0; expected a whole number"),
        ("count = 2", "count = true", "nodes.server.count: got True; expected a whole number"),
        ("count = 2", "count = 0", "nodes.server: count of the node is 0; expected a whole number >= 1"),
        ("count = 2", "count = 2000", "nodes.server: 8000 devices; expected at most 4096"),
        ("{ gpu = 4 }", "{ gpu = 0 }", "nodes.server: the node has no devices"),
        ("{ gpu = 4 }", "{ tpu = 4 }", "nodes.server.devices: unknown device 'tpu'; known: gpu"),
        ("{ gpu = 4 }", '["gpu", 4]', "nodes.server.devices: got ['gpu', 4]; expected a table"),
        ("inner =", "#", "nodes.server: a node of 4 devices has no inner link"),
        ("outer =", "#", "a cluster of 2 nodes has no outer link"),
        ("5e-6", "-1", "nodes.server.inner: link (): latency_s is -1.0; expected finite seconds >= 0"),
        ("card_bytes_per_s = 25e9", "links = 3", "nodes.server.links: got 3; expected a list of tables"),
        (
            "card_bytes_per_s = 25e9",
            'links = [{ latency_s = 0, bytes_per_s = 1, pairs = [["gpu-0"]] }]',
            "nodes.server.links[0].pairs: got ['gpu-0']; expected a pair of names",
        ),
        (
            "card_bytes_per_s = 25e9",
            'links = [{ latency_s = 0, bytes_per_s = 1, pairs = [["gpu-0", "gpu-9"]] }]',
            "nodes.server: link ('gpu-0', 'gpu-9'): unknown device 'gpu-9'; known: gpu-0, gpu-1, gpu-2, gpu-3",
        ),
        ("[nodes.server]", "[nodes.server", "mine.toml: no TOML ("),
        ("[nodes.server]", "[node.server]", "mine.toml: unknown key 'node'; known: devices, nodes, outer"),
        ("count = 2", "count = 2\ncount = 3", "mine.toml: no TOML ("),
    ],
)
def test_slips_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The file, the place, what was got, what was expected."""
    assert old in TEN_LINES
    with pytest.raises(InvalidFile) as caught:
        read_cluster(write(tmp_path, TEN_LINES.replace(old, new, 1)))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, a folder, no text, empty, nested too deep."""
    with pytest.raises(InvalidFile, match=r"gone.toml: no such file"):
        read_cluster(tmp_path / "gone.toml")
    with pytest.raises(InvalidFile, match="cannot be read as text"):
        read_cluster(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidFile, match="cannot be read as text"):
        read_cluster(tmp_path / "binary.toml")
    with pytest.raises(InvalidFile, match="'devices' is missing; expected a table"):
        read_cluster(write(tmp_path, ""))
    with pytest.raises(InvalidFile, match="no TOML"):
        read_cluster(write(tmp_path, "a = " + "[" * 100_000))


def test_damaged_files_give_clear_errors(tmp_path: Path) -> None:
    """1,000 random changes of a character or two: a cluster or InvalidFile, nothing else."""
    draw = random.Random(0)
    refused = 0
    for _ in range(1000):
        text = list(TEN_LINES)
        for _ in range(draw.randint(1, 2)):
            text[draw.randrange(len(text))] = draw.choice('0123456789.e-"[]{}= \n_abç')
        try:
            read_cluster(write(tmp_path, "".join(text)))
        except InvalidFile:
            refused += 1
    assert refused > 300


def test_presets_by_name() -> None:
    """From Python, with changes in the form of the file; an unknown name lists the known ones."""
    assert "4xh100_nvswitch" in pg.presets.names()
    assert pg.presets.cluster("4xh100_nvswitch").n_devices == 4
    small = pg.presets.cluster("2x8v100_ethernet", {"nodes": {"dgx": {"count": 1}}, "devices": {"v100": {"slots": 2}}})
    assert small.n_devices == 8
    assert small.devices[0].slots == 2
    with pytest.raises(InvalidCluster, match="unknown cluster 'dgx'; known: 2x8h100_infiniband, "):
        pg.presets.cluster("dgx")
    with pytest.raises(InvalidCluster, match="unknown cluster"):
        pg.presets.cluster("../presets/gpu_cpu")
    with pytest.raises(InvalidFile, match=r"gpu_cpu: nodes\.server\.devices\.v100: got 'two'; expected a whole"):
        pg.presets.cluster("gpu_cpu", {"nodes": {"server": {"devices": {"v100": "two"}}}})
    with pytest.raises(InvalidFile, match="gpu_cpu: changes is 3; expected a table"):
        pg.presets.cluster("gpu_cpu", 3)  # type: ignore[arg-type]
