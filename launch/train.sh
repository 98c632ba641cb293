#!/usr/bin/env bash
# Install the package and run the main job with the given arguments.
# Without arguments: SegNeXt-T on the procedural shapes, which need no download.
# DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
source launch/run.sh

accelerator=cpu
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
  accelerator=cuda
elif compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
  accelerator=tpu
fi
extras="$accelerator"
if [[ "$*" == *gs://* ]]; then extras+=",gcs"; fi
if [[ "$*" == *s3://* ]]; then extras+=",s3"; fi
run install_into_venv "$extras"

if [ $# -eq 0 ]; then
  run .venv/bin/python data/shapes/prepare.py
  set -- --config=configs/shapes_tiny.py
fi
start .venv/bin/python -m segnext_jax.main "$@"
