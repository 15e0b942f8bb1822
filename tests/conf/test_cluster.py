"""Cluster presets."""

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import placement_gym as pg

FOLDER = Path(__file__).parents[2] / "conf" / "cluster"


@pytest.mark.parametrize(
    ("name", "n_devices"),
    [
        ("4xp100_pcie", 4),
        ("4xv100_nvlink", 4),
        ("8xv100_nvlink", 8),
        ("2x8v100_ethernet", 16),
        ("4xa100_nvswitch", 4),
        ("4xh100_nvswitch", 4),
        ("gpu_cpu", 2),
    ],
)
def test_presets(name: str, n_devices: int) -> None:
    """Every preset builds, has its number of devices, and every figure in it stands beside a source or assumption."""
    cluster = instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(cluster, pg.Cluster)
    assert cluster.n_devices == n_devices
    assert (cluster.latency_s == cluster.latency_s.T).all()


def test_every_file_is_tested() -> None:
    """No preset lies about untested; the measured cluster has tests of its own."""
    assert len([path for path in FOLDER.glob("*.yaml") if path.stem != "profiled"]) == 7


def test_nvlink_mesh() -> None:
    """Each V100 of a DGX-1V has six links of 25 GB/s, to four others; the other three are on PCI Express."""
    cluster = instantiate(OmegaConf.load(FOLDER / "8xv100_nvlink.yaml"))
    off = ~np.eye(8, dtype=bool)
    links = np.where(off & (cluster.bytes_per_s >= 25e9), cluster.bytes_per_s / 25e9, 0.0)
    assert links.sum(axis=1).tolist() == [6.0] * 8
    assert ((links > 0).sum(axis=1) == 4).all()
    assert (cluster.bytes_per_s[off] >= 12e9).all()


def test_ethernet_between_machines() -> None:
    """Pairs of different machines are on Ethernet, pairs of one machine are not."""
    cluster = instantiate(OmegaConf.load(FOLDER / "2x8v100_ethernet.yaml"))
    assert (cluster.bytes_per_s[:8, 8:] == 3.125e9).all()
    assert (cluster.bytes_per_s[:8, :8] >= 12e9).all()
    assert (cluster.bytes_per_s[8:, 8:] >= 12e9).all()
