#!/usr/bin/env bash
# Runs the unit tests of the portable SIMD kernels, the quantization codecs, the buffer pool and the intra-op thread pool under
# Miri, which finds undefined behaviour. Needs a nightly toolchain; adds Miri to it where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

toolchain=${MIRI_TOOLCHAIN:-nightly}
if ! cargo "+$toolchain" miri --version >/dev/null 2>&1; then
    rustup toolchain list | grep -q "^$toolchain" || rustup toolchain install --profile minimal "$toolchain"
    rustup component add --toolchain "$toolchain" miri rust-src
fi

# Isolation is off for the clock and the number of cores; strict provenance and alignment are checked.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-symbolic-alignment-check"
export ESPALIER_MIRI=1
cargo "+$toolchain" miri setup
exec cargo "+$toolchain" miri test --target-dir target/miri -p espalier-tensor --lib -- "${@:-simd threads memory}"
