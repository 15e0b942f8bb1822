"""Workloads: where problems come from."""

from placement_gym.workloads.models import (
    bert,
    chain_mm,
    expression,
    ffnn,
    gpt,
    llama_block,
    llama_layer,
    moe,
    resnet50,
    t5,
    vgg19,
)
from placement_gym.workloads.published import read_dapple, read_dnn_partitioning, read_doppler, read_graph
from placement_gym.workloads.synthetic import fork_join, layered, random_dag, series_parallel
from placement_gym.workloads.toys import TOYS, Toy

__all__ = [
    "TOYS",
    "Toy",
    "bert",
    "chain_mm",
    "expression",
    "ffnn",
    "fork_join",
    "gpt",
    "layered",
    "llama_block",
    "llama_layer",
    "moe",
    "random_dag",
    "read_dapple",
    "read_dnn_partitioning",
    "read_doppler",
    "read_graph",
    "resnet50",
    "series_parallel",
    "t5",
    "vgg19",
]
