"""Conversion of scores to masks, and application of masks to models."""
