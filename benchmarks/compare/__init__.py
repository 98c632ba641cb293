"""This package beside the same network in PyTorch: `python -m benchmarks.compare`."""
