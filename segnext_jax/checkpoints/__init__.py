"""Checkpoints of a run on disk: which there are, are they whole, what is in them."""
