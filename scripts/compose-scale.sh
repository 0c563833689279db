#!/usr/bin/env bash
# Brings up all overlays of deploy/compose: two API replicas behind nginx, two workers, an S3 server, PostgreSQL and Prometheus. Trains and predicts
# through nginx, kills each replica under load, and removes the containers with what they stored. No request may fail that is retried after Retry-After.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--project-name espalier-scale --file docker-compose.yml)
for overlay in workers s3 gateway observability; do compose+=(--file "deploy/compose/$overlay.yml"); done
export ESPALIER_PORT=${ESPALIER_PORT:-18080} ESPALIER_GATEWAY_PORT=${ESPALIER_GATEWAY_PORT:-18090}
export ESPALIER_PROMETHEUS_PORT=${ESPALIER_PROMETHEUS_PORT:-19090}

scripts/secrets.sh
cleanup() {
  local code=$?
  trap - EXIT
  if [ "$code" -ne 0 ]; then "${compose[@]}" logs --tail 20 >&2 || true; fi
  "${compose[@]}" down --volumes >/dev/null 2>&1 || true
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The image of the first service is that of the others.
"${compose[@]}" build espalier s3 gateway prometheus
"${compose[@]}" up --detach --scale worker=2
python3 scripts/compose_scale.py "http://127.0.0.1:$ESPALIER_GATEWAY_PORT" "http://127.0.0.1:$ESPALIER_PROMETHEUS_PORT" secrets/api_keys \
  "$("${compose[@]}" ps --quiet espalier)" "$("${compose[@]}" ps --quiet espalier-2)"
docker images --format '{{.Repository}}: {{.Size}}' | grep '^espalier'
