"""Kernels of our own for accelerators, where XLA's would read arrays many times."""
