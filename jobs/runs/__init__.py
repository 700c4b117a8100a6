"""The run record: lease, steps, resume."""
