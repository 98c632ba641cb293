"""Speed and memory of the parts: `python -m segnext_jax.benchmark --what=...`."""
