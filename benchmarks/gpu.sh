#!/usr/bin/env bash
# Measure everything that needs an accelerator, in one command of less than nine minutes:
#
#   benchmarks/gpu.sh [OUTPUT_FOLDER]
#
# The network in PyTorch runs in bfloat16 under autocast; without torch this package is
# measured alone. Tables go to OUTPUT_FOLDER/gpu.md (default: $OUT, else runs/gpu), what a
# part said to *.log beside it. A part that fails or takes too long is named there, and
# the others run all the same.
#
# $PYTHON (default: python) needs jax, flax, optax, orbax and OpenCV. A machine without a
# network may lack the rest of pyproject.toml's dependencies (grain, ml_collections,
# tensorflow-datasets, ...): unpack their wheels into a folder and name it,
#
#   pip download --no-deps --dest wheels grain ml_collections tensorflow-datasets ...
#   for wheel in wheels/*.whl; do unzip -qo "$wheel" -d packages; done
#   PYTHONPATH=packages benchmarks/gpu.sh
#
# PARTS="train_tiny ops" measures only those: what an earlier run had no time for. Compiled
# programs are kept in $JAX_COMPILATION_CACHE_DIR (default: runs/compiled), so that the next
# run has more time; times to the first result do not use them.
# QUICK=SECONDS does it all on tiny images in so many seconds, to see whether it runs.
set -uo pipefail
output=$(realpath -m "${1:-${OUT:-$(dirname "$0")/../runs/gpu}}")
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python}
mkdir -p "$output"
table="$output/gpu.md"
: >"$table"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

forms=() compiled=(--torch_forms compile)
if ! "$python" -c "import torch" 2>/dev/null; then
  forms=(--torch_forms) compiled=(--torch_forms)
fi
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/runs/compiled}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

size=512 batch=16 wide=(base) growth=(512 1024 2048) stages=(1 3) few=() dtype=bfloat16
seconds=530
if [[ -n ${QUICK:-} ]]; then
  # On a CPU compiling and bfloat16 are what takes its time.
  size=32 batch=2 wide=() growth=(32 64) stages=(3) few=(--rounds=2 --classes=5) dtype=float32
  seconds=$QUICK
fi
deadline=$((SECONDS + seconds))

# part NAME LIMIT COMMAND...: run a part for at most LIMIT seconds, and less near the end.
part() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  if [[ -n ${PARTS:-} && " $PARTS " != *" $name "* ]]; then
    return
  fi
  local left=$((deadline - SECONDS))
  if [[ -n ${QUICK:-} ]]; then
    limit=$left  # The limits are those of a GPU.
  fi
  if ((left < 15)); then
    echo "$name: no time left." >>"$table"
    return
  fi
  timeout --kill-after=5 "$((limit < left ? limit : left))" "$@" \
    >>"$table" 2>"$output/$name.log" ||
    echo "$name: failed or took more than $limit s; see $name.log." >>"$table"
  printf '\n%s: %s s\n\n' "$name" "$((SECONDS - start))" >>"$table"
}

# compare NAME LIMIT OPTIONS...: one table.
compare() {
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" "$python" -m benchmarks.compare --dtype="$dtype" --size="$size" \
    "${few[@]}" "$@"
}

"$python" -c "import jax; print(jax.devices(), jax.__version__)" >>"$table" 2>&1

# The most telling first: near the end there may be no time left.
compare forward 80 --variant tiny "${wide[@]}" --no-memory "${forms[@]}"
compare train_tiny 120 --work step --batch="$batch" "${forms[@]}"
compare forward_batch 80 --variant tiny "${wide[@]}" --batch="$batch" --no-memory \
  "${forms[@]}"
for variant in "${wide[@]}"; do
  compare "train_$variant" 140 --work step --variant="$variant" --batch="$batch" \
    "${forms[@]}"
done
# Formulations of the depthwise convolution.
part ops 50 "$python" -m benchmarks.operations --dtype="$dtype" --batch="$batch" \
  --image_size="$size" --stages "${stages[@]}" --depthwise auto shifted grouped
for form in shifted grouped; do
  compare "forward_$form" 30 --work logits --batch="$batch" --depthwise="$form" \
    --no-memory --torch_forms
done
compare compile 150 --first --work step --batch="$batch" --rounds=1 "${compiled[@]}"
compare memory 60 --work logits --size "${growth[@]}" "${forms[@]}"
compare evaluate 50 --work evaluation --batch 1 8 --no-memory "${forms[@]}"
cat "$table"
