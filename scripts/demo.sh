#!/usr/bin/env bash
# The main job, end to end: a file in, an adapter out, predictions from it. Leaves nothing behind but the model and the
# build.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. The base model"
scripts/model.sh

say "2. The build"
cargo build --locked
espalier=${CARGO_TARGET_DIR:-target}/debug/espalier

. scripts/server.sh
say "3. A server, on SQLite in a temporary folder"
start_server "$espalier"
echo "ready at $ESPALIER_SERVER"

text="I am still waiting for my card to arrive"

say "4. The base model alone knows features, not labels"
"$espalier" predict "$text"

say "5. Training an adapter on examples/banking77-sample.csv"
"$espalier" train examples/banking77-sample.csv --name demo-intents --label-column category --wait

say "6. Predicting with it"
"$espalier" predict --adapter demo-intents --top-k 3 "$text"

say "7. Rows that it has never seen: examples/banking77-test.csv"
"$espalier" predict --adapter demo-intents --file examples/banking77-test.csv --label-column category

say "8. Stopping the server"
stop_server
echo "done"
