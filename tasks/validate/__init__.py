"""Stage validate: python -m tasks.validate."""
