//! LoRA: a low-rank update beside a frozen linear map, `W + s·B·A` (Hu et al. 2021), with `s = alpha/r`, or
//! `alpha/√r` for rsLoRA (Kalajdzievski 2023); DoRA's `m ⊙ (W + s·B·A)/‖W + s·B·A‖` (Liu et al. 2024); LoRA+'s own learning
//! rate for B (Hayou et al. 2024).

use super::BuildContext;
use super::bias::BiasDeltas;
use super::targets::{self, Layers, MethodValidator, TargetModules};
use crate::adapter::{ParameterBuilder, TensorInit};
use crate::error::{Error, Result};
use crate::model::{FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{ParamId, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Lora)]
pub struct Config {
    pub rank: usize,
    /// Twice the rank where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Of the adapter's input, in training.
    pub dropout: f64,
    pub target_modules: TargetModules,
    pub layers: Layers,
    /// Scale by `alpha/√rank` instead of `alpha/rank`.
    pub rslora: bool,
    /// Learn the lengths of the weight's rows apart from their directions.
    pub dora: bool,
    /// LoRA+: B's learning rate as a multiple of the job's.
    pub learning_rate_ratio: f64,
    /// Which biases of the base are learned beside it.
    pub bias: BiasKind,
    /// Other ranks, by module: our names, or ends of the checkpoint's paths.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas, by module.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
}

/// Whose biases are learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BiasKind {
    #[default]
    None,
    /// Those of the target modules.
    LoraOnly,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: None,
            dropout: 0.0,
            target_modules: TargetModules::from_names(&["query", "value"]),
            layers: Layers::default(),
            rslora: false,
            dora: false,
            learning_rate_ratio: 1.0,
            bias: BiasKind::None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        }
    }
}

/// The entry whose name means this site; the longest of several.
fn lookup_pattern<'a, T>(patterns: &'a BTreeMap<String, T>, info: &SiteInfo) -> Option<&'a T> {
    let matching = patterns.iter().filter(|(name, _)| targets::matches_target(name, info));
    matching.max_by_key(|(name, _)| name.len()).map(|(_, value)| value)
}

impl Config {
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    pub fn rank_for(&self, info: &SiteInfo) -> usize {
        lookup_pattern(&self.rank_pattern, info).copied().unwrap_or(self.rank)
    }

    pub fn alpha_for(&self, info: &SiteInfo) -> f64 {
        lookup_pattern(&self.alpha_pattern, info).copied().unwrap_or_else(|| self.alpha())
    }

    /// What the update is multiplied by.
    pub fn scaling_for(&self, info: &SiteInfo) -> f64 {
        let rank = self.rank_for(info) as f64;
        self.alpha_for(info) / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Checks every value against the base's sites and writes the target modules out.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let linear_sites = targets::linear_sites(sites);
        let mut validator = MethodValidator::new(sites);
        let max_rank = linear_sites.iter().map(|info| info.in_features.min(info.out_features)).max().unwrap_or(0);
        let is_valid_rank = |rank: usize| (1..=max_rank).contains(&rank);
        let is_positive = |alpha: f64| alpha.is_finite() && alpha > 0.0;
        validator.require(is_valid_rank(self.rank), "rank", format!("rank must be between 1 and {max_rank}"));
        validator.require(is_positive(self.alpha()), "alpha", "alpha must be a number above 0");
        for (name, rank) in &self.rank_pattern {
            let field = format!("rank_pattern/{name}");
            validator.require(
                is_valid_rank(*rank),
                &field,
                format!("the rank of {name} must be between 1 and {max_rank}"),
            );
        }
        for (name, alpha) in &self.alpha_pattern {
            let field = format!("alpha_pattern/{name}");
            validator.require(is_positive(*alpha), &field, format!("the alpha of {name} must be a number above 0"));
        }
        validator.require(
            is_positive(self.learning_rate_ratio),
            "learning_rate_ratio",
            "learning_rate_ratio must be above 0",
        );
        validator.check_dropout(self.dropout);
        validator.check_layers(self.layers);
        let target_modules = validator.resolve_modules("target_modules", &self.target_modules, &linear_sites);
        let resolved = Self { alpha: Some(self.alpha()), target_modules, ..self.clone() };
        let targets = resolved.target_sites(sites);
        for (field, name) in resolved.pattern_entries() {
            let is_used = targets.iter().any(|info| targets::matches_target(name, info));
            let message = format!("\"{name}\" means none of the target modules in the chosen layers");
            validator.require(is_used, &format!("{field}/{name}"), message);
        }
        validator.finish(|| !targets.is_empty())?;
        Ok(resolved)
    }

    fn pattern_entries(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let ranks = self.rank_pattern.keys().map(|name| ("rank_pattern", name));
        ranks.chain(self.alpha_pattern.keys().map(|name| ("alpha_pattern", name)))
    }

    /// The sites of a resolved configuration, in the base's order.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        targets::selected_sites(&self.target_modules, self.layers, sites)
    }
}

/// The adapter on its sites.
pub struct Lora {
    sites: BTreeMap<Site, LoraSite>,
    bias_deltas: BiasDeltas,
    dropout: f64,
}

struct LoraSite {
    /// `(rank, input)`
    a: ParamId,
    /// `(output, rank)`, zero at first: a fresh adapter leaves the base as it is.
    b: ParamId,
    scaling: f64,
    dora: Option<DoraSite>,
}

struct DoraSite {
    base_linear: Arc<FrozenLinear>,
    /// The lengths of the weight's rows `(output)`, at first those that they have.
    magnitude: ParamId,
}

impl Lora {
    /// Builds a resolved configuration.
    pub fn build(config: &Config, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Self> {
        let mut lora_sites = BTreeMap::new();
        let targets = config.target_sites(context.sites);
        for info in &targets {
            let (site, rank) = (info.site, config.rank_for(info));
            let a = builder.add(format!("{site}.lora_A"), &[rank, info.in_features], TensorInit::LinearDefault);
            let b = builder.add(format!("{site}.lora_B"), &[info.out_features, rank], TensorInit::Zeros);
            let dora = config.dora.then(|| DoraSite::build(context, info, builder)).transpose()?;
            lora_sites.insert(site, LoraSite { a, b, scaling: config.scaling_for(info), dora });
        }
        let bias_sites = match config.bias {
            BiasKind::None => Vec::new(),
            BiasKind::LoraOnly => targets.into_iter().filter(|info| info.has_bias).collect(),
        };
        Ok(Self {
            sites: lora_sites,
            bias_deltas: BiasDeltas::build(bias_sites, context, builder)?,
            dropout: config.dropout,
        })
    }
}

impl DoraSite {
    fn build(context: &BuildContext, info: &SiteInfo, builder: &mut ParameterBuilder) -> Result<Self> {
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
