#!/usr/bin/env bash
# Install the package with its test extra, check the code, run the tests.
# --all also runs the tests marked slow; further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
install_into_venv test

tests=(-m "not slow")
if [ "${1:-}" = --all ]; then
  tests=()
  shift
fi
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/python -m pytest "${tests[@]}" "$@"
