#!/usr/bin/env bash
# Installs what `make check` needs, where it is missing: cargo-deny and cargo-machete with cargo, typos as a Python wheel in
# .venv-tools. Prints the path of typos.
set -euo pipefail
cd "$(dirname "$0")/.."

install() {
    if ! cargo "$1" --version >/dev/null 2>&1; then
        echo "installing cargo-$1 $2" >&2
        # a debug build: it runs for a second, and compiles in a third of the time
        cargo install --quiet --locked --debug --target-dir target/tools "cargo-$1@$2" >&2
    fi
}

install deny 0.20.2
install machete 0.9.2
echo "$(dirname "$(scripts/python-env.sh .venv-tools scripts/check_tools_requirements.txt)")/typos"
