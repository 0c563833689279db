//! IA³: trainable scales of activations (Liu et al. 2022), of the outputs of attention's projections and of the input of the
//! second linear map of the feed-forward sublayer.
//!
//! [`PeftConfig`] maps it to PEFT's files.

use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorInit, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::target_modules::{self, Layers, TargetModules, linear_sites};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::adapter::peft::mapping::{FAN_IN_FAN_OUT, are_same_sites, fields_that_differ};
use crate::adapter::peft::target_selector::{ModuleMatcher, TargetSelector, selected_modules};
use crate::adapter::peft::{ConfigFields, ExportContext, PeftFields};
use crate::error::Result;
use crate::model::{BaseModelInfo, FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Ia3)]
pub struct Config {
    pub target_modules: TargetModules,
    /// Target modules whose input is scaled; the output of the others is.
    pub feed_forward_modules: TargetModules,
    pub layers: Layers,
    /// Dropout rate of the head's input during training.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target_modules: TargetModules::from_names(&[
                "query",
                "key",
                "value",
                "attention_output",
                "feed_forward_out",
            ]),
            feed_forward_modules: TargetModules::from_names(&["feed_forward_out"]),
            layers: Layers::default(),
            dropout: 0.0,
        }
    }
}

impl Config {
    /// The sites of a resolved configuration.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        target_modules::selected_sites(&self.target_modules, self.layers, sites)
    }

    /// Whether the input is scaled at this site, instead of the output.
    pub fn scales_input(&self, info: &SiteInfo) -> bool {
        self.feed_forward_modules.contains(info)
    }
}

impl Method for Config {
    fn resolve(&self, _: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let linear_sites = linear_sites(sites);
        let mut validator = MethodValidator::new(sites);
        validator.check_layers(self.layers);
        validator.check_dropout(self.dropout);
        let target_modules = validator.resolve_modules("target_modules", &self.target_modules, &linear_sites);
        let feed_forward_modules = match &self.feed_forward_modules {
            TargetModules::Names(names) if names.is_empty() => TargetModules::Names(Vec::new()),
            requested => validator.resolve_modules("feed_forward_modules", requested, &linear_sites),
        };
        let resolved = Self { target_modules, feed_forward_modules, ..self.clone() };
        let is_target = |info: &SiteInfo| resolved.target_modules.contains(info);
        let is_subset = linear_sites.iter().filter(|info| resolved.feed_forward_modules.contains(info)).all(is_target);
        validator.require(is_subset, "feed_forward_modules", "every feed-forward module must be a target module too");
        validator.finish(|| !resolved.target_sites(sites).is_empty())?;
        Ok(resolved)
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        let (mut input_scales, mut output_scales) = (BTreeMap::new(), BTreeMap::new());
        for info in self.target_sites(context.sites) {
            let (width, scales) = match self.scales_input(info) {
                true => (info.in_features, &mut input_scales),
                false => (info.out_features, &mut output_scales),
            };
            scales.insert(info.site, builder.add(format!("{}.ia3", info.site), &[width], TensorInit::Ones));
        }
        Ok(Box::new(Ia3 { input_scales, output_scales }))
    }

    fn num_virtual_tokens(&self) -> usize {
        0
    }

    fn head_dropout(&self) -> f64 {
        self.dropout
    }

    fn training_defaults(&self) -> TrainingDefaults {
        TrainingDefaults::with_learning_rate(3e-3)
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

    /// PEFT stores a scale of the input as a row and a scale of the output as a column.
    fn tensor_specs(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
        let scale_spec = |info: &SiteInfo| {
            let (width, shape) = match self.scales_input(info) {
                true => (info.in_features, vec![1, info.in_features]),
                false => (info.out_features, vec![info.out_features, 1]),
            };
            TensorSpec::reshaped(naming.module_key(info, "ia3_l"), shape, format!("{}.ia3", info.site), vec![width])
        };
        self.target_sites(sites).into_iter().map(scale_spec).collect()
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        Some(self)
    }
}

/// Hooks that multiply inputs or outputs by scales, which are 1 at initialisation.
struct Ia3 {
    input_scales: BTreeMap<Site, ParamId>,
    output_scales: BTreeMap<Site, ParamId>,
}

fn apply_scale(tape: &mut Tape, scales: &BTreeMap<Site, ParamId>, site: Site, rows: Var) -> Result<Var> {
    let Some(scale) = scales.get(&site) else { return Ok(rows) };
    let scale = tape.parameter(*scale)?;
    Ok(tape.scale_channels(rows, scale)?)
}

impl Hooks for Ia3 {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::of_sites(self.input_scales.keys().chain(self.output_scales.keys()).copied())
    }

    fn has_output_hook(&self, site: Site) -> bool {
        self.output_scales.contains_key(&site)
    }

    fn has_input_hook(&self, site: Site) -> bool {
        self.input_scales.contains_key(&site)
    }

    fn on_linear_input(&self, tape: &mut Tape, site: Site, input: Var) -> Result<Var> {
        apply_scale(tape, &self.input_scales, site, input)
    }

    fn on_linear_output(&self, tape: &mut Tape, site: Site, _input: Var, output: Var) -> Result<Var> {
        apply_scale(tape, &self.output_scales, site, output)
    }
}

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(PeftConfig::PEFT_TYPE)
    }

    /// Writes whole paths: PEFT compares `feedforward_modules` with the entries of `target_modules` as they are written.
    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        let adapted_sites = self.target_sites(context.sites);
        let feedforward_sites = adapted_sites.iter().copied().filter(|info| self.scales_input(info));
        ConfigFields::from([
            ("exclude_modules", Value::Null),
            (FAN_IN_FAN_OUT, json!(context.info.fan_in_fan_out())),
            ("feedforward_modules", json!(context.paths(feedforward_sites))),
            ("init_ia3_weights", json!(true)),
            ("target_modules", json!(context.paths(adapted_sites.iter().copied()))),
        ])
    }
}

/// The fields of `IA3`.
#[derive(Debug, Clone)]
pub struct PeftConfig {
    targets: TargetSelector,
    feedforward_modules: Option<ModuleMatcher>,
}

impl PeftFields for PeftConfig {
    type Config = Config;
    const PEFT_TYPE: &'static str = "IA3";
    const ACCEPTED_FIELDS: &'static [&'static str] = &["feedforward_modules", "init_ia3_weights", FAN_IN_FAN_OUT];

    fn value_error(_: &str, _: &Value) -> Option<String> {
        None
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self {
            targets: TargetSelector::from_fields(fields)?,
            feedforward_modules: ModuleMatcher::from_field(fields, "feedforward_modules")?,
        })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
        let is_feedforward =
            |path: &str| self.feedforward_modules.as_ref().is_some_and(|matcher| matcher.matches(path));
        Ok(Config {
            target_modules: self.targets.linear_modules(sites, naming)?,
            feed_forward_modules: selected_modules(sites, |info| {
                self.targets.selects_linear(info, naming) && is_feedforward(naming.module_path(info))
            }),
            ..Config::default()
        })
    }

    fn differing_fields(&self, config: &Config, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Vec<&'static str>> {
        let (found, targets) = (self.to_config(sites, naming)?, config.target_sites(sites));
        let scales_same_input = |info: &&SiteInfo| found.scales_input(info) == config.scales_input(info);
        Ok(fields_that_differ([
            ("target_modules", are_same_sites(&found.target_sites(sites), &targets)),
            ("feedforward_modules", targets.iter().all(scales_same_input)),
        ]))
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        None
    }

    fn accepts_kv_size(&self) -> bool {
        false
    }
}
