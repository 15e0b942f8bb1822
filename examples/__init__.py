"""Learners on the environments, one file each; see README.md."""
