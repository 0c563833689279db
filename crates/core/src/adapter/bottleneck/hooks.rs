//! Hooks of bottleneck adapters.

use crate::error::Result;
use crate::model::hooks::{Sublayer, SublayerContext};
use crate::model::{FirstTrainableLayer, Hooks, Module};
use espalier_tensor::backend::Activation;
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where the adapters are placed in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    Houlsby,
    Pfeiffer,
    Parallel,
}

/// Hooks that add the output of a bottleneck after, or beside, a sublayer.
pub struct Bottleneck {
    pub layers: BTreeMap<(usize, Sublayer), BottleneckLayer>,
    pub placement: Placement,
    pub activation: Activation,
    pub scaling: f64,
    /// Dropout rate of the input.
    pub dropout: f64,
}

pub struct BottleneckLayer {
    /// Weight `(bottleneck, hidden)` and bias.
    pub down_projection: (ParamId, ParamId),
    /// Weight `(hidden, bottleneck)` and bias, zero at initialisation.
    pub up_projection: (ParamId, ParamId),
}

impl Hooks for Bottleneck {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        self.layers.keys().next().map_or(FirstTrainableLayer::Head, |(layer, _)| FirstTrainableLayer::Layer(*layer))
    }

    fn has_sublayer_hook(&self, layer: usize, part: Sublayer) -> bool {
        self.layers.contains_key(&(layer, part))
    }

    fn on_sublayer_output(&self, tape: &mut Tape, context: &SublayerContext, output: Var) -> Result<Var> {
        let Some(layer) = self.layers.get(&(context.layer, context.sublayer)) else { return Ok(output) };
        let input = match (self.placement, context.norm) {
            (Placement::Houlsby, _) => output,
            (Placement::Parallel, _) => context.residual,
            (Placement::Pfeiffer, Some(norm)) => tape.norm(output, Some(context.residual), norm)?,
            (Placement::Pfeiffer, None) => {
                let copy = tape.copy(output)?;
                tape.add_rows_scaled(copy, context.residual, 1.0)?
            }
        };
        let dropout_stream = Module::ALL.len() as u64 + 2 * context.layer as u64 + context.sublayer as u64;
        let input = tape.dropout(input, self.dropout, dropout_stream << 32)?;
        let down_output = tape.dense(input, layer.down_projection.0, layer.down_projection.1)?;
        let activated = tape.activate(self.activation, down_output)?;
        let up_output = tape.dense(activated, layer.up_projection.0, layer.up_projection.1)?;
        Ok(tape.add_rows_scaled(output, up_output, self.scaling)?)
    }
}
