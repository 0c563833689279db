#!/bin/sh
# Makes .venv/ with the packages that the scripts in tests/peft/ need, pinned in tests/peft/requirements.txt. Only those
# scripts need Python; building and testing espalier does not. Where PIP_EXTRA_INDEX_URL or the like is set, pip uses it.
set -eu

cd "$(dirname "$0")/.."
stamp=.venv/requirements.txt
if ! cmp -s tests/peft/requirements.txt "$stamp"; then
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/peft/requirements.txt
    cp tests/peft/requirements.txt "$stamp"
fi
echo .venv/bin/python
