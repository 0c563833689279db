#!/usr/bin/env bash
# Webhooks on a real server, checked with the library of Standard Webhooks for Python.
#
# Needs Python with the packages of tests/webhooks/requirements.txt, which are installed into .venv-webhooks/.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(scripts/python-env.sh .venv-webhooks tests/webhooks/requirements.txt)
scripts/model.sh >/dev/null
cargo build --locked --quiet

. scripts/server.sh
program=${CARGO_TARGET_DIR:-target}/debug/espalier
start_server "$program" models/all-MiniLM-L6-v2 --webhook-allow 127.0.0.1
"$python" tests/webhooks/receiver.py "$program"
stop_server
