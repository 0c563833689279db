//! VeRA: one pair of frozen random matrices for all sites, and two learned vectors at each (Kopiczko et al. 2023):
//! `y + λb ⊙ B·(λd ⊙ A·x)`.
//!
//! The matrices are a function of `projection_seed`, so adapters with the same one share them in memory; they travel with
//! the adapter, as other programs draw other numbers.

use super::Ground;
use super::targets::{self, Check, Layers, TargetModules};
use crate::adapter::{Init, Parameters};
use crate::error::Result;
use crate::model::{Hooks, Lowest, Site, SiteInfo, hooks};
use espalier_tensor::kernels::FrozenLinear;
use espalier_tensor::{Param, Rows, Tape, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Vera)]
pub struct Config {
    pub rank: usize,
    /// What λd starts from.
    pub d_initial: f64,
    /// Of the adapter's input, in training.
    pub dropout: f64,
    /// The random matrices are drawn from it.
    pub projection_seed: u64,
    pub target_modules: TargetModules,
    pub layers: Layers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rank: 256,
            d_initial: 0.1,
            dropout: 0.0,
            projection_seed: 0,
            target_modules: TargetModules::of(&["query", "value"]),
            layers: Layers::default(),
        }
    }
}

/// The names of the frozen matrices, `(rank, widest input)` and `(widest output, rank)`.
pub const A: &str = "vera_A";
pub const B: &str = "vera_B";
const MOST: usize = 4096;

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let linear = targets::linear(sites);
        let mut check = Check::new(sites);
        check.require((1..=MOST).contains(&self.rank), "rank", format!("rank must be between 1 and {MOST}"));
        let is_number = self.d_initial.is_finite() && self.d_initial != 0.0;
        check.require(is_number, "d_initial", "d_initial must be a number, and not 0");
        check.dropout(self.dropout);
        check.layers(self.layers);
        let target_modules = check.modules("target_modules", &self.target_modules, &linear);
        let resolved = Self { target_modules, ..self.clone() };
        check.finish(|| !resolved.targets(sites).is_empty())?;
        Ok(resolved)
    }

    /// The sites of a resolved configuration.
    pub fn targets<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        targets::chosen(&self.target_modules, self.layers, sites)
    }

    /// The shapes of the frozen matrices.
    pub fn shapes(&self, sites: &[SiteInfo]) -> [[usize; 2]; 2] {
        let widest = |width: fn(&SiteInfo) -> usize| self.targets(sites).into_iter().map(width).max().unwrap_or(0);
        [[self.rank, widest(|info| info.input)], [widest(|info| info.output), self.rank]]
    }
}

pub struct Vera {
    sites: BTreeMap<Site, Learned>,
    dropout: f64,
}

struct Learned {
    a: Arc<FrozenLinear>,
    b: Arc<FrozenLinear>,
    /// λd `(rank)`
    d: Param,
    /// λb `(output)`, zero at first: a fresh adapter leaves the base as it is.
    output: Param,
}

impl Vera {
    pub fn build(config: &Config, ground: &Ground, parameters: &mut Parameters) -> Result<Self> {
        let [a_shape, b_shape] = config.shapes(ground.sites);
        let a = parameters.frozen(A, &a_shape, config.projection_seed);
        let b = parameters.frozen(B, &b_shape, config.projection_seed);
        let mut sites = BTreeMap::new();
        for info in config.targets(ground.sites) {
            let mut vector = |what: &str, width: usize, init| {
                parameters.tensor(format!("{}.vera_lambda_{what}", info.site), &[width], init)
            };
            let d = vector("d", config.rank, Init::Constant(config.d_initial as f32));
            let output = vector("b", info.output, Init::Zeros);
            let (a, b) = (columns(&a, info.input), rows(&b, info.output));
            let (a, b) = (ground.base.shared_linear(a)?, ground.base.shared_linear(b)?);
            sites.insert(info.site, Learned { a, b, d, output });
        }
        Ok(Self { sites, dropout: config.dropout })
    }
}

/// The first columns.
fn columns(matrix: &Tensor, count: usize) -> Tensor {
    let (rows, width) = (matrix.shape[0], matrix.shape[1]);
    Tensor::new([rows, count], matrix.values.chunks_exact(width).flat_map(|row| &row[..count]).copied().collect())
}

/// The first rows.
fn rows(matrix: &Tensor, count: usize) -> Tensor {
    let width = matrix.shape[1];
    Tensor::new([count, width], matrix.values[..count * width].to_vec())
}

impl Hooks for Vera {
    fn lowest(&self) -> Lowest {
        hooks::lowest(self.sites.keys().copied())
    }

    fn touches(&self, site: Site) -> bool {
        self.sites.contains_key(&site)
    }

    fn after(&self, tape: &mut Tape, site: Site, input: Rows, output: Rows) -> Result<Rows> {
        let Some(learned) = self.sites.get(&site) else { return Ok(output) };
        let input = tape.dropout(input, self.dropout, site.place())?;
        let (d, b) = (tape.parameter(learned.d)?, tape.parameter(learned.output)?);
        let inner = tape.linear(input, &learned.a)?;
        let inner = tape.scale_columns(inner, d)?;
        let update = tape.linear(inner, &learned.b)?;
        let update = tape.scale_columns(update, b)?;
        Ok(tape.add_rows(output, update, 1.0)?)
    }
}
