//! [`Kernels`] by hand, for CPUs: frozen weights packed once, registers of sixteen, blocks of memory used again.
//!
//! Everything runs on the thread that asks: one micro-batch per thread needs no others, and no thread waits for one.

#![allow(unsafe_code, reason = "registers and unchecked reads inside products, each with the reason why it is sound")]

mod activation;
mod attention;
mod backend;
mod decode_attention;
mod elementwise;
mod frozen_weights;
mod gemm;
mod huge_page_arena;
mod int8_matrix;
mod intra_op_parallelism;
mod lora;
mod lora_gemv;
mod loss;
mod matrix;
mod micro_tile;
mod norm;
mod ops;
mod packing;
mod parameter_layout;
mod per_channel;
mod pooling;
mod quant;
mod rotary;
mod score_mask;
mod simd;
mod softmax;
mod thread_pool;

pub use backend::{CpuBackend, WeightStorage};
pub use int8_matrix::Int8Matrix;
pub use intra_op_parallelism::with_intra_op_threads;
pub use matrix::{Matrix, MatrixBuf};
pub use quant::{QuantFormat, QuantizedWeight};
pub use simd::{Isa, LANES, Simd, SimdKernel};
