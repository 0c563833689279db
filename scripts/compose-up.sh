#!/usr/bin/env bash
# Starts espalier and PostgreSQL in containers, waits until the server is ready, and prints how to call it.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi

scripts/secrets.sh
"${compose[@]}" up --build --detach
for _ in $(seq 120); do
  if "${compose[@]}" exec -T espalier espalier health >/dev/null 2>&1; then
    scripts/compose-usage.sh
    exit 0
  fi
  sleep 1
done
echo "the server is not ready after 2 minutes; its log:" >&2
"${compose[@]}" logs --tail 50 espalier >&2
exit 1
