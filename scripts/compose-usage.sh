#!/usr/bin/env bash
# Prints how to call the server that docker-compose.yml starts, with the key that scripts/secrets.sh made.
set -euo pipefail
cd "$(dirname "$0")/.."

url="http://127.0.0.1:${ESPALIER_PORT:-8080}"
cat <<USAGE
espalier serves on $url and accepts the key in secrets/api_keys:

  curl -H "Authorization: Bearer \$(cat secrets/api_keys)" $url/base

With the program itself:

  export ESPALIER_SERVER=$url ESPALIER_API_KEY="\$(cat secrets/api_keys)"
  espalier jobs list

$url/docs shows every call. \`make down\` stops the containers; what they stored stays.
USAGE
