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

pub mod attention_mask;
pub mod backend;
pub mod candle;
pub mod channel_ops;
pub mod cpu;
pub mod decode_attention;
pub mod device;
pub mod dora;
pub mod error;
mod frozen;
pub mod glu;
pub mod kv_cache;
pub mod lora;
pub mod ragged_layout;
pub mod rotary;
pub mod seeded_rng;
pub mod stored_weight;
pub mod tape;
mod tensor;
pub mod weight_ops;
pub mod worker_pool;

pub use backend::{Backend, Buffer, Parameter};
pub use ragged_layout::RaggedLayout;
pub use tape::{Dropout, ParamId, Recording, Tape, Var};
pub use tensor::Tensor;
