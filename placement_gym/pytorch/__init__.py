"""The only torch in the gym: capture of modules."""
