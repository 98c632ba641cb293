"""A run's folder, its checkpoints, and models ready for use."""
