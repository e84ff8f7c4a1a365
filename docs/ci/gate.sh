#!/usr/bin/env bash
# gate.sh CKPT DIR: prune a checkpoint, pack it, and hold what is shipped against its limits.
# PRUNE_FLAGS says how it is pruned, as "--criterion magnitude --repair bn", NETWORK_FLAGS which
# network of one's own it is, as "--model own.py:build --data own.py:batches".
# Exit code 0: all kept. 4: one is not. Anything else: it could not be told.
set -euo pipefail
checkpoint=$1
out=$2
mkdir -p "$out"

# accuracy, work and firing of the pruned network; the report is there whatever comes of the gates
# words as a shell reads them, also of several lines, without running anything
words='import shlex, sys; [sys.stdout.write(f"{word}\0") for word in shlex.split(sys.argv[1])]'
python -c "$words" "${PRUNE_FLAGS:-} ${NETWORK_FLAGS:-}" > /dev/null # stops at an open quote
mapfile -d '' how < <(python -c "$words" "${PRUNE_FLAGS:-}")
mapfile -d '' network < <(python -c "$words" "${NETWORK_FLAGS:-}")
snnprune prune "$checkpoint" "${network[@]}" --sparsity 0.8 "${how[@]}" -o "$out/pruned.safetensors" \
  --report "$out/report" --junit "$out/prune.xml" --force -q \
  --max-accuracy-drop "${MAX_ACCURACY_DROP:-5}" --max-dead 5% --max-synops "${MAX_SYNOPS:-150k}"

# size and sparsity of the very file that is shipped, counted again in it
snnprune export "$out/pruned.safetensors" --to packed -o "$out/packed.safetensors" --force -q
snnprune check "$out/packed.safetensors" "${network[@]}" --baseline "$checkpoint" \
  --junit "$out/check.xml" --force -q --min-sparsity 0.8 --max-layer-sparsity 0.99 \
  --max-size "${MAX_SIZE:-40kB}" --min-spike-agreement "${MIN_SPIKE_AGREEMENT:-0.9}"
