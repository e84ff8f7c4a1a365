#!/usr/bin/env bash
# The GPU check, 13 minutes at most: tests/gpu/run_all.sh [--small] [OUT [PART...]]
# Each part writes OUT/PART.jsonl as it measures; of whatever is there, OUT/table.md is made at the
# end, also after Ctrl-C or SIGTERM. Without PART all of them, in this order:
parts=(environment marked_tests bandwidth throughput tickets)
# PYTHON=FILE: the interpreter; LIMIT=SECONDS: less time for each part; DEVICE=cpu: not the GPU
set -u
cd "$(dirname "$0")/../.." || exit 1

declare -A limits=( # seconds
    [environment]=30 [marked_tests]=150 [bandwidth]=130 [throughput]=240 [tickets]=170
)
grace=5 # seconds between SIGTERM and SIGKILL

flags=()
if [ "${1:-}" = --small ]; then
    flags+=(--small)
    shift
fi
[ -z "${DEVICE:-}" ] || flags+=(--device "$DEVICE")
out=$(realpath -m "${1:-runs/gpu}") # later runs of single parts may add to it
[ $# -lt 2 ] || parts=("${@:2}")
mkdir -p "$out" || exit 1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
python=${PYTHON:-python3}

make_table() {
    "$python" tests/gpu/table.py "$out"
}

note() { # $1: the exit code of the part
    printf '{"part": "%s", "exit_code": %d, "seconds": %d, "limit": %d}\n' \
        "$part" "$1" $((SECONDS - began)) "$limit" >>"$out/parts.jsonl"
}

child=
stop() { # $1: the exit code
    trap '' INT TERM
    if [ -n "$child" ]; then
        kill -TERM "$child" # `timeout`, which passes it on to all that the part has started
        wait "$child"
        note "$1"
    fi
    make_table
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

failed=0
for part in "${parts[@]}"; do
    limit=${limits[$part]:-}
    if [ -z "$limit" ]; then
        echo "no part is called $part: ${!limits[*]}" >&2
        failed=1
        continue
    fi
    if [ "${LIMIT:-$limit}" -lt "$limit" ]; then limit=$LIMIT; fi
    echo "+ $part, $limit s at most"
    began=$SECONDS
    # in the background: bash hears a signal while it waits, but not while a command runs
    timeout -k "$grace" "$limit" \
        "$python" "tests/gpu/$part.py" --out "$out/$part.jsonl" ${flags[@]+"${flags[@]}"} &
    child=$!
    wait "$child"
    code=$?
    child=
    [ "$code" -eq 0 ] || failed=1
    note "$code"
done
make_table || failed=1
exit "$failed"
