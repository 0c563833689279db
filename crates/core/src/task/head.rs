//! The head: from a pooled row `(hidden)` to outputs: a logit for each label, or a value. One linear map, or a dense layer and
//! an activation before it, as RoBERTa's and DistilBERT's heads have it.
//!
//! Knows nothing of how the row was made, nor of the labels' names.

use crate::error::Result;
use espalier_tensor::kernels::Activation;
use espalier_tensor::{Param, Rows, Tape};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The head's tensors are `head.weight` `(labels, hidden)` and `head.bias` `(labels)`.
pub const NAME: &str = "head";
pub const WEIGHT: &str = "head.weight";
pub const BIAS: &str = "head.bias";
/// Those of the layer before it are `head.dense.weight` `(hidden, hidden)` and `head.dense.bias` `(hidden)`.
pub const DENSE: &str = "head.dense";

/// The layers of a head, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = HeadConfig)]
pub enum Config {
    Linear(Linear),
    Dense(Dense),
}

/// One linear map.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinearHead)]
pub struct Linear {}

/// A dense layer as wide as the base and its activation, then a linear map; all of it trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = DenseHead)]
pub struct Dense {
    pub activation: Activation,
}

impl Default for Dense {
    fn default() -> Self {
        Self { activation: Activation::Tanh }
    }
}

impl Config {
    /// Of the dense layer, where there is one.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Self::Linear(_) => None,
            Self::Dense(dense) => Some(dense.activation),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub dense: Option<Layer>,
    pub weight: Param,
    pub bias: Param,
}

/// The dense layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    pub weight: Param,
    pub bias: Param,
    pub activation: Activation,
}

impl Head {
    /// For rows of this width. `dense` draws or restores weight and bias by name, outputs and inputs; `activation` is that of
    /// the layer before the outputs, where there is one.
    pub fn build(
        activation: Option<Activation>,
        outputs: usize,
        width: usize,
        mut dense: impl FnMut(&str, usize, usize) -> (Param, Param),
    ) -> Self {
        let layer = |activation| {
            let (weight, bias) = dense(DENSE, width, width);
            Layer { weight, bias, activation }
        };
        let layer = activation.map(layer);
        let (weight, bias) = dense(NAME, outputs, width);
        Self { dense: layer, weight, bias }
    }

    /// `(sequences, hidden)` → `(sequences, labels)`
    pub fn logits(&self, tape: &mut Tape, pooled: Rows) -> Result<Rows> {
        let rows = match self.dense {
            None => pooled,
            Some(layer) => {
                let rows = tape.dense(pooled, layer.weight, layer.bias)?;
                tape.activate(layer.activation, rows)?
            }
        };
        Ok(tape.dense(rows, self.weight, self.bias)?)
    }
}
