#!/usr/bin/env bash
# Runs every command of README.md and docs/ against a server on the default base model, in a temporary folder. A block whose
# fence has run-by="…" is run by what it names instead.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/model.sh >/dev/null
cargo build --locked --quiet
program=$(realpath "${CARGO_TARGET_DIR:-target}/debug/espalier")

. scripts/server.sh
start_server "$program"
work=$(mktemp -d)
ln -s "$PWD/examples" "$PWD/scripts" "$PWD/models" "$work"
ln -s "$program" "$work/espalier"
status=0
PATH="$work:$PATH" python3 scripts/docs.py "$work" README.md docs/*.md || status=$?
rm -r "$work"
stop_server
exit "$status"
