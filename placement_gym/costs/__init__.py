"""Costs: seconds of ops on devices, from a roofline, a table or measurements."""

from placement_gym.costs.model import CostModel, ProfiledCost, RooflineCost, TableCost

__all__ = ["CostModel", "ProfiledCost", "RooflineCost", "TableCost"]
