//! LoRA: adds a low-rank update to a frozen linear map, `W + s·B·A` (Hu et al. 2021), with `s = alpha/r`, or `alpha/√r` for
//! rsLoRA (Kalajdzievski 2023). DoRA: `m ⊙ (W + s·B·A)/‖W + s·B·A‖` (Liu et al. 2024). LoRA+: a learning rate of its own for B
//! (Hayou et al. 2024).

use super::delta_vector::{BiasDeltas, bias_tensor_name};
use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorInit, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::target_modules::{self, Layers, TargetModules, linear_sites};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::error::{Error, Result};
use crate::model::{BaseModelInfo, FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{ParamId, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

mod peft;

pub use peft::{LowRank, PeftConfig};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Lora)]
pub struct Config {
    pub rank: usize,
    /// By default twice the rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Dropout rate of the adapter's input during training.
    pub dropout: f64,
    pub target_modules: TargetModules,
    pub layers: Layers,
    /// Scale by `alpha/√rank` instead of `alpha/rank`.
    pub rslora: bool,
    /// Use DoRA: train the norms of the weight's rows apart from their directions.
    pub dora: bool,
    /// Learning rate of B as a multiple of the job's (LoRA+).
    pub learning_rate_ratio: f64,
    /// Biases of the base to train as well.
    pub bias: BiasKind,
    /// Ranks of single modules, by module name or by the end of the checkpoint's path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
}

/// Biases of the base to train.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BiasKind {
    #[default]
    None,
    /// The biases of the target modules.
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

/// The value of the longest name that selects this site.
fn lookup_pattern<'a, T>(patterns: &'a BTreeMap<String, T>, info: &SiteInfo) -> Option<&'a T> {
    let matching = patterns.iter().filter(|(name, _)| target_modules::matches_target(name, info));
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

    /// The scaling of the update, `alpha/rank` or `alpha/√rank`.
    pub fn scaling_for(&self, info: &SiteInfo) -> f64 {
        let rank = self.rank_for(info) as f64;
        self.alpha_for(info) / if self.rslora { rank.sqrt() } else { rank }
    }

    fn check_values(&self, validator: &mut MethodValidator, max_rank: usize) {
        let is_valid_rank = |rank: usize| (1..=max_rank).contains(&rank);
        let is_positive = |number: f64| number.is_finite() && number > 0.0;
        validator.require(is_valid_rank(self.rank), "rank", format!("rank must be between 1 and {max_rank}"));
        validator.require(is_positive(self.alpha()), "alpha", "alpha must be a number above 0");
        for (name, rank) in &self.rank_pattern {
            let message = format!("the rank of {name} must be between 1 and {max_rank}");
            validator.require(is_valid_rank(*rank), &format!("rank_pattern/{name}"), message);
        }
        for (name, alpha) in &self.alpha_pattern {
            let message = format!("the alpha of {name} must be a number above 0");
            validator.require(is_positive(*alpha), &format!("alpha_pattern/{name}"), message);
        }
        let message = "learning_rate_ratio must be above 0";
        validator.require(is_positive(self.learning_rate_ratio), "learning_rate_ratio", message);
        validator.check_dropout(self.dropout);
        validator.check_layers(self.layers);
    }

    fn pattern_entries(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let ranks = self.rank_pattern.keys().map(|name| ("rank_pattern", name));
        ranks.chain(self.alpha_pattern.keys().map(|name| ("alpha_pattern", name)))
    }

    /// The sites of a resolved configuration, in the base's order.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        target_modules::selected_sites(&self.target_modules, self.layers, sites)
    }
}

impl Method for Config {
    fn resolve(&self, _: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let linear_sites = linear_sites(sites);
        let mut validator = MethodValidator::new(sites);
        let max_rank = linear_sites.iter().map(|info| info.in_features.min(info.out_features)).max().unwrap_or(0);
        self.check_values(&mut validator, max_rank);
        let target_modules = validator.resolve_modules("target_modules", &self.target_modules, &linear_sites);
        let resolved = Self { alpha: Some(self.alpha()), target_modules, ..self.clone() };
        let targets = resolved.target_sites(sites);
        for (field, name) in resolved.pattern_entries() {
            let is_used = targets.iter().any(|info| target_modules::matches_target(name, info));
            let message = format!("\"{name}\" means none of the target modules in the chosen layers");
            validator.require(is_used, &format!("{field}/{name}"), message);
        }
        validator.finish(|| !targets.is_empty())?;
        Ok(resolved)
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        let mut lora_sites = BTreeMap::new();
        let targets = self.target_sites(context.sites);
        for info in &targets {
            let (site, rank) = (info.site, self.rank_for(info));
            let a = builder.add(format!("{site}.lora_A"), &[rank, info.in_features], TensorInit::LinearDefault);
            let b = builder.add(format!("{site}.lora_B"), &[info.out_features, rank], TensorInit::Zeros);
            let dora = self.dora.then(|| DoraSite::build(context, info, builder)).transpose()?;
            lora_sites.insert(site, LoraSite { a, b, scaling: self.scaling_for(info), dora });
        }
        let bias_sites = match self.bias {
            BiasKind::None => Vec::new(),
            BiasKind::LoraOnly => targets.into_iter().filter(|info| info.has_bias).collect(),
        };
        let bias_deltas = BiasDeltas::build(bias_sites, context, builder)?;
        Ok(Box::new(Lora { sites: lora_sites, bias_deltas, dropout: self.dropout }))
    }

    fn num_virtual_tokens(&self) -> usize {
        0
    }

    fn head_dropout(&self) -> f64 {
        0.0
    }

    fn training_defaults(&self) -> TrainingDefaults {
        TrainingDefaults::with_learning_rate(1e-3)
    }

    fn learning_rate_ratio(&self, tensor: &str) -> f64 {
        if tensor.ends_with(".lora_B") { self.learning_rate_ratio } else { 1.0 }
    }

    /// With DoRA the output differs by rounding: it is divided by the norm that it is multiplied by.
    fn is_identity_at_init(&self) -> bool {
        !self.dora
    }

    fn inference_weights(&self, _: &BuildContext, weights: TensorMap) -> Result<TensorMap> {
        Ok(weights)
    }

    fn tensor_specs(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        for info in self.target_sites(sites) {
            let (site, rank) = (info.site, self.rank_for(info));
            let mut add = |suffix: &str, name: String, shape: Vec<usize>| {
                specs.push(TensorSpec::with_key(naming.module_key(info, suffix), name, shape));
            };
            add("lora_A.weight", format!("{site}.lora_A"), vec![rank, info.in_features]);
            add("lora_B.weight", format!("{site}.lora_B"), vec![info.out_features, rank]);
            if self.dora {
                add("lora_magnitude_vector", format!("{site}.lora_magnitude"), vec![info.out_features]);
            }
            if info.has_bias && self.bias == BiasKind::LoraOnly {
                add("base_layer.bias", bias_tensor_name(site), vec![info.out_features]);
            }
        }
        specs
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        Some(self)
    }
}

/// Hooks that add the low-rank updates.
pub struct Lora {
    pub sites: BTreeMap<Site, LoraSite>,
    pub bias_deltas: BiasDeltas,
    /// Dropout rate of the input.
    pub dropout: f64,
}

/// Trainable matrices of LoRA at one linear map.
pub struct LoraSite {
    /// `(rank, input)`
    pub a: ParamId,
    /// `(output, rank)`, zero at initialisation.
    pub b: ParamId,
    pub scaling: f64,
    pub dora: Option<DoraSite>,
}

/// Trainable magnitudes of DoRA at one linear map.
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
