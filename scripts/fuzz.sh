#!/usr/bin/env bash
# Fuzzes the dataset readers: scripts/fuzz.sh [SECONDS [TARGET …]], by default every target for 600 seconds. Installs a nightly
# toolchain and cargo-fuzz where they are missing. Prints a line per target, and fails if an input crashed, took more than a second
# or more than 1 GiB of memory; that input is then in fuzz/artifacts. Inputs that reach new code are kept in the build folder.
# scripts/fuzz.sh merge adds those of them that are needed, up to 4 KiB each, to the seeds in fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

max_bytes=65536
seed_bytes=4096
toolchain=nightly

if ! cargo "+$toolchain" --version >/dev/null 2>&1; then
    rustup toolchain install "$toolchain" --profile minimal
fi
if ! cargo "+$toolchain" fuzz --version >/dev/null 2>&1; then
    cargo "+$toolchain" install --quiet --locked cargo-fuzz
fi
cargo "+$toolchain" fuzz build
host=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')
build=${CARGO_TARGET_DIR:-fuzz/target}
found=$build/corpus
touch "$build/started"

# Every target writes its file here: in memory, where the system has such a folder.
TMPDIR=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
# Freed memory is not kept for long, so that the peak is that of the program.
export ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=4:detect_odr_violation=0

target() {
    "$build/$host/release/$1" "${@:2}"
}

targets() {
    cargo "+$toolchain" fuzz list
}

merge() {
    local name=$1
    mkdir -p "$found/$name" "fuzz/corpus/$name"
    local seeds
    seeds=$(mktemp -d)
    # Counts of passes through the same code are left out, so that the seeds are few.
    target "$name" -merge=1 -use_counters=0 -max_len="$seed_bytes" -timeout=10 "$seeds" "fuzz/corpus/$name" "$found/$name" \
        >"$build/$name.log" 2>&1
    rm -rf "fuzz/corpus/$name"
    mv "$seeds" "fuzz/corpus/$name"
    chmod 755 "fuzz/corpus/$name"
    echo "$name: $(find "fuzz/corpus/$name" -type f | wc -l) seeds, $(du -sb "fuzz/corpus/$name" | cut -f1) bytes"
}

# Milliseconds of an input on its own.
milliseconds() {
    target "$1" -timeout=60 "$2" 2>&1 | sed -n 's/^Executed .* in \([0-9]*\) ms$/\1/p'
}

fuzz() {
    local name=$1 end=$((SECONDS + $2)) log=$build/$1.log artifacts=fuzz/artifacts/$1/ executions=0 slowest=0 peak=0 crashes=0
    mkdir -p "$found/$name" "$artifacts"
    local dictionary=fuzz/dictionaries/fields.dict
    [ "$name" = xlsx ] && dictionary=fuzz/dictionaries/workbook.dict
    statistic() {
        sed -n "s/^stat::$1: *//p" "$log"
    }
    while [ "$SECONDS" -lt "$end" ] && [ "$crashes" -eq 0 ]; do
        target "$name" -max_total_time=$((end - SECONDS)) -timeout=1 -rss_limit_mb=1024 -max_len="$max_bytes" -detect_leaks=0 \
            -entropic=0 -dict="$dictionary" -artifact_prefix="$artifacts" -print_final_stats=1 \
            "$found/$name" "fuzz/corpus/$name" >"$log" 2>&1 || crashes=1
        local count
        count=$(statistic number_of_executed_units)
        executions=$((executions + ${count:-0}))
        slowest=$(printf '%s\n' "$slowest" "$(statistic slowest_unit_time_sec)" | sort -n | tail -1)
        peak=$(printf '%s\n' "$peak" "$(statistic peak_rss_mb)" | sort -n | tail -1)
        # The limit is one of elapsed time, and the machine may have been busy.
        local slow
        slow=$(find "$artifacts" -name 'timeout-*' -newer "$build/started" | head -1)
        if [ -n "$slow" ] && [ "$(milliseconds "$name" "$slow")" -lt 1000 ]; then
            rm "$slow"
            crashes=0
        fi
    done
    echo "$name: $executions executions, $crashes crashes, slowest $slowest s, peak $peak MiB"
    [ "$crashes" -eq 0 ] || { echo "  the input is in $artifacts, and the messages are in $log"; return 1; }
}

if [ "${1:-}" = merge ]; then
    shift
    for name in ${@:-$(targets)}; do merge "$name"; done
    exit
fi
seconds=${1:-600}
shift || true
failed=0
for name in ${@:-$(targets)}; do
    fuzz "$name" "$seconds" || failed=1
done
exit $failed
