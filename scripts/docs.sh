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
export ESPALIER_DATA_DIR=$server_folder/data/all-MiniLM-L6-v2
work=$(mktemp -d)
ln -s "$PWD/examples" "$PWD/scripts" "$PWD/models" "$PWD/benches" "$work"
ln -s "$program" "$work/espalier"
status=0
pages=$(ls docs/*.md | grep -v '^docs/access.md$')
PATH="$work:$PATH" python3 scripts/docs.py "$work" README.md $pages || status=$?
stop_server
# Its commands need the key of an administrator.
export ESPALIER_API_KEY=a-key-for-the-commands-of-the-docs
start_server "$program" models/all-MiniLM-L6-v2 --admin-keys "$ESPALIER_API_KEY"
PATH="$work:$PATH" python3 scripts/docs.py "$work" docs/access.md || status=$?
rm -r "$work"
stop_server
exit "$status"
