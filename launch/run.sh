# shellcheck shell=bash
# Sourced: "start COMMAND..." runs a command in place of the shell, or prints it and the
# settings that it would get where DRY_RUN is set; "run COMMAND..." does so and goes on.
run() {
  if [ -z "${DRY_RUN:-}" ]; then
    "$@"
  else
    printf '%q ' "$@"
    printf '\n'
  fi
}

start() {
  if [ -z "${DRY_RUN:-}" ]; then
    exec "$@"
  fi
  { env | grep -E '^(JAX|XLA|NCCL)_' || true; } | sort
  printf '%q ' "$@"
  printf '\n'
}
