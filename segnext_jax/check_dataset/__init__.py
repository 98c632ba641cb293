"""`segnext-jax check`: what a data set holds, and what is wrong.

Every photograph and mask is read once, and all faults are collected. No JAX is needed.
"""
