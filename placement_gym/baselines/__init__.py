"""Baselines: functions from a Problem to a Result."""
