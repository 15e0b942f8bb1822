"""Baselines: heuristics and searches, functions from a Problem to a Result."""

from placement_gym.baselines.enumerative import enumerative
from placement_gym.baselines.expert import expert, read_split
from placement_gym.baselines.heuristics import round_robin, single_device
from placement_gym.baselines.list_methods import cpop, critical_path, dls, etf, heft, m_etf, peft
from placement_gym.baselines.partitioning import greedy_latency, load_local_search, metis
from placement_gym.baselines.search import local_search, random_search, simulated_annealing

__all__ = [
    "cpop",
    "critical_path",
    "dls",
    "enumerative",
    "etf",
    "expert",
    "greedy_latency",
    "heft",
    "load_local_search",
    "local_search",
    "m_etf",
    "metis",
    "peft",
    "random_search",
    "read_split",
    "round_robin",
    "simulated_annealing",
    "single_device",
]
