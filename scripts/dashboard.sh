#!/usr/bin/env bash
# The dashboard in a browser: the tests of tests/dashboard, each file on a server of its own. `scripts/dashboard.sh screenshots` writes
# docs/images instead, on the default base model.
#
# Needs Node.js and Chromium: as root on Debian and Ubuntu, apt-get installs what is missing. Elsewhere Playwright downloads a Chromium;
# CHROMIUM names one that is somewhere else.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "skipped: tests of the dashboard: $*"
  exit 0
}

has_chromium() {
  for name in chromium chromium-browser google-chrome; do
    CHROMIUM=${CHROMIUM:-$(command -v "$name" || true)}
  done
  [ -n "$CHROMIUM" ]
}

if ! { command -v node && command -v npm && has_chromium; } >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "scripts/dashboard.sh: installing Node.js and Chromium with apt-get" >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends nodejs npm chromium; } >&2 || true
fi
command -v node >/dev/null && command -v npm >/dev/null || skip "Node.js and npm are not installed"
modules=tests/dashboard/node_modules
if ! cmp --silent tests/dashboard/package.json "$modules/.installed"; then
  (cd tests/dashboard && npm install --no-package-lock --no-audit --no-fund --silent) || skip "npm cannot install Playwright"
  cp tests/dashboard/package.json "$modules/.installed"
fi
if ! has_chromium; then
  node "$modules/playwright-core/cli.js" install chromium || skip "no Chromium is installed, and none can be downloaded"
fi
export CHROMIUM

cargo build --locked --quiet
ESPALIER_PROGRAM=$(realpath "${CARGO_TARGET_DIR:-target}/debug/espalier")
export ESPALIER_PROGRAM
if [ "${1:-}" = screenshots ]; then
  scripts/model.sh
  ESPALIER_TEST_MODEL=models/all-MiniLM-L6-v2 node tests/dashboard/screenshots.mjs
else
  # One file after the other: the times that are measured are those of one browser.
  node --test --test-concurrency=1 --test-reporter=spec tests/dashboard/*.test.mjs
fi
