//! LayerNorm tuning: trains the weights and biases of norms as differences from the frozen ones (Zhao et al. 2023).
//!
//! [`PeftConfig`] maps it to PEFT's files.

use super::delta_vector::{DeltaVector, bias_tensor_name};
use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::target_modules::{self, Layers, TargetModules};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::adapter::peft::mapping::{are_same_sites, fields_that_differ};
use crate::adapter::peft::target_selector::{TargetSelector, required_modules};
use crate::adapter::peft::{ConfigFields, ExportContext, PeftFields};
use crate::error::{Error, Result};
use crate::model::{BaseModelInfo, FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::{Tape, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = LayerNorm)]
pub struct Config {
    /// Norms; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<TargetModules>,
    pub layers: Layers,
    /// Dropout rate of the head's input during training.
    pub dropout: f64,
}

impl Config {
    /// The sites of a resolved configuration.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        let select = |modules| target_modules::selected_sites(modules, self.layers, sites);
        self.target_modules.as_ref().map_or_else(Vec::new, select)
    }
}

/// Tensor name of a norm's weight: `layer.0.attention_norm.gain`.
fn weight_tensor_name(site: Site) -> String {
    format!("{site}.gain")
}

impl Method for Config {
    fn resolve(&self, _: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let norm_sites: Vec<SiteInfo> = sites.iter().filter(|info| !info.site.module.is_linear()).cloned().collect();
        let mut validator = MethodValidator::new(sites);
        validator.check_dropout(self.dropout);
        let modules =
            validator.resolve_modules_or_all(self.target_modules.as_ref(), self.layers, &norm_sites, sites)?;
        Ok(Self { target_modules: Some(modules), ..self.clone() })
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        let mut layer_norms = BTreeMap::new();
        for info in self.target_sites(context.sites) {
            let missing_norm = || Error::internal(format!("the base has no norm at {}", info.site));
            let [weight, bias] = context.base.norm_at(info.site)?.ok_or_else(missing_norm)?;
            let weight_delta = DeltaVector::build(context, weight_tensor_name(info.site), &weight, builder)?;
            let bias_delta = match info.has_bias {
                true => Some(DeltaVector::build(context, bias_tensor_name(info.site), &bias, builder)?),
                false => None,
            };
            layer_norms.insert(info.site, (weight_delta, bias_delta));
        }
        Ok(Box::new(LayerNorm(layer_norms)))
    }

    fn num_virtual_tokens(&self) -> usize {
        0
    }

    fn head_dropout(&self) -> f64 {
        self.dropout
    }

    fn training_defaults(&self) -> TrainingDefaults {
        TrainingDefaults::with_learning_rate(1e-3)
    }

    fn learning_rate_ratio(&self, _: &str) -> f64 {
        1.0
    }

    fn is_identity_at_init(&self) -> bool {
        true
    }

    fn inference_weights(&self, _: &BuildContext, weights: TensorMap) -> Result<TensorMap> {
        Ok(weights)
    }

    fn tensor_specs(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
        let norm_specs = |info: &SiteInfo| {
            let (site, shape) = (info.site, vec![info.out_features]);
            let key = |parameter: &str| naming.module_key(info, &format!("ln_tuning_layers.{parameter}"));
            let weight = TensorSpec::with_key(key("weight"), weight_tensor_name(site), shape.clone());
            let bias = info.has_bias.then(|| TensorSpec::with_key(key("bias"), bias_tensor_name(site), shape));
            std::iter::once(weight).chain(bias)
        };
        self.target_sites(sites).into_iter().flat_map(norm_specs).collect()
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        Some(self)
    }
}

/// Hooks of norms: `norm(x) + x̂ ⊙ Δweight + Δbias`, where `x̂` is the normalised input. A norm without a bias has no Δbias.
struct LayerNorm(BTreeMap<Site, (DeltaVector, Option<DeltaVector>)>);

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

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(PeftConfig::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        ConfigFields::from([
            ("exclude_modules", Value::Null),
            ("target_modules", context.target_modules(&self.target_sites(context.sites))),
        ])
    }
}

/// The fields of `LN_TUNING`.
#[derive(Debug, Clone)]
pub struct PeftConfig {
    targets: TargetSelector,
}

impl PeftFields for PeftConfig {
    type Config = Config;
    const PEFT_TYPE: &'static str = "LN_TUNING";
    const ACCEPTED_FIELDS: &'static [&'static str] = &[];

    fn value_error(_: &str, _: &Value) -> Option<String> {
        None
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self { targets: TargetSelector::from_fields(fields)? })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
        let is_target =
            |info: &SiteInfo| !info.site.module.is_linear() && self.targets.matches(naming.module_path(info));
        Ok(Config { target_modules: Some(required_modules(sites, is_target)?), ..Config::default() })
    }

    fn differing_fields(&self, config: &Config, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Vec<&'static str>> {
        let found = self.to_config(sites, naming)?;
        let is_equal = are_same_sites(&found.target_sites(sites), &config.target_sites(sites));
        Ok(fields_that_differ([("target_modules", is_equal)]))
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        None
    }

    fn accepts_kv_size(&self) -> bool {
        false
    }
}
