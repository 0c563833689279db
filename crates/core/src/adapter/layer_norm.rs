//! LayerNorm tuning: the norms' gains and shifts, learned as differences (Zhao et al. 2023).

use super::Ground;
use super::bias::{self, Moved};
use super::targets::{self, Check, Layers, TargetModules};
use crate::adapter::Parameters;
use crate::error::{Error, Result};
use crate::model::{Hooks, Lowest, Site, SiteInfo, hooks};
use espalier_tensor::{Rows, Tape};
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
        let able: Vec<SiteInfo> = sites.iter().filter(|info| !info.site.module.is_linear()).cloned().collect();
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

/// Norms with what they have become: y = norm(x) + x̂ ⊙ Δgain + Δshift, the last where the base has a shift.
pub struct LayerNorm(BTreeMap<Site, (Moved, Option<Moved>)>);

impl LayerNorm {
    pub fn build(config: &Config, ground: &Ground, parameters: &mut Parameters) -> Result<Self> {
        let mut norms = BTreeMap::new();
        for info in config.targets(ground.sites) {
            let missing = || Error::internal(format!("the base has no norm at {}", info.site));
            let [gain, shift] = ground.base.norm(info.site)?.ok_or_else(missing)?;
            let gain = Moved::build(ground, gain_name(info.site), &gain, parameters)?;
            let shift = match info.bias {
                true => Some(Moved::build(ground, bias::name(info.site), &shift, parameters)?),
                false => None,
            };
            norms.insert(info.site, (gain, shift));
        }
        Ok(Self(norms))
    }
}

/// The tensor's name: `layer.0.attention_norm.gain`.
pub fn gain_name(site: Site) -> String {
    format!("{site}.gain")
}

impl Hooks for LayerNorm {
    fn lowest(&self) -> Lowest {
        hooks::lowest(self.0.keys().copied())
    }

    fn touches(&self, site: Site) -> bool {
        self.0.contains_key(&site)
    }

    fn norm(&self, tape: &mut Tape, site: Site, normalised: Rows, output: Rows) -> Result<Rows> {
        let Some((gain, shift)) = self.0.get(&site) else { return Ok(output) };
        let gain = gain.difference(tape)?;
        let scaled = tape.copy(normalised)?;
        let scaled = tape.scale_columns(scaled, gain)?;
        let output = tape.add_rows(output, scaled, 1.0)?;
        let Some(shift) = shift else { return Ok(output) };
        let shift = shift.difference(tape)?;
        Ok(tape.add_columns(output, shift)?)
    }
}
