"""Integer programmes and their solvers."""
