//! LayerNorm tuning: the norms' gains and shifts, learned as differences (Zhao et al. 2023).

use super::BuildContext;
use super::bias::{self, DeltaVector};
use super::targets::{self, Layers, MethodValidator, TargetModules};
use crate::adapter::ParameterBuilder;
use crate::error::{Error, Result};
use crate::model::{FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::{Tape, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = LayerNorm)]
pub struct Config {
    /// Norms; all of them where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<TargetModules>,
    pub layers: Layers,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let norm_sites: Vec<SiteInfo> = sites.iter().filter(|info| !info.site.module.is_linear()).cloned().collect();
        let mut validator = MethodValidator::new(sites);
        validator.check_dropout(self.dropout);
        let modules =
            validator.resolve_modules_or_all(self.target_modules.as_ref(), self.layers, &norm_sites, sites)?;
        Ok(Self { target_modules: Some(modules), ..self.clone() })
    }

    /// The sites of a resolved configuration.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        let select = |modules| targets::selected_sites(modules, self.layers, sites);
        self.target_modules.as_ref().map_or_else(Vec::new, select)
    }
}

/// Norms with what they have become: y = norm(x) + x̂ ⊙ Δgain + Δshift, the last where the base has a shift.
pub struct LayerNorm(BTreeMap<Site, (DeltaVector, Option<DeltaVector>)>);

impl LayerNorm {
    pub fn build(config: &Config, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Self> {
        let mut layer_norms = BTreeMap::new();
        for info in config.target_sites(context.sites) {
            let missing_norm = || Error::internal(format!("the base has no norm at {}", info.site));
            let [weight, bias] = context.base.norm_at(info.site)?.ok_or_else(missing_norm)?;
            let weight_delta = DeltaVector::build(context, weight_tensor_name(info.site), &weight, builder)?;
            let bias_delta = match info.has_bias {
                true => Some(DeltaVector::build(context, bias::tensor_name(info.site), &bias, builder)?),
                false => None,
            };
            layer_norms.insert(info.site, (weight_delta, bias_delta));
        }
        Ok(Self(layer_norms))
    }
}

/// The tensor's name: `layer.0.attention_norm.gain`.
pub fn weight_tensor_name(site: Site) -> String {
    format!("{site}.gain")
}

impl Hooks for LayerNorm {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::of_sites(self.0.keys().copied())
    }

    fn has_output_hook(&self, site: Site) -> bool {
        self.0.contains_key(&site)
    }

    fn on_norm_output(&self, tape: &mut Tape, site: Site, normalized: Var, output: Var) -> Result<Var> {
        let Some((weight_delta, bias_delta)) = self.0.get(&site) else { return Ok(output) };
        let weight_delta = weight_delta.delta(tape)?;
        let scaled = tape.copy(normalized)?;
        let scaled = tape.scale_channels(scaled, weight_delta)?;
        let output = tape.add_rows_scaled(output, scaled, 1.0)?;
        let Some(bias_delta) = bias_delta else { return Ok(output) };
        let bias_delta = bias_delta.delta(tape)?;
        Ok(tape.add_channels(output, bias_delta)?)
    }
}
