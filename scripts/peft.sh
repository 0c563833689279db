#!/usr/bin/env bash
# espalier against the real PEFT, on the real base model and over HTTP, for every method that PEFT has: an adapter trained
# here opens there, and one trained there is served here, with the same logits. Prints the differences; fails where one is
# above 1e-4.
#
# Needs Python with the packages of tests/peft/requirements.txt: PEFT_PYTHON names one that has them; without it,
# scripts/python-env.sh makes .venv/.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PEFT_PYTHON:-$(scripts/python-env.sh)}
scripts/model.sh
cargo build --locked

. scripts/server.sh
start_server "${CARGO_TARGET_DIR:-target}/debug/espalier"
mkdir "$server_folder/peft"
head -n 201 examples/banking77-sample.csv >"$server_folder/sample.csv"
"$python" tests/peft/compare.py "$ESPALIER_SERVER" models/all-MiniLM-L6-v2 "$server_folder/sample.csv" "$server_folder/peft"
stop_server
