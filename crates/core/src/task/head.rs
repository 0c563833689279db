//! Trained head: from rows `(rows, hidden)` to `(rows, outputs)`, one output per label or a single value. One linear map, or a
//! dense layer with an activation before it, as in the heads of RoBERTa and DistilBERT.

use crate::error::Result;
use crate::model::{ClassificationHeadSpec, Pooling};
use espalier_tensor::backend::Activation;
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Prefix of the head's tensors `head.weight` `(outputs, hidden)` and `head.bias` `(outputs)`.
pub const OUTPUT_LAYER: &str = "head";
pub const OUTPUT_WEIGHT: &str = "head.weight";
pub const OUTPUT_BIAS: &str = "head.bias";
/// Prefix of the dense layer's tensors `head.dense.weight` `(hidden, hidden)` and `head.dense.bias` `(hidden)`.
pub const DENSE_LAYER: &str = "head.dense";

/// Layers of a head, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = HeadConfig)]
pub enum Config {
    Linear(LinearHead),
    Dense(DenseHead),
}

/// One linear map.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinearHead)]
pub struct LinearHead {}

/// Head with a hidden layer: a dense layer of the base model's hidden size, an activation, then the linear output layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = DenseHead)]
pub struct DenseHead {
    pub activation: Activation,
}

impl Default for DenseHead {
    fn default() -> Self {
        Self { activation: Activation::Tanh }
    }
}

impl Config {
    /// Sets the layers of the base's own head where none are chosen and the pooling is `cls`, as in the base's checkpoints.
    pub fn set_default(layers: &mut Option<Self>, pooling: Option<Pooling>, base_head: ClassificationHeadSpec) {
        if let (None, Some(Pooling::Cls), Some(activation)) = (layers.as_ref(), pooling, base_head.dense_activation()) {
            *layers = Some(Self::Dense(DenseHead { activation }));
        }
    }

    /// Activation of the dense layer, where there is one.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Self::Linear(_) => None,
            Self::Dense(dense) => Some(dense.activation),
        }
    }
}

/// Parameters of a head.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub dense: Option<DenseLayer>,
    pub weight: ParamId,
    pub bias: ParamId,
}

/// Dense layer before the outputs.
#[derive(Debug, Clone, Copy)]
pub struct DenseLayer {
    pub weight: ParamId,
    pub bias: ParamId,
    pub activation: Activation,
}

impl Head {
    /// Head on rows of width `hidden_size`, with a dense layer where there is an `activation`. `add_linear` adds the weight and
    /// the bias of a linear map by name, outputs and inputs.
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

    /// `(rows, hidden)` → `(rows, outputs)`
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
