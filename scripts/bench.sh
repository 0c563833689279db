#!/usr/bin/env bash
# How long the main job takes on this machine, over HTTP, with a release build: training on the sample, then predicting
# for the test rows. What is compared with others is measured by the programs in benches/.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/model.sh
cargo build --release --locked
espalier=${CARGO_TARGET_DIR:-target}/release/espalier
. scripts/server.sh
start_server "$espalier"

now() { date +%s%N; }
seconds() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.2f", (to - from) / 1e9 }'; }

from=$(now)
"$espalier" train examples/banking77-sample.csv --name bench --label-column category --wait --json >/dev/null 2>&1
training=$(seconds "$from" "$(now)")

# Once to load the adapter, then measured.
predict() { "$espalier" predict --adapter bench --file examples/banking77-test.csv --label-column category; }
predict >/dev/null
from=$(now)
result=$(predict)
predicting=$(seconds "$from" "$(now)")

echo "cores: $(getconf _NPROCESSORS_ONLN)"
echo "training on examples/banking77-sample.csv: $training s"
echo "predicting for examples/banking77-test.csv: $predicting s ($result)"
