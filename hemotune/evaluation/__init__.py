"""Predictions, statistics on them, and the results of the controls."""
