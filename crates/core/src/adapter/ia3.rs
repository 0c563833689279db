//! IA³: learned scales of activations (Liu et al. 2022): of what comes out of attention's projections, and of what goes into
//! the feed-forward part's second map.

use super::BuildContext;
use super::targets::{self, Layers, MethodValidator, TargetModules};
use crate::adapter::{ParameterBuilder, TensorInit};
use crate::error::Result;
use crate::model::{FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Ia3)]
pub struct Config {
    pub target_modules: TargetModules,
    /// Those of the target modules whose input is scaled; of the others it is the output.
    pub feed_forward_modules: TargetModules,
    pub layers: Layers,
    /// Of the rows that the head reads, in training alone.
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
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let linear_sites = targets::linear_sites(sites);
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

    /// The sites of a resolved configuration.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        targets::selected_sites(&self.target_modules, self.layers, sites)
    }

    /// Whether the input is scaled at this site, and not the output.
    pub fn scales_input(&self, info: &SiteInfo) -> bool {
        self.feed_forward_modules.contains(info)
    }
}

/// Scales, one at first.
pub struct Ia3 {
    input_scales: BTreeMap<Site, ParamId>,
    output_scales: BTreeMap<Site, ParamId>,
}

impl Ia3 {
    pub fn build(config: &Config, context: &BuildContext, builder: &mut ParameterBuilder) -> Self {
        let (mut input_scales, mut output_scales) = (BTreeMap::new(), BTreeMap::new());
        for info in config.target_sites(context.sites) {
            let (width, scales) = match config.scales_input(info) {
                true => (info.in_features, &mut input_scales),
                false => (info.out_features, &mut output_scales),
            };
            scales.insert(info.site, builder.add(format!("{}.ia3", info.site), &[width], TensorInit::Ones));
        }
        Self { input_scales, output_scales }
    }
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
