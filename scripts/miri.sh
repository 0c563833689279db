#!/usr/bin/env bash
# Runs the unit tests of the CPU backend's unsafe code under Miri, which finds undefined behaviour: the thread pool, the memory of
# matrices, the KV blocks and the portable kernels. Miri has no AVX2; the tests of the crate compare those kernels with the portable
# ones.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
  rustup toolchain install nightly --profile minimal --component miri --component rust-src
fi
tests=(
  backend::cpu::threads
  backend::cpu::memory
  backend::cpu::packing
  backend::cpu::attention::kv_block
  backend::cpu::quant::column_slice
)
MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test --locked -p espalier-tensor --lib -- "${tests[@]}"
