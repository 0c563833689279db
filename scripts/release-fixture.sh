#!/usr/bin/env bash
# Makes the data of a release that tests/service/upgrade.rs opens with later versions:
#
#     scripts/release-fixture.sh PROGRAM VERSION
#
# Runs the released PROGRAM on the tiny base model of the tests, on SQLite and on a throwaway PostgreSQL, and writes
# tests/fixtures/releases/VERSION/: the data folder of each, the dump of the PostgreSQL database, and what the server answered, all compressed.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 2 ] || { echo "usage: scripts/release-fixture.sh PROGRAM VERSION" >&2; exit 2; }
program=$(realpath "$1")
target=tests/fixtures/releases/$2
mkdir -p "$target"

. scripts/server.sh

# Keeps what is stored, and not what only a running server needs.
pack() {
    tar --create --gzip --file "$target/$1.tar.gz" --directory "$2" --sort=name --mtime=2026-01-01 --owner=0 --group=0 --numeric-owner \
        --exclude='./temporary/*' --exclude='./feature-cache/*' --exclude='./instances/*' .
}

start_server "$program" tests/fixtures/tiny-bert --event-poll-interval 50ms
python3 scripts/release_fixture.py "$target/sqlite.json"
stop_server
pack sqlite "$server_folder/data/tiny-bert"
rm -r "$server_folder/data"

export PROGRAM=$program TARGET=$target SERVER_FOLDER=$server_folder
scripts/postgres.sh run bash -euo pipefail -c '
    url=$ESPALIER_TEST_POSTGRES
    . scripts/server.sh
    start_server "$PROGRAM" tests/fixtures/tiny-bert --event-poll-interval 50ms --database-url "$url"
    python3 scripts/release_fixture.py "$TARGET/postgres.json"
    stop_server
    mkdir -p "$SERVER_FOLDER/data"
    mv "$server_folder/data/tiny-bert" "$SERVER_FOLDER/data/tiny-bert"
    pg_dump --inserts --no-owner --no-privileges "$url" | grep -v "^\\\\\(un\)\?restrict" >"$TARGET/postgres.sql"
'
pack postgres "$server_folder/data/tiny-bert"
gzip --best --no-name --force "$target"/*.json "$target/postgres.sql"
ls -l "$target"
