//! CPU backend: hand-written SIMD kernels for AVX2, AVX-512 and a portable fallback.
//!
//! Every operation runs on the calling thread: training runs one micro-batch per thread. Only products of decode steps
//! may be split, over the threads of [`threads`].

#![allow(unsafe_code, reason = "SIMD intrinsics and unchecked accesses in kernels, each with a SAFETY comment")]

mod activation;
mod attention;
mod backend;
mod cross_entropy;
mod elementwise;
mod frozen_weights;
mod gemm;
mod lora;
mod matrix;
mod memory;
mod micro_tile;
mod norm;
mod ops;
mod packing;
mod parameter_layout;
mod per_channel;
mod pooling;
mod quant;
mod rotary;
mod simd;
mod threads;

pub use backend::{CpuBackend, WeightStorage};
pub use simd::{Isa, Simd, SimdKernel};
