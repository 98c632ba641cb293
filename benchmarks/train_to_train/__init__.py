"""Two trainings, step by step and at their end; see `__main__`."""
