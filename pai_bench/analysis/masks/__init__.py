"""Comparison of stored masks: overlap between methods, seeds and scoring data."""
