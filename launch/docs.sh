#!/usr/bin/env bash
# Build the manual strictly into site/. "serve": show it at http://127.0.0.1:8000, built
# again when a page changes. DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
source launch/run.sh
run install_into_venv docs
# Of mkdocs-material: an advertisement.
export PYTHONPATH="$PWD" NO_MKDOCS_2_WARNING=1
start .venv/bin/mkdocs "${1:-build}" --strict
