//! IA³: learned scales of activations (Liu et al. 2022): of what comes out of attention's projections, and of what goes into
//! the feed-forward part's second map.

use super::Ground;
use super::targets::{self, Check, Layers, TargetModules};
use crate::adapter::{Init, Parameters};
use crate::error::Result;
use crate::model::{Hooks, Lowest, Site, SiteInfo, hooks};
use espalier_tensor::{Param, Rows, Tape};
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
            target_modules: TargetModules::of(&["query", "key", "value", "attention_output", "feed_forward_out"]),
            feed_forward_modules: TargetModules::of(&["feed_forward_out"]),
            layers: Layers::default(),
            dropout: 0.0,
        }
    }
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let linear = targets::linear(sites);
        let mut check = Check::new(sites);
        check.layers(self.layers);
        check.dropout(self.dropout);
        let target_modules = check.modules("target_modules", &self.target_modules, &linear);
        let feed_forward_modules = match &self.feed_forward_modules {
            TargetModules::Names(names) if names.is_empty() => TargetModules::Names(Vec::new()),
            given => check.modules("feed_forward_modules", given, &linear),
        };
        let resolved = Self { target_modules, feed_forward_modules, ..self.clone() };
        let is_target = |info: &SiteInfo| resolved.target_modules.names_site(info);
        let within = linear.iter().filter(|info| resolved.feed_forward_modules.names_site(info)).all(is_target);
        check.require(within, "feed_forward_modules", "every feed-forward module must be a target module too");
        check.finish(|| !resolved.targets(sites).is_empty())?;
        Ok(resolved)
    }

    /// The sites of a resolved configuration.
    pub fn targets<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        targets::chosen(&self.target_modules, self.layers, sites)
    }

    /// Whether the input is scaled at this site, and not the output.
    pub fn scales_input(&self, info: &SiteInfo) -> bool {
        self.feed_forward_modules.names_site(info)
    }
}

/// Scales, one at first.
pub struct Ia3 {
    inputs: BTreeMap<Site, Param>,
    outputs: BTreeMap<Site, Param>,
}

impl Ia3 {
    pub fn build(config: &Config, ground: &Ground, parameters: &mut Parameters) -> Self {
        let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        for info in config.targets(ground.sites) {
            let (width, scales) = match config.scales_input(info) {
                true => (info.input, &mut inputs),
                false => (info.output, &mut outputs),
            };
            scales.insert(info.site, parameters.tensor(format!("{}.ia3", info.site), &[width], Init::Ones));
        }
        Self { inputs, outputs }
    }
}

fn scaled(tape: &mut Tape, scales: &BTreeMap<Site, Param>, site: Site, rows: Rows) -> Result<Rows> {
    let Some(scale) = scales.get(&site) else { return Ok(rows) };
    let scale = tape.parameter(*scale)?;
    Ok(tape.scale_columns(rows, scale)?)
}

impl Hooks for Ia3 {
    fn lowest(&self) -> Lowest {
        hooks::lowest(self.inputs.keys().chain(self.outputs.keys()).copied())
    }

    fn touches(&self, site: Site) -> bool {
        self.outputs.contains_key(&site)
    }

    fn touches_input(&self, site: Site) -> bool {
        self.inputs.contains_key(&site)
    }

    fn before(&self, tape: &mut Tape, site: Site, input: Rows) -> Result<Rows> {
        scaled(tape, &self.inputs, site, input)
    }

    fn after(&self, tape: &mut Tape, site: Site, _input: Rows, output: Rows) -> Result<Rows> {
        scaled(tape, &self.outputs, site, output)
    }
}
