"""Predictions: of one image in Python (`predictor`), of many files by the command."""
