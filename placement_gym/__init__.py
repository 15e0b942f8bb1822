"""A research gym for device placement and auto-parallelisation of neural networks."""

from placement_gym import baselines, envs, exact, presets, programs, workloads
from placement_gym.cluster import Cluster, Device, Link, Node
from placement_gym.costs import CostModel, RooflineCost, TableCost
from placement_gym.graph import OpGraph
from placement_gym.methods import METHODS
from placement_gym.placement import Placement
from placement_gym.problem import Problem
from placement_gym.rule import Rule
from placement_gym.schedule import Schedule
from placement_gym.simulator import simulate, simulate_batch

__version__ = "0.2.0"

__all__ = [
    "METHODS",
    "Cluster",
    "CostModel",
    "Device",
    "Link",
    "Node",
    "OpGraph",
    "Placement",
    "Problem",
    "RooflineCost",
    "Rule",
    "Schedule",
    "TableCost",
    "baselines",
    "envs",
    "exact",
    "presets",
    "programs",
    "simulate",
    "simulate_batch",
    "workloads",
]
