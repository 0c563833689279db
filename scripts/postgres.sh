#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own, which is thrown away afterwards:
#
#     scripts/postgres.sh run cargo test
#
# The command finds the server's URL in ESPALIER_TEST_POSTGRES. The server listens on a free port of 127.0.0.1, keeps
# its files under target/, and does not sync them: it is for tests alone. The command can restart it as after a crash
# (an immediate shutdown):
#
#     scripts/postgres.sh restart
set -euo pipefail

fail() {
    echo "scripts/postgres.sh: $*" >&2
    exit 1
}

# The folder with initdb and postgres: Debian keeps them out of PATH.
find_binaries() {
    local folder
    for folder in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -rV) \
        "$(dirname "$(command -v initdb || echo /nowhere/initdb)")"; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
            echo "$folder"
            return
        fi
    done
}

install_postgres() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "PostgreSQL is missing: install its server (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql)"
    fi
    echo "scripts/postgres.sh: installing PostgreSQL with apt-get" >&2
    # no cluster of the distribution's own is wanted
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql; } >&2 ||
        fail "apt-get could not install PostgreSQL: install its server by hand"
}

stop_server() {
    local status=$?
    trap - EXIT INT TERM
    if [ -n "${server:-}" ]; then
        # The command may have restarted it.
        "${as_server[@]}" "$binaries/pg_ctl" stop -D "$folder/data" -m fast -t 30 >/dev/null 2>&1 || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
    exit "$status"
}

start_server() {
    local port=$1
    # A restart appends to it as the server's user.
    : >"$folder/log"
    chmod a+w "$folder/log"
    "${as_server[@]}" "$binaries/postgres" -D "$folder/data" -p "$port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=400 \
        -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=64MB \
        >"$folder/log" 2>&1 &
    server=$!
    for _ in $(seq 300); do
        if grep -q "ready to accept connections" "$folder/log"; then
            return 0
        fi
        if ! kill -0 "$server" 2>/dev/null; then
            break
        fi
        sleep 0.1
    done
    kill -INT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
    return 1
}

verb=${1:-}
case $verb in
run) [ $# -ge 2 ] || fail "usage: scripts/postgres.sh run <command…>" ;;
restart) [ -n "${ESPALIER_TEST_POSTGRES_FOLDER:-}" ] || fail "restart is for the command of scripts/postgres.sh run" ;;
*) fail "usage: scripts/postgres.sh run <command…>, or restart" ;;
esac
shift

root=$(cd "$(dirname "$0")/.." && pwd)
binaries=$(find_binaries)
if [ -z "$binaries" ]; then
    install_postgres
    binaries=$(find_binaries)
    [ -n "$binaries" ] || fail "PostgreSQL is installed but initdb was not found"
fi

# PostgreSQL refuses to run as root. Every word of this replaces itself by the next, so the server's process is ours to stop.
as_server=(env)
if [ "$(id -u)" = 0 ]; then
    server_user=nobody
    if id postgres >/dev/null 2>&1; then
        server_user=postgres
    fi
    as_server=(setpriv "--reuid=$server_user" "--regid=$(id -g "$server_user")" --clear-groups)
fi

if [ "$verb" = restart ]; then
    folder=$ESPALIER_TEST_POSTGRES_FOLDER
    cd "$folder"
    exec "${as_server[@]}" "$binaries/pg_ctl" restart -D "$folder/data" -m immediate -t 60 -l "$folder/log" -s
fi

mkdir -p "$root/target"
folder=$(mktemp -d "$root/target/postgres.XXXXXX")
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ "$(id -u)" = 0 ]; then
    chown "$server_user" "$folder"
    # the checkout may lie where only root can look
    if ! "${as_server[@]}" test -w "$folder"; then
        rmdir "$folder"
        folder=$(mktemp -d "${TMPDIR:-/tmp}/espalier-postgres.XXXXXX")
        chown "$server_user" "$folder"
    fi
fi

(cd "$folder" && "${as_server[@]}" "$binaries/initdb" -D data -U postgres -A trust -E UTF8 --no-locale --no-sync) >"$folder/initdb.log" 2>&1 || {
    cat "$folder/initdb.log" >&2
    fail "initdb failed"
}

server=
# PostgreSQL cannot be asked for any free port, so ports are tried; below 32768 the kernel gives none to others.
for _ in 1 2 3 4 5 6 7 8; do
    port=$((20000 + RANDOM % 12768))
    if start_server "$port"; then
        break
    fi
done
if [ -z "$server" ]; then
    cat "$folder/log" >&2
    fail "the server did not start"
fi

ESPALIER_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port/postgres" ESPALIER_TEST_POSTGRES_FOLDER=$folder "$@"
