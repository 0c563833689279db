//! Ragged batches, reverse-mode autograd, a paged KV cache and quantization formats for transformers.
//!
//! A value is a matrix of `f32` rows, and every row belongs to a sequence of a [`RaggedLayout`]. [`Tape`] runs the
//! operations of a [`Backend`] and, while training, records them for the backward pass.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)
)]

pub mod allocator;
pub mod attention_mask;
pub mod backend;
mod create_backend;
pub mod error;
pub mod kv_cache;
pub mod quant;
mod ragged_layout;
pub mod rotary;
pub mod seeded_rng;
mod tape;
mod tensor;
mod weight_format;
pub mod worker_pool;

pub use backend::{Backend, Buffer, Parameter};
pub use create_backend::{Device, create_backend};
pub use ragged_layout::RaggedLayout;
pub use tape::{Dropout, Gradients, ParamId, Recording, Tape, TapePosition, Var};
pub use tensor::Tensor;
pub use weight_format::{ActivationQuantization, LoraPrecision, WeightFormat};
