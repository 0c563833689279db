//! Arithmetic on packed rows: a dozen fused operations, each with its backward pass, on two kernel sets: by hand for CPUs
//! ([`cpu`]), and as candle tensors ([`candle`]) for GPUs, the oracle of the tests.
//!
//! Knows nothing of models, adapters or text. A value is a matrix of `f32` rows; a row belongs to a sequence of a
//! [`Packed`] layout. [`Tape`] runs operations through the [`Kernels`] of a device and, when asked to, remembers what
//! the backward pass needs.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)
)]

pub mod candle;
pub mod columns;
pub mod cpu;
pub mod device;
pub mod distance;
pub mod dora;
pub mod error;
mod frozen;
pub mod gated;
pub mod held;
pub mod kernels;
pub mod low_rank;
pub mod packed;
pub mod past;
pub mod pool;
pub mod random;
pub mod raw;
pub mod recall;
pub mod rotary;
pub mod tape;
mod tensor;

pub use kernels::{Buffer, Kernels, Parameter};
pub use packed::Packed;
pub use tape::{Dropout, Param, Recording, Rows, Tape};
pub use tensor::Tensor;
