"""Workloads: where problems come from."""
