#!/usr/bin/env bash
# Builds espalier for NVIDIA GPUs: target/cuda/release/espalier, to be served with --device cuda.
#
# CUDA's toolkit is taken from CUDA_HOME where that is set, else put into .cuda/ from NVIDIA's Python packages (2 GB; nvcc and
# the libraries). No GPU is needed to build: without a driver the program links against an empty libcuda. It runs where
# a driver for CUDA 13 and the toolkit's libraries are found (`scripts/cuda.sh env` prints the library path).
# CUDA_COMPUTE_CAP names the GPU's compute capability where nvidia-smi cannot (default 80: A100 and newer).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
packages=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-nvrtc==13.0.88 nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35)

# An empty library for the linker, with every function of the driver that cuda.h declares.
stub() {
  mkdir -p "$1/lib/stubs"
  local source="$1/lib/stubs/libcuda.c"
  grep -oE '\bcu[A-Z][A-Za-z0-9_]*' "$1/include/cuda.h" | sort -u | sed 's/.*/void &(void) {}/' >"$source"
  cc -shared -Wl,-soname,libcuda.so.1 -o "$1/lib/stubs/libcuda.so" "$source"
}

toolkit() {
  local root=$PWD/.cuda/root
  if [ ! -e .cuda/ready ]; then
    rm -rf .cuda
    mkdir -p .cuda
    echo "downloading CUDA's toolkit" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target .cuda/packages "${packages[@]}" >&2
    # nvcc finds its profile beside itself, so nothing here is a link to another folder.
    mv .cuda/packages/nvidia/cu13 "$root"
    rm -rf .cuda/packages
    chmod +x "$root"/bin/* "$root"/nvvm/bin/*
    local library
    for library in "$root"/lib/*.so.*; do ln -sf "$(basename "$library")" "${library%%.so.*}.so"; done
    ln -sfn lib "$root/lib64"
    stub "$root"
    touch .cuda/ready
  fi
  echo "$root"
}

home=${CUDA_HOME:-$(toolkit)}
if [ "${1:-build}" = env ]; then
  echo "LD_LIBRARY_PATH=$home/lib64"
  exit
fi
if [ -z "${CUDA_COMPUTE_CAP:-}" ] && ! command -v nvidia-smi >/dev/null; then
  export CUDA_COMPUTE_CAP=80
fi
export CUDA_HOME="$home" PATH="$home/bin:$PATH" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/cuda}"
# Found by the linker, never at run time: there the driver's own must be.
export LIBRARY_PATH="$home/lib64:$home/lib64/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}"
cargo build --release --locked --features cuda
echo "built: $CARGO_TARGET_DIR/release/espalier"
