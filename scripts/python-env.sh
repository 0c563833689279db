#!/bin/sh
# Makes a folder with the Python packages that a script needs, and prints its interpreter:
#
#     scripts/python-env.sh [FOLDER REQUIREMENTS]
#
# Without arguments .venv/ with those of tests/peft/requirements.txt. Only comparisons with other projects need Python (3.11 or later;
# PYTHON names another than python3); building and testing espalier needs none.
set -eu

cd "$(dirname "$0")/.."
folder=${1:-.venv}
requirements=${2:-tests/peft/requirements.txt}
if ! cmp -s "$requirements" "$folder/requirements.txt"; then
    "${PYTHON:-python3}" -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$folder/requirements.txt"
fi
echo "$folder/bin/python"
