#!/usr/bin/env bash
# Logits and every gradient of LoRA and a head on the real base model, against PyTorch and PEFT: crates/core/tests/engine/golden.rs with
# cases made by tests/golden/make.py. Prints the largest relative errors; fails where one is above the test's limit.
#
# Needs Python with the packages of tests/peft/requirements.txt, as scripts/peft.sh does (PEFT_PYTHON).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PEFT_PYTHON:-$(scripts/python-env.sh)}
cases=$(mktemp -d)
trap 'rm -rf "$cases"' EXIT
"$python" tests/golden/make.py models/all-MiniLM-L6-v2 "$cases"
ESPALIER_GOLDEN_MODEL="$PWD"/models/all-MiniLM-L6-v2 ESPALIER_GOLDEN_CASES="$cases" \
    cargo test --locked -p espalier-core --test engine golden -- --nocapture
