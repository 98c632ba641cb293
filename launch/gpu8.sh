#!/usr/bin/env bash
# Train on all GPUs of this machine: one process, JAX uses them all.
#   ./launch/gpu8.sh --config=configs/ade20k_base.py --workdir=runs/ade
# DRY_RUN=1 prints the command. CUDA_VISIBLE_DEVICES=0,1 uses fewer.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/run.sh

# Half-written programs of other shapes are no use: keep what was compiled.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/segnext_jax}"
# Training takes nearly all of the memory; one allocation at the start is the fastest.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
start ./launch/train.sh "$@"
