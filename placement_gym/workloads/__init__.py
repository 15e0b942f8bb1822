"""Workloads: where problems come from."""

from placement_gym.workloads.published import read_dapple, read_dnn_partitioning, read_doppler, read_graph
from placement_gym.workloads.synthetic import fork_join, layered, random_dag, series_parallel
from placement_gym.workloads.toys import TOYS, Toy

__all__ = [
    "TOYS",
    "Toy",
    "fork_join",
    "layered",
    "random_dag",
    "read_dapple",
    "read_dnn_partitioning",
    "read_doppler",
    "read_graph",
    "series_parallel",
]
