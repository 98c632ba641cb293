# shellcheck shell=bash
# Sourced: "start COMMAND..." runs a command in place of the shell, or prints it and the
# settings that it would get where DRY_RUN is set.
start() {
  if [ -z "${DRY_RUN:-}" ]; then
    exec "$@"
  fi
  env | grep -E '^(JAX|XLA|NCCL)_' | sort
  printf '%q ' "$@"
  printf '\n'
}
