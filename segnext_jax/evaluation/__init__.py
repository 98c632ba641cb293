"""Evaluation: counts, metrics, inference at the size of the labels."""
