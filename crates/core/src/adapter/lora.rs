//! LoRA: a low-rank update beside a frozen linear map, `W + s·B·A` (Hu et al. 2021), with `s = alpha/r`, or
//! `alpha/√r` for rsLoRA (Kalajdzievski 2023); DoRA's `m ⊙ (W + s·B·A)/‖W + s·B·A‖` (Liu et al. 2024); LoRA+'s own learning
//! rate for B (Hayou et al. 2024).

use super::Ground;
use super::bias::Shifts;
use super::targets::{self, Check, Layers, TargetModules};
use crate::adapter::{Init, Parameters};
use crate::error::{Error, Result};
use crate::model::{Hooks, Lowest, Site, SiteInfo, hooks};
use espalier_tensor::kernels::FrozenLinear;
use espalier_tensor::{Param, Rows, Tape, Tensor};
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
            target_modules: TargetModules::of(&["query", "value"]),
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
fn pattern<'a, T>(patterns: &'a BTreeMap<String, T>, info: &SiteInfo) -> Option<&'a T> {
    let meant = patterns.iter().filter(|(name, _)| targets::is_meant(name, info));
    meant.max_by_key(|(name, _)| name.len()).map(|(_, value)| value)
}

impl Config {
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    pub fn rank_at(&self, info: &SiteInfo) -> usize {
        pattern(&self.rank_pattern, info).copied().unwrap_or(self.rank)
    }

    pub fn alpha_at(&self, info: &SiteInfo) -> f64 {
        pattern(&self.alpha_pattern, info).copied().unwrap_or_else(|| self.alpha())
    }

    /// What the update is multiplied by.
    pub fn scaling_at(&self, info: &SiteInfo) -> f64 {
        let rank = self.rank_at(info) as f64;
        self.alpha_at(info) / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Checks every value against the base's sites and writes the target modules out.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let linear = targets::linear(sites);
        let mut check = Check::new(sites);
        let widest = linear.iter().map(|info| info.input.min(info.output)).max().unwrap_or(0);
        let is_rank = |rank: usize| (1..=widest).contains(&rank);
        let is_alpha = |alpha: f64| alpha.is_finite() && alpha > 0.0;
        check.require(is_rank(self.rank), "rank", format!("rank must be between 1 and {widest}"));
        check.require(is_alpha(self.alpha()), "alpha", "alpha must be a number above 0");
        for (name, rank) in &self.rank_pattern {
            let field = format!("rank_pattern/{name}");
            check.require(is_rank(*rank), &field, format!("the rank of {name} must be between 1 and {widest}"));
        }
        for (name, alpha) in &self.alpha_pattern {
            let field = format!("alpha_pattern/{name}");
            check.require(is_alpha(*alpha), &field, format!("the alpha of {name} must be a number above 0"));
        }
        check.require(is_alpha(self.learning_rate_ratio), "learning_rate_ratio", "learning_rate_ratio must be above 0");
        check.dropout(self.dropout);
        check.layers(self.layers);
        let target_modules = check.modules("target_modules", &self.target_modules, &linear);
        let resolved = Self { alpha: Some(self.alpha()), target_modules, ..self.clone() };
        let chosen = resolved.targets(sites);
        for (field, name) in resolved.patterns() {
            let is_used = chosen.iter().any(|info| targets::is_meant(name, info));
            let message = format!("\"{name}\" means none of the target modules in the chosen layers");
            check.require(is_used, &format!("{field}/{name}"), message);
        }
        check.finish(|| !chosen.is_empty())?;
        Ok(resolved)
    }

    fn patterns(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let ranks = self.rank_pattern.keys().map(|name| ("rank_pattern", name));
        ranks.chain(self.alpha_pattern.keys().map(|name| ("alpha_pattern", name)))
    }

    /// The sites of a resolved configuration, in the base's order.
    pub fn targets<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        targets::chosen(&self.target_modules, self.layers, sites)
    }
}

/// The adapter on its sites.
pub struct Lora {
    pairs: BTreeMap<Site, Pair>,
    shifts: Shifts,
    dropout: f64,
}

struct Pair {
    /// `(rank, input)`
    a: Param,
    /// `(output, rank)`, zero at first: a fresh adapter leaves the base as it is.
    b: Param,
    scaling: f64,
    dora: Option<Dora>,
}

struct Dora {
    map: Arc<FrozenLinear>,
    /// The lengths of the weight's rows `(output)`, at first those that they have.
    magnitude: Param,
}

impl Lora {
    /// Builds a resolved configuration.
    pub fn build(config: &Config, ground: &Ground, parameters: &mut Parameters) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        let targets = config.targets(ground.sites);
        for info in &targets {
            let (site, rank) = (info.site, config.rank_at(info));
            let a = parameters.tensor(format!("{site}.lora_A"), &[rank, info.input], Init::KaimingUniform);
            let b = parameters.tensor(format!("{site}.lora_B"), &[info.output, rank], Init::Zeros);
            let dora = config.dora.then(|| Dora::build(ground, info, parameters)).transpose()?;
            pairs.insert(site, Pair { a, b, scaling: config.scaling_at(info), dora });
        }
        let shifted = match config.bias {
            BiasKind::None => Vec::new(),
            BiasKind::LoraOnly => targets.into_iter().filter(|info| info.bias).collect(),
        };
        Ok(Self { pairs, shifts: Shifts::build(shifted, ground, parameters)?, dropout: config.dropout })
    }
}

impl Dora {
    fn build(ground: &Ground, info: &SiteInfo, parameters: &mut Parameters) -> Result<Self> {
        let missing = || Error::internal(format!("the base has no linear map at {}", info.site));
        let map = Arc::clone(ground.base.map(info.site).ok_or_else(missing)?);
        let lengths = |_: u64, _: &str| {
            let squares = ground.base.kernels().squared_rows(&map)?;
            let lengths = squares.values.iter().map(|square| square.sqrt()).collect();
            Ok::<_, Error>(Tensor::new([info.output], lengths))
        };
        let magnitude = parameters.tensor_from(format!("{}.lora_magnitude", info.site), &[info.output], lengths)?;
        Ok(Self { map, magnitude })
    }
}

impl Hooks for Lora {
    fn touches(&self, site: Site) -> bool {
        self.pairs.contains_key(&site)
    }

    fn after(&self, tape: &mut Tape, site: Site, input: Rows, output: Rows) -> Result<Rows> {
        let Some(pair) = self.pairs.get(&site) else { return Ok(output) };
        let input = tape.dropout(input, self.dropout, site.place())?;
        let output = match &pair.dora {
            None => tape.add_low_rank(output, input, pair.a, pair.b, pair.scaling)?,
            Some(dora) => {
                // b + (x·(W + s·B·A)ᵀ) ⊙ m/‖W + s·B·A‖
                let inverse = tape.inverse_row_lengths(&dora.map, pair.a, pair.b, pair.scaling)?;
                let magnitude = tape.parameter(dora.magnitude)?;
                let factors = tape.times(magnitude, inverse)?;
                let output = tape.add_bias(output, &dora.map, -1.0)?;
                let output = tape.add_low_rank(output, input, pair.a, pair.b, pair.scaling)?;
                let output = tape.scale_columns(output, factors)?;
                tape.add_bias(output, &dora.map, 1.0)?
            }
        };
        self.shifts.add(tape, site, output)
    }

    fn low_ranks(&self) -> Vec<[Param; 2]> {
        self.pairs.values().map(|pair| [pair.a, pair.b]).collect()
    }

    fn lowest(&self) -> Lowest {
        hooks::lowest(self.pairs.keys().copied())
    }
}
