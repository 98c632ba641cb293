"""Predictions of many files: what goes in, what comes out, and the loop between."""
