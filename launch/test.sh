#!/usr/bin/env bash
# Install the package with its test extra, check the code, run the tests, three files at
# a time. --all also runs those marked slow, in turn; --quick leaves out pyright and what
# calls networks: under a minute. Further arguments go to pytest.
# --robustness[=N] tries N (3000) malformed inputs instead, and prints a table.
# DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
source launch/run.sh
run install_into_venv test

if [[ "${1:-}" = --robustness* ]]; then
  inputs=${1#--robustness}
  inputs=${inputs#=}
  start .venv/bin/python -m tests.robustness --inputs="${inputs:-3000}"
  exit
fi

# By whole files: what the tests of one share is compiled once. Three for two cores, as
# some tests wait. A worker that crashes ends the session: pytest-xdist waits for ever
# after it has replaced one.
options=(-m "not slow" --numprocesses=3 --dist=loadfile --no-loadscope-reorder)
options+=(--max-worker-restart=0)
if [ "${1:-}" = --all ]; then
  # One at a time: some start four processes, which wait for each other with a limit.
  options=()
  shift
fi
run .venv/bin/ruff format --check .
run .venv/bin/ruff check .
[ "${1:-}" = --quick ] || run .venv/bin/pyright
run .venv/bin/python -m pytest "${options[@]}" "$@"
