"""The makespan under a rule of the simulator."""
