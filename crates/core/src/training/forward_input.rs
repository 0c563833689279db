//! Input of a forward pass: the tokens of some sequences, and features of the frozen base where these are cached.

use crate::model::{FirstTrainableLayer, Tokens};
use espalier_tensor::{RaggedLayout, Tensor};
use std::sync::Arc;

/// Sequences of a micro-batch.
pub struct ForwardInput {
    pub tokens: Vec<Arc<Tokens>>,
    pub cached: Option<CachedRows>,
}

impl ForwardInput {
    /// Sequences without cached features.
    pub fn from_tokens(tokens: Vec<Arc<Tokens>>) -> Self {
        Self { tokens, cached: None }
    }
}

/// Cached rows of the frozen base, sequence by sequence: the input of `layer`.
pub struct CachedRows {
    pub rows: Tensor,
    pub layout: Arc<RaggedLayout>,
    pub layer: FirstTrainableLayer,
}
