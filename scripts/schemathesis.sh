#!/usr/bin/env bash
# Requests that Schemathesis makes from the OpenAPI document, valid and invalid ones, against an encoder and a decoder: no answer is a 5xx,
# and every status, content type, header and body is as the document says.
#
#     scripts/schemathesis.sh [MODEL …]     the base models; the tiny ones of the tests by default
#
# SCHEMATHESIS_EXAMPLES is the number of requests per operation in the fuzzing phase (100 by default). Schemathesis is installed into
# .venv-schemathesis/.
set -euo pipefail
cd "$(dirname "$0")/.."

schemathesis=$(dirname "$(scripts/python-env.sh .venv-schemathesis tests/schemathesis/requirements.txt)")/schemathesis
# Imports of adapters name repositories on the Hugging Face Hub: nothing is downloaded.
export HF_HUB_OFFLINE=1
export SCHEMATHESIS_HOOKS=$PWD/tests/schemathesis/hooks.py
cargo build --locked --quiet
[ $# -gt 0 ] || set -- tests/fixtures/tiny-bert tests/fixtures/decoders/llama

. scripts/server.sh
program=${CARGO_TARGET_DIR:-target}/debug/espalier
failed=0
for model in "$@"; do
  echo "== $model"
  start_server "$program" "$model" --max-queued-jobs 100000
  "$schemathesis" run "$ESPALIER_SERVER/openapi.yaml" --phases examples,coverage,fuzzing --seed 1 --no-shrink --continue-on-failure \
    --max-examples "${SCHEMATHESIS_EXAMPLES:-100}" --request-timeout 120 --suppress-health-check all --warnings off \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance ||
    failed=1
  if grep -E 'panicked|level=ERROR|ERROR' "$server_folder/log"; then
    echo "error: the server logged errors" >&2
    failed=1
  fi
  stop_server
done
exit "$failed"
