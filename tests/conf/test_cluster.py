"""Configured clusters: each is a preset of the package, and holds the figures that it always held."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import placement_gym as pg
from placement_gym.errors import InvalidFile

CONF = Path(__file__).parents[2] / "conf"
FOLDER = CONF / "cluster"
# Clusters that stand in a file of the user's.
OF_A_FILE = ("profiled", "toml")

# peak FLOP/s per dtype, memory bandwidth, memory, launch overhead, kind
P100 = ({"float32": 9.3e12, "float16": 18.7e12}, 732e9, 16e9, 5e-6, "accelerator")
V100 = ({"float32": 15.7e12, "float16": 125e12}, 900e9, 32e9, 5e-6, "accelerator")
A100 = ({"float32": 19.5e12, "float16": 312e12, "bfloat16": 312e12}, 2039e9, 80e9, 5e-6, "accelerator")
H100 = ({"float32": 67e12, "float16": 989e12, "bfloat16": 989e12}, 3350e9, 80e9, 5e-6, "accelerator")
CPU = ({"float32": 1.408e12}, 76.8e9, 256e9, 1e-6, "cpu")
PCIE = (10e-6, 12e9)
# Clusters of one machine: devices in order, latency and bandwidth of a pair without NVLink.
ONE_MACHINE = {
    "4xp100_pcie": ([("p100", P100, 4)], PCIE),
    "4xv100_nvlink": ([("v100", V100, 4)], PCIE),
    "8xv100_nvlink": ([("v100", V100, 8)], PCIE),
    "4xa100_nvswitch": ([("a100", A100, 4)], (5e-6, 300e9)),
    "4xh100_nvswitch": ([("h100", H100, 4)], (5e-6, 450e9)),
    "gpu_cpu": ([("v100", V100, 1), ("cpu", CPU, 1)], PCIE),
}
# NVLinks of 25 GB/s between the eight V100 of a DGX-1V.
MESH = np.array(
    [
        [0, 1, 1, 2, 2, 0, 0, 0],
        [1, 0, 2, 1, 0, 2, 0, 0],
        [1, 2, 0, 2, 0, 0, 1, 0],
        [2, 1, 2, 0, 0, 0, 0, 1],
        [2, 0, 0, 0, 0, 1, 1, 2],
        [0, 2, 0, 0, 1, 0, 2, 1],
        [0, 0, 1, 0, 1, 2, 0, 2],
        [0, 0, 0, 1, 2, 1, 2, 0],
    ]
)


def configured(name: str, *changes: str) -> pg.Cluster:
    """The cluster of `cluster=NAME` and overrides of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("solve", overrides=[f"cluster={name}", *changes])
    built = instantiate(config.cluster)
    assert isinstance(built, pg.Cluster)
    return built


def expected_links(name: str, latency_s: float, bytes_per_s: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """What every pair of one machine had before the presets were TOML files."""
    links = MESH[:n, :n] if name.endswith("nvlink") else np.zeros((n, n))
    latency = np.where(links > 0, 5e-6, latency_s)
    speed = np.where(links > 0, links * 25e9, bytes_per_s)
    np.fill_diagonal(latency, 0.0)
    np.fill_diagonal(speed, np.inf)
    return latency, speed


def as_figures(device: pg.Device) -> tuple[object, ...]:
    """A device without its name."""
    peaks = dict(device.peak_flops_per_s)
    return peaks, device.memory_bytes_per_s, device.memory_bytes, device.launch_overhead_s, device.kind


@pytest.mark.parametrize("name", sorted(ONE_MACHINE))
def test_clusters_of_one_machine_hold_the_figures_they_always_held(name: str) -> None:
    """Names, device figures, latency and bandwidth of every pair; all devices are one node."""
    cluster = configured(name)
    groups, link = ONE_MACHINE[name]
    assert [d.name for d in cluster.devices] == [f"{kind}-{i}" for kind, _, count in groups for i in range(count)]
    assert [as_figures(d) for d in cluster.devices] == [figures for _, figures, count in groups for _ in range(count)]
    assert all(d.slots == 1 for d in cluster.devices)
    latency, speed = expected_links(name, *link, cluster.n_devices)
    assert np.array_equal(cluster.latency_s, latency)
    assert np.array_equal(cluster.bytes_per_s, speed)
    assert cluster.device_node.tolist() == [0] * cluster.n_devices


def test_two_dgx_over_ethernet_hold_the_figures_they_always_held() -> None:
    """The mesh inside each machine, Ethernet between them; each machine is a node."""
    cluster = configured("2x8v100_ethernet")
    assert [d.name for d in cluster.devices] == [f"v100-{i}" for i in range(16)]
    assert all(as_figures(d) == V100 for d in cluster.devices)
    latency, speed = np.full((16, 16), 30e-6), np.full((16, 16), 3.125e9)
    for machine in (slice(0, 8), slice(8, 16)):
        latency[machine, machine], speed[machine, machine] = expected_links("nvlink", *PCIE, 8)
    assert np.array_equal(cluster.latency_s, latency)
    assert np.array_equal(cluster.bytes_per_s, speed)
    assert cluster.device_node.tolist() == [0] * 8 + [1] * 8


def test_unlike_groups() -> None:
    """Four H100 that NVSwitch joins, their host on PCI Express, and eight L4 in a machine of their own."""
    cluster = configured("4xh100_8xl4_host")
    kinds = [d.name.rpartition("-")[0] for d in cluster.devices]
    assert kinds == ["h100"] * 4 + ["cpu"] + ["l4"] * 8
    assert [d.kind for d in cluster.devices].index("cpu") == 4
    assert cluster.device_node.tolist() == [0] * 5 + [1] * 8
    off = ~np.eye(4, dtype=bool)
    assert (cluster.bytes_per_s[:4, :4][off] == 450e9).all()
    assert (cluster.bytes_per_s[:4, 4] == 50e9).all()
    assert (cluster.bytes_per_s[:5, 5:] == 12.5e9).all()
    assert (cluster.bytes_per_s[5:, 5:][~np.eye(8, dtype=bool)] == 24e9).all()


def test_two_machines_with_cards() -> None:
    """Sixteen H100; between the machines the card's speed, inside them NVSwitch's."""
    cluster = configured("2x8h100_infiniband")
    assert cluster.device_node.tolist() == [0] * 8 + [1] * 8
    assert (cluster.bytes_per_s[:8, 8:] == 50e9).all()
    assert (cluster.bytes_per_s[8:, 8:][~np.eye(8, dtype=bool)] == 450e9).all()
    slow = configured("2x8h100_infiniband", "+cluster.changes.nodes.server.card_bytes_per_s=12.5e9")
    assert (slow.bytes_per_s[:8, 8:] == 12.5e9).all()
    assert np.array_equal(slow.bytes_per_s[:8, :8], cluster.bytes_per_s[:8, :8])


def test_every_preset_has_a_file_and_every_file_a_test() -> None:
    """conf/cluster and the package name the same clusters; links are the same both ways."""
    assert sorted(p.stem for p in FOLDER.glob("*.yaml") if p.stem not in OF_A_FILE) == list(pg.presets.names())
    assert set(pg.presets.names()) == {*ONE_MACHINE, "2x8v100_ethernet", "4xh100_8xl4_host", "2x8h100_infiniband"}
    for name in pg.presets.names():
        config = OmegaConf.load(FOLDER / f"{name}.yaml")
        assert config.name == name
        cluster = instantiate(config)
        assert np.array_equal(cluster.latency_s, cluster.latency_s.T)
        assert np.array_equal(cluster.bytes_per_s, cluster.bytes_per_s.T)
        example = (FOLDER / f"{name}.yaml").read_text().partition("e.g. ")[2].split()[0]
        changed = configured(name, example)
        assert changed.devices[0].memory_bytes == 8e9
        assert cluster.devices[0].memory_bytes != 8e9


def test_command_line_changes_a_preset() -> None:
    """A device's figure, a count, an inner link; a slip names the key and the known ones."""
    assert configured("4xp100_pcie", "+cluster.changes.nodes.server.devices.p100=6").n_devices == 6
    fast = configured("4xp100_pcie", "+cluster.changes.nodes.server.inner.bytes_per_s=24e9")
    assert fast.bytes_per_s[0, 1] == 24e9
    assert fast.latency_s[0, 1] == 10e-6
    assert configured("2x8v100_ethernet", "+cluster.changes.nodes.dgx.count=3").n_nodes == 3
    with pytest.raises(Exception, match=r"devices\.p100: unknown key 'memory'; known: .*memory_bytes") as caught:
        configured("4xp100_pcie", "+cluster.changes.devices.p100.memory=8e9")
    assert isinstance(caught.value.__cause__, InvalidFile)


def test_command_line_names_a_file(tmp_path: Path) -> None:
    """cluster=toml cluster.path=FILE; changes go on top of it, as with a preset."""
    file = tmp_path / "mine.toml"
    file.write_text(
        "[devices.gpu]\npeak_flops_per_s = { float32 = 1e12 }\nmemory_bytes_per_s = 1e9\n"
        "[nodes.server]\ndevices = { gpu = 2 }\ninner = { latency_s = 0, bytes_per_s = 1e9 }\n"
    )
    assert configured("toml", f"cluster.path={file}").n_devices == 2
    assert configured("toml", f"cluster.path={file}", "+cluster.changes.nodes.server.devices.gpu=3").n_devices == 3


def test_yaml_describes_eight_devices_in_ten_lines() -> None:
    """Nodes and links are written as the callables that they are."""
    text = """
_target_: placement_gym.Cluster.of_nodes
nodes:
  - _target_: placement_gym.Node
    devices:
      - {_target_: placement_gym.Device, name: gpu, peak_flops_per_s: {float32: 67e12}, memory_bytes_per_s: 3e12}
    counts: [4]
    inner: {_target_: placement_gym.Link, latency_s: 5e-6, bytes_per_s: 450e9}
    card_bytes_per_s: 25e9
    count: 2
outer: {_target_: placement_gym.Link, latency_s: 1e-5, bytes_per_s: 50e9}"""
    assert len(text.strip().splitlines()) == 10
    cluster = instantiate(OmegaConf.create(text), _convert_="all")  # as the commands do
    assert cluster.device_node.tolist() == [0] * 4 + [1] * 4
    assert (cluster.bytes_per_s[:4, 4:] == 25e9).all()
