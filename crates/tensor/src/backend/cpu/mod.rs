//! [`Kernels`] by hand, for CPUs: frozen weights packed once, registers of sixteen, blocks of memory used again.
//!
//! Everything runs on the thread that asks: one micro-batch per thread needs no others, and no thread waits for one.

#![allow(unsafe_code, reason = "registers and unchecked reads inside products, each with the reason why it is sound")]

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
