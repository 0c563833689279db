#!/usr/bin/env bash
# Builds a release into dist/ and tries it:
#
#   espalier-VERSION-….whl           Python wheel that carries the program
#   espalier-VERSION-ARCH-linux.tar.gz  the same program, documentation, deployment files and its bill of materials
#   SHA256SUMS
#
# The wheel is tried in a new virtual environment, the tarball in a container of debian:bookworm-slim where an engine runs, else in an empty folder
# with an empty environment. The tarball has the same bytes for the same program. Prints sizes, and the time from the start to the first prediction.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(scripts/python-env.sh .venv-dist scripts/dist_requirements.txt)
scripts/model.sh >/dev/null
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
server=
container=

cleanup() {
  local code=$?
  trap - EXIT INT TERM
  if [ -n "$container" ]; then docker rm --force "$container" >/dev/null; fi
  if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; fi
  rm -rf "$work"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

rm -rf dist
mkdir dist
root=$PWD
(cd deploy/python && "$root/$(dirname "$python")/maturin" build --quiet --release --locked --out "$root/dist")
wheel=$(ls dist/espalier-"$version"-*.whl)

# The program and its bill of materials are those of the wheel.
"$python" -m zipfile --extract "$wheel" "$work/wheel"
name=espalier-$version-$(uname -m)-linux
mkdir "$work/$name"
cp "$work"/wheel/*.data/scripts/espalier "$work/$name/espalier"
chmod 755 "$work/$name/espalier"
cp "$work"/wheel/*.dist-info/sboms/*.json "$work/$name/"
cp -R LICENSE README.md CHANGELOG.md SECURITY.md openapi.yaml docker-compose.yml docs deploy "$work/$name/"
tar --create --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" "$name" |
  gzip --no-name --best >"dist/$name.tar.gz"
(cd dist && sha256sum -- *.whl *.tar.gz >SHA256SUMS)

# Waits until the server on the port predicts; prints the milliseconds since a time in nanoseconds.
first_prediction() {
  local port=$1 since=$2
  for _ in $(seq 1200); do
    if curl --silent --fail --output /dev/null --json '{"inputs": ["where is my card"]}' "http://127.0.0.1:$port/predict"; then
      echo $((($(date +%s%N) - since) / 1000000))
      return
    fi
    sleep 0.05
  done
  echo "the server does not predict" >&2
  return 1
}

free_port() {
  "$python" -c 'import socket; one = socket.socket(); one.bind(("127.0.0.1", 0)); print(one.getsockname()[1])'
}

# Serves with an empty environment, predicts, trains a job, and stops.
try_program() {
  local program=$1 port milliseconds
  port=$(free_port)
  local started
  started=$(date +%s%N)
  env -i HOME="$work" PATH=/usr/bin:/bin "$program" serve --model "$PWD/models/all-MiniLM-L6-v2" --data-dir "$work/data-$port" \
    --listen "127.0.0.1:$port" >"$work/log-$port" 2>&1 &
  server=$!
  milliseconds=$(first_prediction "$port" "$started") || { cat "$work/log-$port" >&2; return 1; }
  env -i PATH=/usr/bin:/bin ESPALIER_SERVER="http://127.0.0.1:$port" "$program" train examples/banking77-sample.csv \
    --label-column category --name intents --wait >"$work/train-$port" 2>&1 || { cat "$work/train-$port" >&2; return 1; }
  kill "$server"
  wait "$server"
  server=
  echo "$milliseconds"
}

"${PYTHON:-python3}" -m venv "$work/environment"
"$work/environment/bin/pip" install --quiet --disable-pip-version-check --no-index "$wheel"
in_environment=$(try_program "$work/environment/bin/espalier")
tar --extract --gzip --file "dist/$name.tar.gz" --directory "$work" --one-top-level=unpacked
unpacked=$work/unpacked/$name
if docker image inspect debian:bookworm-slim >/dev/null 2>&1; then
  port=$(free_port)
  started=$(date +%s%N)
  container=$(docker run --detach --network host --read-only --tmpfs /tmp --user 10001 --cap-drop ALL --volume "$unpacked:/espalier:ro" \
    --volume "$PWD/models:/models:ro" debian:bookworm-slim \
    /espalier/espalier serve --model /models/all-MiniLM-L6-v2 --data-dir /tmp/data --listen "127.0.0.1:$port")
  where="a container of debian:bookworm-slim"
  unpacked_time=$(first_prediction "$port" "$started") || { docker logs "$container" >&2; exit 1; }
else
  where="an empty environment"
  unpacked_time=$(try_program "$unpacked/espalier")
fi

size() { du --apparent-size --block-size=1M "$1" | cut -f1; }
echo "$(basename "$wheel"): $(size "$wheel") MiB, first prediction after $in_environment ms in a new virtual environment"
echo "$name.tar.gz: $(size "dist/$name.tar.gz") MiB, program $(size "$unpacked/espalier") MiB, first prediction after $unpacked_time ms in $where"
