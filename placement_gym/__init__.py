"""A research gym for device placement and auto-parallelisation of neural networks."""

from placement_gym import baselines, envs, programs, workloads
from placement_gym.cluster import Cluster, Device, Link
from placement_gym.costs import CostModel, RooflineCost, TableCost
from placement_gym.graph import OpGraph
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import simulate, simulate_batch

__all__ = [
    "Cluster",
    "CostModel",
    "Device",
    "Link",
    "OpGraph",
    "Placement",
    "Problem",
    "RooflineCost",
    "Rule",
    "Schedule",
    "TableCost",
    "baselines",
    "envs",
    "programs",
    "simulate",
    "simulate_batch",
    "workloads",
]
