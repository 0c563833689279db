#!/usr/bin/env bash
# espalier against the real PEFT, on the real base model and over HTTP, for every method that PEFT has: an adapter trained
# here opens there, and one trained there is served here, with the same logits. Then the same on a small RoBERTa and a small
# DistilBERT, whose heads have a dense layer. Prints the differences; fails where one is above 1e-4.
#
# Needs Python with the packages of tests/peft/requirements.txt: PEFT_PYTHON names one that has them; without it,
# scripts/python-env.sh makes .venv/.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PEFT_PYTHON:-$(scripts/python-env.sh)}
scripts/model.sh
cargo build --locked

. scripts/server.sh
head -n 201 examples/banking77-sample.csv >"$server_folder/sample.csv"
for model in models/all-MiniLM-L6-v2 tests/fixtures/architectures/roberta tests/fixtures/architectures/distilbert; do
  work=$server_folder/peft/$(basename "$model")
  mkdir -p "$work"
  start_server "${CARGO_TARGET_DIR:-target}/debug/espalier" "$model"
  "$python" tests/peft/compare.py "$ESPALIER_SERVER" "$model" "$server_folder/sample.csv" "$work"
  stop_server
done
