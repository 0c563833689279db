#!/bin/sh
# Makes .venv/ with the packages that the scripts in tests/peft/ need, pinned in tests/peft/requirements.txt. Only those
# scripts need Python (3.11 or later; PYTHON names another than python3); building and testing espalier needs none.
set -eu

cd "$(dirname "$0")/.."
stamp=.venv/requirements.txt
if ! cmp -s tests/peft/requirements.txt "$stamp"; then
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/peft/requirements.txt
    cp tests/peft/requirements.txt "$stamp"
fi
echo .venv/bin/python
