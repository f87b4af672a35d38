"""Stage controls: python -m tasks.controls."""
