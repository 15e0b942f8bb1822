"""Clusters as TOML files: presets by name, and the reader of files of the same form."""

from placement_gym.presets.cluster_file import cluster, names, read_cluster

__all__ = ["cluster", "names", "read_cluster"]
