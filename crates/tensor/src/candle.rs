//! [`Kernels`] as candle tensors: correct on every device that candle knows, and the oracle of the tests.
//!
//! Only candle's forward operations are used: the backward passes are written out here, because candle's own autograd
//! computes gradients of frozen weights and loses those behind its fused operations.

mod activation;
mod attention;
mod channel_ops;
mod device;
mod lora;
mod ops;
mod rotary;

pub use device::CandleBackend;
