//! The head: one linear map from a pooled row `(hidden)` to outputs: a logit for each label, or a value.
//!
//! Knows nothing of how the row was made, nor of the labels' names.

use crate::compute::{Param, Rows, Tape};
use crate::error::Result;

/// The head's tensors are `head.weight` `(labels, hidden)` and `head.bias` `(labels)`.
pub const NAME: &str = "head";
pub const WEIGHT: &str = "head.weight";
pub const BIAS: &str = "head.bias";

#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub weight: Param,
    pub bias: Param,
}

impl Head {
    /// `(sequences, hidden)` → `(sequences, labels)`
    pub fn logits(&self, tape: &mut Tape, pooled: Rows) -> Result<Rows> {
        tape.dense(pooled, self.weight, self.bias)
    }
}
