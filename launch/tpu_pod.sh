#!/usr/bin/env bash
# Train on a Cloud TPU pod: the same command on each of its hosts, which find each other.
#   TPU_NAME=my-pod ZONE=us-central2-b ./launch/tpu_pod.sh --config=configs/ade20k_base.py --workdir=gs://my-bucket/ade
# Prepared data must lie on the disk of each host.
# Each host clones REPOSITORY into ~/segnext_jax the first time. DRY_RUN=1 prints the command.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/run.sh

: "${TPU_NAME:?set TPU_NAME to the name of the pod}" "${ZONE:?set ZONE to its zone}"
repository="${REPOSITORY:-$(git config --get remote.origin.url || true)}"
: "${repository:?set REPOSITORY to the address that the hosts can clone}"
arguments="$(printf '%q ' "$@")"
remote="set -e; [ -d segnext_jax ] || git clone $(printf '%q' "$repository") segnext_jax;"
remote+=" cd segnext_jax; ./launch/train.sh --distributed $arguments"
start gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all \
  --command="$remote"
