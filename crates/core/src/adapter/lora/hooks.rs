//! Hooks of LoRA and DoRA.

use crate::adapter::build_context::BuildContext;
use crate::adapter::delta_vector::BiasDeltas;
use crate::adapter::parameter_builder::ParameterBuilder;
use crate::error::{Error, Result};
use crate::model::{FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{ParamId, Tape, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hooks that add the low-rank updates.
pub struct Lora {
    pub sites: BTreeMap<Site, LoraSite>,
    pub bias_deltas: BiasDeltas,
    /// Dropout rate of the input.
    pub dropout: f64,
}

pub struct LoraSite {
    /// `(rank, input)`
    pub a: ParamId,
    /// `(output, rank)`, zero at initialisation.
    pub b: ParamId,
    pub scaling: f64,
    pub dora: Option<DoraSite>,
}

pub struct DoraSite {
    base_linear: Arc<FrozenLinear>,
    /// Norms of the weight's rows, `(output)`; those of the base at initialisation.
    magnitude: ParamId,
}

impl DoraSite {
    pub fn build(context: &BuildContext, info: &SiteInfo, builder: &mut ParameterBuilder) -> Result<Self> {
        let missing_linear = || Error::internal(format!("the base has no linear map at {}", info.site));
        let base_linear = Arc::clone(context.base.linear_at(info.site).ok_or_else(missing_linear)?);
        let row_norms = |_: u64, _: &str| {
            let squared_norms = context.base.backend().weight_row_squared_norms(&base_linear)?;
            let norms = squared_norms.values.iter().map(|square| square.sqrt()).collect();
            Ok::<_, Error>(Tensor::new([info.out_features], norms))
        };
        let magnitude = builder.add_with(format!("{}.lora_magnitude", info.site), &[info.out_features], row_norms)?;
        Ok(Self { base_linear, magnitude })
    }
}

impl Hooks for Lora {
    fn has_output_hook(&self, site: Site) -> bool {
        self.sites.contains_key(&site)
    }

    fn on_linear_output(&self, tape: &mut Tape, site: Site, input: Var, output: Var) -> Result<Var> {
        let Some(lora) = self.sites.get(&site) else { return Ok(output) };
        let input = tape.dropout(input, self.dropout, site.dropout_site_id())?;
        let output = match &lora.dora {
            None => tape.lora_add(output, input, lora.a, lora.b, lora.scaling)?,
            Some(dora) => {
                // b + (x·(W + s·B·A)ᵀ) ⊙ m/‖W + s·B·A‖
                let inverse_norms = tape.inverse_row_norms(&dora.base_linear, lora.a, lora.b, lora.scaling)?;
                let magnitude = tape.parameter(dora.magnitude)?;
                let scale = tape.mul_constant(magnitude, inverse_norms)?;
                let output = tape.add_bias(output, &dora.base_linear, -1.0)?;
                let output = tape.lora_add(output, input, lora.a, lora.b, lora.scaling)?;
                let output = tape.scale_channels(output, scale)?;
                tape.add_bias(output, &dora.base_linear, 1.0)?
            }
        };
        self.bias_deltas.add_to(tape, site, output)
    }

    fn lora_pairs(&self) -> Vec<[ParamId; 2]> {
        self.sites.values().map(|pair| [pair.a, pair.b]).collect()
    }

    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::of_sites(self.sites.keys().copied())
    }
}
