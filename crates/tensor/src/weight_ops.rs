//! How kernels hold the base's own weights: perhaps in fewer bits than they compute with.
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::backend::{FrozenEmbedding, FrozenLinear};
use super::stored_weight::StoredWeight;
use super::{Backend, Tensor};
use crate::error::Result;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How rows meet weights of 8 and 4 bits in a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationQuantization {
    /// As they are.
    #[default]
    F32,
    /// Rounded to 8 bits, 32 by 32 (llama.cpp's Q8_1); A and B of low-rank updates are then read in 8 bits, too, whatever the
    /// base is held in.
    Int8,
}

impl FromStr for ActivationQuantization {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(format!("activations are not multiplied as \"{text}\": use f32 or int8")),
        }
    }
}

impl fmt::Display for ActivationQuantization {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

pub trait WeightOps {
    /// A linear map with a weight `(output, input)` of the base's.
    fn load_linear(&self, weight: StoredWeight, bias: Option<Tensor>) -> Result<FrozenLinear>;

    /// A table of the base's.
    fn load_embedding(&self, weight: StoredWeight) -> Result<FrozenEmbedding>;

    /// The same kernels with [`Activations::Int8`], where they can: faster, and not exact.
    fn with_int8_activations(&self) -> Option<Arc<dyn Backend>>;

    /// A table's rows as the columns of a linear map, where both can be one in memory.
    fn tie_embeddings(&self, embedding: &FrozenEmbedding, bias: Option<Tensor>) -> Result<Option<FrozenLinear>>;
}
