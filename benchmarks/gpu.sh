#!/usr/bin/env bash
# Measure everything that needs an accelerator, in one command of less than nine minutes:
#
#   benchmarks/gpu.sh [TORCH_NETWORK.py] [OUTPUT_FOLDER]
#
# TORCH_NETWORK.py: the network in PyTorch (--against); without it, or without torch,
# this package is measured alone. Tables go to OUTPUT_FOLDER/gpu.md (default: $OUT, else
# runs/gpu), the numbers to *.json beside it. A part that fails or takes too long is
# named in the table, and the others run all the same.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
network=${1:-}
output=${2:-${OUT:-runs/gpu}}
python=${PYTHON:-python}
mkdir -p "$output"
table="$output/gpu.md"
: >"$table"

against=()
if [[ -n $network ]] && "$python" -c "import torch" 2>/dev/null; then
  against=(--against="$network")
fi
# All but a tenth of the memory would be JAX's, and PyTorch runs beside it.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

deadline=$((SECONDS + 530))

# measure NAME SECONDS OPTIONS...: one table.
measure() {
  local name=$1 limit=$2
  shift 2
  local left=$((deadline - SECONDS))
  if ((left < 15)); then
    echo "$name: no time left." >>"$table"
    return
  fi
  timeout "$((limit < left ? limit : left))" "$python" -m segnext_jax.benchmark \
    --output="$output/$name.json" "$@" >>"$table" 2>"$output/$name.log" ||
    echo "$name: failed or too slow; see $name.log." >>"$table"
  echo >>"$table"
}

"$python" -c "import jax; print(jax.devices(), jax.__version__)" >>"$table" 2>&1

measure forward_tiny 90 --what=forward --variant=tiny --dtype=bfloat16 "${against[@]}"
measure forward_tiny_16 80 --what=forward --variant=tiny --batch=16 --dtype=bfloat16 "${against[@]}"
measure forward_base_16 90 --what=forward --variant=base --batch=16 --dtype=bfloat16 "${against[@]}"
measure train_tiny 120 --what=train --variant=tiny --batch=16 --dtype=bfloat16 "${against[@]}"
measure train_base 150 --what=train --variant=base --batch=16 --dtype=bfloat16 "${against[@]}"
measure forward_tiny_16_grouped 60 --what=forward --variant=tiny --batch=16 --dtype=bfloat16 --depthwise=grouped
measure ops 60 --what=ops --batch=16 --dtype=bfloat16 --stages 1 3
cat "$table"
