"""Environments: placement as Markov decision processes."""
