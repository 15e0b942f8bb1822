"""Clusters of nodes: which link joins which pair, and which node a device is part of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import placement_gym as pg
from placement_gym.errors import InvalidCluster

GPU = pg.Device("gpu", {"float32": 1e12}, 1e9)
CPU = pg.Device("cpu", {"float32": 1e11}, 1e8, kind="cpu")
INNER = pg.Link(1e-6, 100.0)
OUTER = pg.Link(1e-5, 10.0)


def test_two_nodes_by_hand() -> None:
    """A node of two gpu and one of a gpu and its host: inner speed inside, outer speed between, names run on."""
    cluster = pg.Cluster.of_nodes([pg.Node([GPU], [2], INNER), pg.Node([GPU, CPU], inner=INNER)], OUTER)
    assert [d.name for d in cluster.devices] == ["gpu-0", "gpu-1", "gpu-2", "cpu-0"]
    assert cluster.device_node.tolist() == [0, 0, 1, 1]
    assert cluster.device_node.dtype == np.int32
    assert cluster.n_nodes == 2
    inf = np.inf
    assert cluster.bytes_per_s.tolist() == [
        [inf, 100, 10, 10],
        [100, inf, 10, 10],
        [10, 10, inf, 100],
        [10, 10, 100, inf],
    ]
    assert cluster.latency_s[0].tolist() == [0.0, 1e-6, 1e-5, 1e-5]


def test_eight_devices_in_ten_lines() -> None:
    """The promise of this part, in Python."""
    gpu = pg.Device("gpu", {"float32": 67e12}, 3.35e12, memory_bytes=80e9)
    node = pg.Node([gpu], [4], inner=pg.Link(5e-6, 450e9), card_bytes_per_s=50e9, count=2)
    cluster = pg.Cluster.of_nodes([node], outer=pg.Link(1e-5, 100e9))
    assert cluster.n_devices == 8
    assert cluster.device_node.tolist() == [0] * 4 + [1] * 4
    again = pg.Cluster.of_nodes([pg.Node([gpu] * 4, inner=pg.Link(5e-6, 450e9), card_bytes_per_s=50e9)] * 2, OUTER)
    assert again.devices == cluster.devices


@pytest.mark.parametrize(
    ("first", "second", "speed"),
    [(np.inf, np.inf, 10.0), (4.0, np.inf, 4.0), (np.inf, 3.0, 3.0), (4.0, 3.0, 3.0), (50.0, 60.0, 10.0)],
)
def test_cards_bound_what_goes_between_nodes(first: float, second: float, speed: float) -> None:
    """Bytes go at the speed of the slowest of the outer link and both cards; inside a node the card counts nothing."""
    nodes = [pg.Node([GPU], [2], INNER, card_bytes_per_s=card) for card in (first, second)]
    cluster = pg.Cluster.of_nodes(nodes, OUTER)
    assert (cluster.bytes_per_s[:2, 2:] == speed).all()
    assert (cluster.bytes_per_s[2:, :2] == speed).all()
    assert cluster.bytes_per_s[0, 1] == cluster.bytes_per_s[3, 2] == 100.0
    assert (cluster.latency_s[:2, 2:] == 1e-5).all()


def test_links_of_a_node_use_its_own_names() -> None:
    """Each of two equal nodes gets the link from its first to its second device; later links win; one way only."""
    links = [pg.Link(0.0, 500.0, (("gpu-0", "gpu-1"), ("gpu-1", "gpu-2"))), pg.Link(0.0, 700.0, (("gpu-1", "gpu-2"),))]
    cluster = pg.Cluster.of_nodes([pg.Node([GPU], [3], INNER, links, count=2)], OUTER)
    for first in (0, 3):
        assert cluster.bytes_per_s[first, first + 1] == 500.0
        assert cluster.bytes_per_s[first + 1, first + 2] == 700.0
        assert cluster.bytes_per_s[first + 1, first] == 100.0
    with pytest.raises(InvalidCluster, match="unknown device 'gpu-3'; known: gpu-0, gpu-1, gpu-2"):
        pg.Cluster.of_nodes([pg.Node([GPU], [3], INNER, [pg.Link(0.0, 1.0, (("gpu-3", "gpu-0"),))], count=2)], OUTER)


def test_a_name_without_number_means_all_copies() -> None:
    """("gpu", "gpu") is every pair of different gpu, ("cpu", "gpu") every pair of the two groups, one way."""
    links = [pg.Link(0.0, 500.0, (("gpu", "gpu"),)), pg.Link(0.0, 700.0, (("cpu", "gpu"),))]
    for cluster in (
        pg.Cluster.of_nodes([pg.Node([GPU, CPU], [2, 1], INNER, links)]),
        pg.Cluster.replicated([GPU, CPU], [2, 1], INNER, links),
    ):
        assert cluster.bytes_per_s.tolist() == [[np.inf, 500, 100], [500, np.inf, 100], [700, 700, np.inf]]


def test_devices_are_their_own_nodes_where_nothing_is_said() -> None:
    """The other ways to make a cluster know no machines; a given device_node is kept and read-only."""
    assert pg.Cluster.uniform(GPU, 3, latency_s=0.0, bytes_per_s=1.0).device_node.tolist() == [0, 1, 2]
    assert pg.Cluster.build([GPU], INNER).device_node.tolist() == [0]
    assert pg.Cluster.replicated([GPU, CPU], np.array([2, 0]), INNER).n_devices == 2  # type: ignore[arg-type]
    pair = pg.Cluster.replicated([GPU], [2], INNER)
    given_nodes = pg.Cluster(pair.devices, pair.latency_s, pair.bytes_per_s, np.array([4, 4]))
    assert given_nodes.device_node.tolist() == [4, 4]
    assert given_nodes.device_node.dtype == np.int32
    assert given_nodes.n_nodes == 1
    with pytest.raises(ValueError, match="read-only"):
        given_nodes.device_node[0] = 1
    for wrong, message in (
        (np.array([0]), r"device_node is int64 \[1\]; expected int32 \[2\]"),
        (np.array([0.0, 1.0]), r"device_node is float64 \[2\]"),
        (np.array([0, -1]), "device_node holds -1 to 0"),
        (np.array([0, 2**31]), "device_node holds 0 to 2147483648"),
    ):
        with pytest.raises(InvalidCluster, match=message):
            pg.Cluster(pair.devices, pair.latency_s, pair.bytes_per_s, wrong)


def test_a_wrong_latency_or_bandwidth_is_named_with_its_devices() -> None:
    """The message says from which device to which, what was got and what is expected."""
    pair = pg.Cluster.replicated([GPU], [2], INNER)
    latency_s, bytes_per_s = pair.latency_s.copy(), pair.bytes_per_s.copy()
    latency_s[0, 1], bytes_per_s[1, 0] = np.inf, 0
    with pytest.raises(InvalidCluster, match="latency_s from 'gpu-0' to 'gpu-1' is inf; expected finite seconds >= 0"):
        pg.Cluster(pair.devices, latency_s, bytes_per_s)
    with pytest.raises(InvalidCluster, match=r"bytes_per_s from 'gpu-1' to 'gpu-0' is 0\.0; expected bytes per second"):
        pg.Cluster(pair.devices, pair.latency_s, bytes_per_s)


def test_impossible_nodes_are_refused() -> None:
    """No device, no link where one is needed, counts that are none, a card of no speed."""
    with pytest.raises(InvalidCluster, match="a node of 2 devices has no inner link"):
        pg.Node([GPU], [2])
    with pytest.raises(InvalidCluster, match="a cluster of 2 nodes has no outer link"):
        pg.Cluster.of_nodes([pg.Node([GPU], count=2)])
    with pytest.raises(InvalidCluster, match="the cluster has no nodes"):
        pg.Cluster.of_nodes([])
    with pytest.raises(InvalidCluster, match="the node has no devices"):
        pg.Node([])
    with pytest.raises(InvalidCluster, match="the node has no devices"):
        pg.Node([GPU], [0])
    with pytest.raises(InvalidCluster, match="2 counts for 1 devices"):
        pg.Node([GPU], [1, 2], INNER)
    with pytest.raises(InvalidCluster, match="2 counts for 1 devices"):
        pg.Cluster.replicated([GPU], [1, 2], INNER)
    with pytest.raises(InvalidCluster, match=r"count of device 'gpu' is 1.5; expected a whole number >= 0"):
        pg.Node([GPU], [1.5], INNER)  # type: ignore[list-item]
    with pytest.raises(InvalidCluster, match="count of device 'gpu' is -1"):
        pg.Node([GPU], [-1], INNER)
    with pytest.raises(InvalidCluster, match="count of the node is 0; expected a whole number >= 1"):
        pg.Node([GPU], count=0)
    with pytest.raises(InvalidCluster, match="card_bytes_per_s is 0"):
        pg.Node([GPU], card_bytes_per_s=0.0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from([3.0, 30.0, np.inf])), min_size=1, max_size=3
    )
)
def test_every_pair_follows_the_one_rule(shapes: list[tuple[int, int, float]]) -> None:
    """Same node: the inner link. Other node: the outer latency, the slowest of outer link and both cards."""
    nodes = [pg.Node([GPU], [n], INNER, count=count, card_bytes_per_s=card) for n, count, card in shapes]
    cluster = pg.Cluster.of_nodes(nodes, OUTER)
    cards = [card for n, count, card in shapes for _ in range(n * count)]
    assert cluster.n_devices == len(cards)
    assert cluster.n_nodes == sum(count for _, count, _ in shapes)
    for a in range(cluster.n_devices):
        for b in range(cluster.n_devices):
            if a != b:
                inside = cluster.device_node[a] == cluster.device_node[b]
                assert cluster.latency_s[a, b] == (1e-6 if inside else 1e-5)
                assert cluster.bytes_per_s[a, b] == (100.0 if inside else min(10.0, cards[a], cards[b]))


def test_a_cluster_prints_in_three_lines() -> None:
    """Devices, nodes, memory and links with units, whatever the size."""
    text = repr(pg.presets.cluster("4xh100_8xl4_host"))
    assert text.startswith("Cluster of 13 devices in ")
    assert (len(text.splitlines()), len(text) < 400) == (3, True)
