"""Agents that learn to place."""
