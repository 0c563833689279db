#!/usr/bin/env bash
# A page in headless Chromium that calls espalier from another origin (CORS), with an API key: predictions of an encoder, a chat stream of
# a decoder, errors and response headers. A page of an origin that is not listed reads nothing.
#
# Needs Python 3 and Chromium: CHROMIUM names the program; Debian and Ubuntu have it in the package chromium.
set -euo pipefail
cd "$(dirname "$0")/.."

chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ]; then
  echo "error: Chromium is missing: install it (apt-get install chromium), or name it in CHROMIUM" >&2
  exit 1
fi
scripts/model.sh
scripts/smollm2.sh
cargo build --locked --quiet

. scripts/server.sh
program=${CARGO_TARGET_DIR:-target}/debug/espalier
key=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
listed=8931
unlisted=8932

# page PORT CHAT EXPECTED
page() {
  python3 tests/browser/run.py "$chromium" "$1" "$ESPALIER_SERVER" "$key" "$2" | python3 tests/browser/check.py "$3"
}

start_server "$program" models/all-MiniLM-L6-v2 --api-keys "$key" --cors-origins "http://localhost:$listed"
page "$listed" false allowed
page "$unlisted" false refused
stop_server
start_server "$program" models/SmolLM2-135M-Instruct.Q4_1.gguf --api-keys "$key" --cors-origins "http://localhost:$listed"
page "$listed" true allowed-chat
stop_server
