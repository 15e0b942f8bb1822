"""Baselines: functions from a Problem to a Result, all simulated by one judge."""

from placement_gym.bounds import critical_path_bound_s, lower_bound_s, work_bound_s
from placement_gym.baselines.brute_force import brute_force
from placement_gym.methods import BASELINES
from placement_gym.baselines.enumerative import enumerative
from placement_gym.baselines.exact_ilp import exact_ilp
from placement_gym.baselines.expert import expert, read_split
from placement_gym.baselines.heuristics import critical_path, heft, m_etf, round_robin, single_device
from placement_gym.baselines.linear_program import Solver
from placement_gym.baselines.partitioning import greedy_latency, load_local_search, metis
from placement_gym.baselines.pipeline import exact_dp, pipeline_split
from placement_gym.result import Judge, Result, Status
from placement_gym.baselines.search import local_search, random_search, simulated_annealing

__all__ = [
    "BASELINES",
    "Judge",
    "Result",
    "Solver",
    "Status",
    "brute_force",
    "critical_path",
    "critical_path_bound_s",
    "enumerative",
    "exact_dp",
    "exact_ilp",
    "expert",
    "greedy_latency",
    "heft",
    "load_local_search",
    "local_search",
    "lower_bound_s",
    "m_etf",
    "metis",
    "pipeline_split",
    "random_search",
    "read_split",
    "round_robin",
    "simulated_annealing",
    "single_device",
    "work_bound_s",
]
