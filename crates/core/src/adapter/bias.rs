//! BitFit: the base's biases, learned as differences (Ben Zaken et al. 2021), those of linear maps and the shifts of norms.
//!
//! The key projection's bias is left out: it adds the same to all of a query's scores, and softmax takes it away again.

use super::Ground;
use super::targets::{self, Check, Layers, TargetModules};
use crate::adapter::Parameters;
use crate::error::{Error, Result};
use crate::model::{Hooks, Lowest, Module, Site, SiteInfo, hooks};
use espalier_tensor::{Buffer, Packed, Param, Rows, Tape, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Bias)]
pub struct Config {
    /// Linear maps and norms; all that have a bias where it is left out.
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
        let able: Vec<SiteInfo> = able(sites).into_iter().cloned().collect();
        let mut check = Check::new(sites);
        check.dropout(self.dropout);
        let modules = check.all_or_named(self.target_modules.as_ref(), self.layers, &able, sites)?;
        Ok(Self { target_modules: Some(modules), ..self.clone() })
    }

    /// The sites of a resolved configuration.
    pub fn targets<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        let chosen = |modules| targets::chosen(modules, self.layers, sites);
        self.target_modules.as_ref().map_or_else(Vec::new, chosen)
    }
}

/// Where there is a bias that can be learned from.
pub fn able<'a>(sites: impl IntoIterator<Item = &'a SiteInfo>) -> Vec<&'a SiteInfo> {
    sites.into_iter().filter(|info| info.bias && info.site.module != Module::Key).collect()
}

/// A vector of the base's that is learned: the tensor is what it has become, as PEFT stores it, and the base is changed by
/// the difference alone.
pub struct Moved {
    vector: Param,
    /// The base's own, with the other sign `(1, width)`.
    minus: Buffer,
}

impl Moved {
    pub fn build(ground: &Ground, name: String, own: &Tensor, parameters: &mut Parameters) -> Result<Self> {
        let start = |_: u64, _: &str| Ok::<_, Error>(own.clone());
        let vector = parameters.tensor_from(name, &own.shape, start)?;
        let minus = own.values.iter().map(|value| -value).collect();
        let minus = ground.base.kernels().upload(&Tensor::new([1, own.values.len()], minus))?;
        Ok(Self { vector, minus })
    }

    /// What has been added to the base's own `(1, width)`: zero at first.
    pub fn difference(&self, tape: &mut Tape) -> Result<Rows> {
        let vector = tape.parameter(self.vector)?;
        let minus = tape.constant(self.minus.clone(), Arc::new(Packed::single_rows(1)));
        Ok(tape.add_columns(vector, minus)?)
    }
}

/// Learned biases.
#[derive(Default)]
pub struct Shifts(BTreeMap<Site, Moved>);

impl Shifts {
    pub fn build<'a>(
        sites: impl IntoIterator<Item = &'a SiteInfo>,
        ground: &Ground,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let mut shifts = BTreeMap::new();
        for info in sites {
            let missing = || Error::internal(format!("the base has no bias at {}", info.site));
            let own = ground.base.bias(info.site)?.ok_or_else(missing)?;
            shifts.insert(info.site, Moved::build(ground, name(info.site), &own, parameters)?);
        }
        Ok(Self(shifts))
    }

    pub fn touches(&self, site: Site) -> bool {
        self.0.contains_key(&site)
    }

    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        self.0.keys().copied()
    }

    /// The output with the site's difference, where it has one.
    pub fn add(&self, tape: &mut Tape, site: Site, output: Rows) -> Result<Rows> {
        let Some(moved) = self.0.get(&site) else { return Ok(output) };
        let difference = moved.difference(tape)?;
        Ok(tape.add_columns(output, difference)?)
    }
}

/// The tensor's name: `layer.0.query.bias`.
pub fn name(site: Site) -> String {
    format!("{site}.bias")
}

pub struct Bias(Shifts);

impl Bias {
    pub fn build(config: &Config, ground: &Ground, parameters: &mut Parameters) -> Result<Self> {
        Ok(Self(Shifts::build(config.targets(ground.sites), ground, parameters)?))
    }
}

impl Hooks for Bias {
    fn lowest(&self) -> Lowest {
        hooks::lowest(self.0.sites())
    }

    fn touches(&self, site: Site) -> bool {
        self.0.touches(site)
    }

    fn after(&self, tape: &mut Tape, site: Site, _input: Rows, output: Rows) -> Result<Rows> {
        self.0.add(tape, site, output)
    }

    fn norm(&self, tape: &mut Tape, site: Site, _normalised: Rows, output: Rows) -> Result<Rows> {
        self.0.add(tape, site, output)
    }
}
