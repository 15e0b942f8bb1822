"""Loads of devices: pipelines and integer programmes."""
