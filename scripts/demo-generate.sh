#!/usr/bin/env bash
# A small decoder learns how to answer, and answers: conversations in, an adapter out, words from it as they come. Leaves nothing
# behind but the model and the build.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. The base model: SmolLM2-135M-Instruct, a GGUF file"
scripts/smollm2.sh

say "2. The build"
cargo build --locked
espalier=${CARGO_TARGET_DIR:-target}/debug/espalier

. scripts/server.sh
say "3. A server, on SQLite in a temporary folder"
start_server "$espalier" models/SmolLM2-135M-Instruct.Q4_1.gguf
echo "ready at $ESPALIER_SERVER"

question="somebody stole my card, what now?"

say "4. What the base model says: $question"
"$espalier" chat --temperature 0 --max-tokens 60 "$question"

say "5. Training an adapter on examples/replies.jsonl"
"$espalier" train examples/replies.jsonl --name demo-replies --epochs 6 --batch-size 4 --wait

say "6. What the adapter says"
"$espalier" chat --adapter demo-replies --temperature 0 "$question"
"$espalier" chat --adapter demo-replies --temperature 0 "how old do i have to be?"

say "7. Stopping the server"
stop_server
echo "done"
