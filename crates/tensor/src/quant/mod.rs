//! Quantization formats of frozen weights, and the rounding to them. No kernels.

mod block;
mod format;
mod stored_weight;

pub use block::QuantBlock;
pub use format::{BLOCK_SIZE, QuantFormat, STRIP_COLUMNS};
pub use stored_weight::StoredWeight;
