//! The head: from a pooled row `(hidden)` to outputs: a logit for each label, or a value. One linear map, or a dense layer and
//! an activation before it, as RoBERTa's and DistilBERT's heads have it.
//!
//! Knows nothing of how the row was made, nor of the labels' names.

use crate::error::Result;
use espalier_tensor::backend::Activation;
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The head's tensors are `head.weight` `(labels, hidden)` and `head.bias` `(labels)`.
pub const OUTPUT_LAYER: &str = "head";
pub const OUTPUT_WEIGHT: &str = "head.weight";
pub const OUTPUT_BIAS: &str = "head.bias";
/// Those of the layer before it are `head.dense.weight` `(hidden, hidden)` and `head.dense.bias` `(hidden)`.
pub const DENSE_LAYER: &str = "head.dense";

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
    pub dense: Option<DenseLayer>,
    pub weight: ParamId,
    pub bias: ParamId,
}

/// The dense layer.
#[derive(Debug, Clone, Copy)]
pub struct DenseLayer {
    pub weight: ParamId,
    pub bias: ParamId,
    pub activation: Activation,
}

impl Head {
    /// For rows of this width. `dense` draws or restores weight and bias by name, outputs and inputs; `activation` is that of
    /// the layer before the outputs, where there is one.
    pub fn build(
        activation: Option<Activation>,
        outputs: usize,
        hidden_size: usize,
        mut add_linear: impl FnMut(&str, usize, usize) -> (ParamId, ParamId),
    ) -> Self {
        let dense_layer = |activation| {
            let (weight, bias) = add_linear(DENSE_LAYER, hidden_size, hidden_size);
            DenseLayer { weight, bias, activation }
        };
        let layer = activation.map(dense_layer);
        let (weight, bias) = add_linear(OUTPUT_LAYER, outputs, hidden_size);
        Self { dense: layer, weight, bias }
    }

    /// `(sequences, hidden)` → `(sequences, labels)`
    pub fn forward(&self, tape: &mut Tape, pooled: Var) -> Result<Var> {
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
