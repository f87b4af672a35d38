"""Stage group: python -m tasks.group."""
