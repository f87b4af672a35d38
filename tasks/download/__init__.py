"""Stage download: python -m tasks.download."""
