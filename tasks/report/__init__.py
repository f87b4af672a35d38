"""Stage report: python -m tasks.report; see __main__.py."""
