"""Photographs with one class each: sources, crops, batches, for pre-training."""
