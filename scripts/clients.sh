#!/usr/bin/env bash
# Clients as they are published against espalier on a real decoder: every script of examples/clients/, and a table of what each one did.
#
#   scripts/clients.sh [--if-available] [CLIENT…]     all of them by default; openai_python alone installs one package
#
# With --if-available it ends without an error, and says so, where the decoder or openai's package cannot be downloaded.
#
# Python's clients are installed into .venv-openai/ and .venv-clients/, those of Node.js into .clients-node/. Clients of Node.js and Java are
# left out, and named, where `node` (20 or later) or `javac` is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

required=yes
if [ "${1:-}" = --if-available ]; then
  required=no
  shift
fi
clients=("$@")
if [ ${#clients[@]} -eq 0 ]; then
  clients=(openai_python langchain_python litellm_python instructor_python pydantic_ai_python openai_agents_python
    llama_index_python huggingface_hub_python openai_node vercel_ai JdkHttpClient)
fi

if ! { scripts/smollm2.sh && scripts/python-env.sh .venv-openai tests/openai/requirements.txt; } >/dev/null; then
  echo "clients: left out, the decoder or the package openai cannot be downloaded" >&2
  [ "$required" = no ] && exit 0
  exit 1
fi
cargo build --locked --quiet
. scripts/server.sh
# So few sequences that clients have to retry.
export ESPALIER_MAX_RUNNING_SEQUENCES=2 ESPALIER_MAX_QUEUED_SEQUENCES=2
start_server "${CARGO_TARGET_DIR:-target}/debug/espalier" models/SmolLM2-135M-Instruct.Q4_1.gguf
export ESPALIER_URL=$ESPALIER_SERVER ESPALIER_MODEL=SmolLM2-135M-Instruct.Q4_1
export LITELLM_LOCAL_MODEL_COST_MAP=True

run_client() {
  case $1 in
    openai_python) "$(scripts/python-env.sh .venv-openai tests/openai/requirements.txt)" examples/clients/openai_python.py ;;
    *_python) "$(scripts/python-env.sh .venv-clients examples/clients/requirements.txt)" "examples/clients/$1.py" ;;
    openai_node | vercel_ai) run_node "$1" ;;
    JdkHttpClient) java examples/clients/JdkHttpClient.java ;;
    *) echo "there is no client $1: see examples/clients/" >&2; return 1 ;;
  esac
}

run_node() {
  mkdir -p .clients-node
  cp examples/clients/node/* .clients-node/
  (cd .clients-node && npm install --no-audit --no-fund --silent && node "$1.mjs")
}

is_missing() {
  case $1 in
    openai_node | vercel_ai) ! command -v node >/dev/null ;;
    JdkHttpClient) ! command -v javac >/dev/null ;;
    *) false ;;
  esac
}

failed=0
for client in "${clients[@]}"; do
  if is_missing "$client"; then
    echo "$client: left out, its runtime is not installed"
    continue
  fi
  echo "$client"
  output=$server_folder/client-$client
  if run_client "$client" >"$output" 2>"$output.errors"; then
    sed 's/^/  /' "$output"
  else
    failed=1
    sed 's/^/  /' "$output"
    tail -n 20 "$output.errors" >&2
    echo failed >>"$output"
  fi
done

echo
printf '| client | chat | stream | structured | tools | embeddings | files | fine-tuning | errors | retry |\n|---|---|---|---|---|---|---|---|---|---|\n'
for client in "${clients[@]}"; do
  output=$server_folder/client-$client
  [ -e "$output" ] || continue
  printf '| %s |' "$client"
  for feature in chat stream structured tools embeddings files fine-tuning errors retry; do
    if grep -q "^$feature: " "$output"; then printf ' yes |'; else printf '  |'; fi
  done
  if grep -q '^failed$' "$output"; then printf ' failed'; fi
  echo
done
stop_server
exit "$failed"
