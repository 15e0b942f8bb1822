"""A linear programme, solved by the solver that is asked for."""

from placement_gym.exact.mip.linear_program import LinearProgram, Solved, Solver, solve_by_cp_sat


def solve_program(program: LinearProgram, solver: Solver) -> Solved:
    """Minimises until the time limit of the solver or the deadline of the programme, whichever is earlier.

    Raises:
        MissingDependency: The solver's package is not installed.
        OutOfTimeError: The deadline is over before the solver has begun.
    """
    solver.check_installed()
    if solver.name == "cp_sat":
        return solve_by_cp_sat(program, solver)
    from placement_gym.exact.mip.highs import solve

    return solve(program, solver)
