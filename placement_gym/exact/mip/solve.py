"""A linear programme, solved by the solver that is asked for."""

from placement_gym.exact.mip.linear_program import LinearProgram, Solved, Solver, solve_by_cp_sat


def solve_program(program: LinearProgram, solver: Solver) -> Solved:
    """Minimises; see `Solver`.

    Raises:
        MissingDependency: The solver's package is not installed.
    """
    solver.check_installed()
    if solver.name == "cp_sat":
        return solve_by_cp_sat(program, solver)
    from placement_gym.exact.mip.highs import solve

    return solve(program, solver)
