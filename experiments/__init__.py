"""The workbench: python -m experiments.<verb>."""
