"""Stage prepare: python -m tasks.prepare."""
