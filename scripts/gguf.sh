#!/usr/bin/env bash
# A real GGUF file as the base: SmolLM2-135M-Instruct, quantised, over HTTP. What the bare base answers (the last token's hidden
# state) beside what transformers makes of the same file. Prints the differences; fails where one is above 1e-4.
#
# Needs Python with the packages of tests/gguf/requirements.txt: GGUF_PYTHON names one that has them; without it,
# they are installed into .venv-gguf/.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${GGUF_PYTHON:-$(scripts/python-env.sh .venv-gguf tests/gguf/requirements.txt)}
scripts/smollm2.sh
cargo build --locked

. scripts/server.sh
start_server "${CARGO_TARGET_DIR:-target}/debug/espalier" models/SmolLM2-135M-Instruct.Q4_1.gguf
"$python" tests/gguf/compare.py "$ESPALIER_SERVER" models SmolLM2-135M-Instruct.Q4_1.gguf
stop_server
