#!/usr/bin/env bash
# The figures of every kind of task, on the real base model and over HTTP, beside those that scikit-learn, SciPy and seqeval
# compute from the answers. Prints both; fails where they differ.
#
# Needs Python with the packages of tests/metrics/requirements.txt: METRICS_PYTHON names one that has them; without it,
# they are installed into .venv-metrics/.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${METRICS_PYTHON:-$(scripts/python-env.sh .venv-metrics tests/metrics/requirements.txt)}
scripts/model.sh
cargo build --locked

. scripts/server.sh
start_server "${CARGO_TARGET_DIR:-target}/debug/espalier"
mkdir "$server_folder/metrics"
"$python" tests/metrics/compare.py "$ESPALIER_SERVER" examples/banking77-sample.csv "$server_folder/metrics"
stop_server
