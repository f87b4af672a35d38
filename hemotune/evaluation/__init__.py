"""Predictions, statistics on them, and what the controls say about a split."""
