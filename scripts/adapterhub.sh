#!/usr/bin/env bash
# espalier against the real `adapters` package of AdapterHub, on the real base model and over HTTP: a bottleneck trained here and
# downloaded in AdapterHub's form opens there, and one trained there is served here, with the same logits. Prints the
# differences; fails where one is above 1e-4.
#
# Needs Python with the packages of tests/adapterhub/requirements.txt, which ADAPTERS_PYTHON names: `adapters` wants a
# transformers of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${ADAPTERS_PYTHON:?names a Python with the packages of tests/adapterhub/requirements.txt}
scripts/model.sh
cargo build --locked

. scripts/server.sh
head -n 201 examples/banking77-sample.csv >"$server_folder/sample.csv"
mkdir "$server_folder/adapterhub"
start_server "${CARGO_TARGET_DIR:-target}/debug/espalier"
"$python" tests/adapterhub/compare.py "$ESPALIER_SERVER" models/all-MiniLM-L6-v2 "$server_folder/sample.csv" \
  "$server_folder/adapterhub"
stop_server
