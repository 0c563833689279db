#!/usr/bin/env bash
# OpenAI's own Python client, as it is published, against espalier on a real decoder with an adapter: models, chat, streaming chat,
# answers that are parsed into objects, tools, completions, errors.
#
# `scripts/openai.sh --update` writes tests/openai/request_fields.md, the table of what happens to each field.
#
# Needs Python with the packages of tests/openai/requirements.txt: OPENAI_PYTHON names one that has them; without it, they are
# installed into .venv-openai/.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${OPENAI_PYTHON:-$(scripts/python-env.sh .venv-openai tests/openai/requirements.txt)}
scripts/smollm2.sh
cargo build --locked --quiet

. scripts/server.sh
program=${CARGO_TARGET_DIR:-target}/debug/espalier
start_server "$program" models/SmolLM2-135M-Instruct.Q4_1.gguf
for fruit in "red apple" "green pear" "blue plum"; do
  for _ in 1 2 3 4 5 6 7 8; do
    set -- $fruit
    echo "{\"prompt\": \"fruit $1\", \"completion\": \" $2\"}"
  done
done >"$server_folder/fruit.jsonl"
"$program" train "$server_folder/fruit.jsonl" --name fruit --epochs 30 --validation-fraction 0
"$python" tests/openai/client.py "$ESPALIER_SERVER" fruit
"$python" tests/openai/tools.py "$ESPALIER_SERVER" SmolLM2-135M-Instruct.Q4_1
"$python" tests/openai/fine_tuning.py "$ESPALIER_SERVER"
stop_server
# Every field of the client's request types. The fine-tuning jobs that it creates are not run.
start_server "$program" models/SmolLM2-135M-Instruct.Q4_1.gguf --role api --max-queued-jobs 100000
"$python" tests/openai/request_fields.py "$ESPALIER_SERVER" tests/openai/request_fields.md "$@"
stop_server
