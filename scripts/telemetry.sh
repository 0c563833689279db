#!/usr/bin/env bash
# Checks what operators see, on a server with a tiny base model: promtool reads the metrics, the alert rules and their tests; a
# Prometheus scrapes the server and evaluates every expression of deploy/; the dashboard has the types of Grafana's schema; a collector
# receives and counts the traces; `espalier doctor` passes.
#
# Needs Prometheus (as root on Debian and Ubuntu, apt-get installs it), Python, and npm for the types of Grafana, whose check is left out
# without it.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: Prometheus is missing: install it (Debian, Ubuntu: apt-get install prometheus)" >&2
    exit 1
  fi
  echo "scripts/telemetry.sh: installing Prometheus with apt-get" >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends prometheus; } >&2
fi
python=$(scripts/python-env.sh .venv-telemetry tests/telemetry/requirements.txt)
cargo build --locked --quiet
program=$(realpath "${CARGO_TARGET_DIR:-target}/debug/espalier")

promtool check rules deploy/prometheus/alerts.yml
promtool test rules tests/telemetry/alerts_test.yml
promtool check config --syntax-only deploy/prometheus/prometheus.yml

. scripts/server.sh
helpers=()
stop_helpers() {
  for helper in "${helpers[@]}"; do kill "$helper" 2>/dev/null || true; done
}
trap 'code=$?; stop_helpers; server_cleanup "$code"' EXIT

"$python" tests/telemetry/collector.py "$server_folder/port" "$server_folder/spans" &
helpers+=($!)
until [ -s "$server_folder/port" ]; do sleep 0.1; done
key=the-key-of-the-telemetry-check
export ESPALIER_API_KEYS=$key OTEL_EXPORTER_OTLP_ENDPOINT
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$(cat "$server_folder/port")
start_server "$program" tests/fixtures/decoders/llama --blob-store "file://$server_folder/bucket"
address=${ESPALIER_SERVER#http://}

# The configuration of deploy/ with this server, a short interval and the key.
mkdir "$server_folder/prometheus"
printf %s "$key" >"$server_folder/prometheus/key"
cp deploy/prometheus/alerts.yml "$server_folder/prometheus/"
sed -e "s/espalier:8080/$address/" -e 's/15s/1s/' -e "s|/etc/prometheus/espalier-key|$server_folder/prometheus/key|" \
  deploy/prometheus/prometheus.yml >"$server_folder/prometheus/prometheus.yml"
promtool check config "$server_folder/prometheus/prometheus.yml"
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
prometheus --config.file="$server_folder/prometheus/prometheus.yml" --storage.tsdb.path="$server_folder/prometheus/data" \
  --web.listen-address="127.0.0.1:$port" --log.level=error &
helpers+=($!)

"$python" tests/telemetry/use.py "$ESPALIER_SERVER" "$key"
# Job metrics are read every 5 seconds, and a rate needs two scrapes.
sleep 12
curl -sS -H "Authorization: Bearer $key" "$ESPALIER_SERVER/metrics" >"$server_folder/metrics"
promtool check metrics <"$server_folder/metrics"
"$python" tests/telemetry/check.py "http://127.0.0.1:$port" "$server_folder/metrics"

"$program" doctor --model tests/fixtures/decoders/llama --data-dir "$server_folder/data/llama" --listen "$address"

if command -v npm >/dev/null; then
  schema=$server_folder/schema
  mkdir "$schema"
  cp tests/telemetry/package.json "$schema/"
  npm install --prefix "$schema" --silent --no-audit --no-fund
  { echo 'import type { Dashboard } from "@grafana/schema";' && printf 'export const dashboard: Dashboard = ' &&
    cat deploy/grafana/espalier.json; } >"$schema/dashboard.ts"
  "$schema/node_modules/.bin/tsc" --noEmit --strict --skipLibCheck --moduleResolution bundler --module esnext "$schema/dashboard.ts"
  echo "the dashboard has the types of @grafana/schema"
fi

stop_server
"$python" - "$server_folder/spans" <<'PYTHON'
import json, pathlib, sys
counts = json.loads(pathlib.Path(sys.argv[1]).read_text())
missing = {"POST /jobs", "POST /predict", "POST /generate", "job", "train", "epoch", "checkpoint", "publish", "tokenize", "queue", "forward", "prefill", "decode", "database"} - counts.keys()
print(f"{sum(counts.values())} spans received:", ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
sys.exit(f"error: no spans {sorted(missing)}" if missing else 0)
PYTHON
