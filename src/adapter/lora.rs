//! LoRA: a low-rank update beside a frozen linear map, `W + s·B·A` (Hu et al. 2021), with `s = alpha/r`, or
//! `alpha/√r` for rsLoRA (Kalajdzievski 2023).

use crate::adapter::{Init, Parameters};
use crate::compute::{Param, Rows, Tape};
use crate::error::{Error, Fault, Problem, Result};
use crate::model::{Hooks, Lowest, Module, Site, SiteInfo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: None,
            dropout: 0.0,
            target_modules: TargetModules::Names(vec!["query".to_string(), "value".to_string()]),
            layers: Layers::default(),
            rslora: false,
        }
    }
}

/// Our names (`query`), names of the checkpoint (`attention.self.query`, matched as PEFT does: equal, or the end after a
/// dot), or `"all-linear"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TargetModules {
    Names(Vec<String>),
    Word(String),
}

/// Which layers: `"all"`, `{"top": 2}`, or `{"from": 2, "to": 4}` (both included).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", untagged, deny_unknown_fields)]
pub enum Layers {
    Named(AllLayers),
    Top { top: usize },
    Range { from: usize, to: usize },
}

impl Default for Layers {
    fn default() -> Self {
        Self::Named(AllLayers::All)
    }
}

/// The word `"all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllLayers {
    All,
}

impl Config {
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    /// What the update is multiplied by.
    pub fn scaling(&self) -> f64 {
        match self.rslora {
            true => self.alpha() / (self.rank as f64).sqrt(),
            false => self.alpha() / self.rank as f64,
        }
    }

    /// Checks every value against the base's sites and writes the target modules out ([`Self::names`]).
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let mut faults = self.faults(sites);
        let names = match self.names(sites) {
            Ok(names) => names,
            Err(message) => {
                faults.push(Fault::at_pointer("/method/target_modules", message));
                Vec::new()
            }
        };
        if !faults.is_empty() {
            let detail = format!("the method's settings do not fit this base: {}", sentence(&faults));
            return Err(Error::Invalid(Problem::new("invalid_method", detail).with_faults(faults)));
        }
        let resolved = Self { alpha: Some(self.alpha()), target_modules: TargetModules::Names(names), ..self.clone() };
        if resolved.targets(sites).is_empty() {
            let message = "no target module lies in the chosen layers";
            let problem =
                Problem::new("invalid_method", format!("the method's settings do not fit this base: {message}"));
            return Err(Error::Invalid(problem.with_faults(vec![Fault::at_pointer("/method/layers", message)])));
        }
        Ok(resolved)
    }

    fn faults(&self, sites: &[SiteInfo]) -> Vec<Fault> {
        let mut faults = Vec::new();
        let widest = sites.iter().map(|info| info.input.min(info.output)).max().unwrap_or(0);
        if self.rank == 0 || self.rank > widest {
            faults.push(Fault::at_pointer("/method/rank", format!("rank must be between 1 and {widest}")));
        }
        if !self.alpha().is_finite() || self.alpha() <= 0.0 {
            faults.push(Fault::at_pointer("/method/alpha", "alpha must be a number above 0"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            faults.push(Fault::at_pointer("/method/dropout", "dropout must be at least 0 and below 1"));
        }
        let layers = layers(sites);
        let message = match self.layers {
            Layers::Named(AllLayers::All) => None,
            Layers::Top { top } if top == 0 || top > layers => Some(format!("top must be between 1 and {layers}")),
            Layers::Range { from, to } if from > to || to >= layers => {
                Some(format!("from and to count layers from 0 to {}, from not above to", layers.saturating_sub(1)))
            }
            _ => None,
        };
        faults.extend(message.map(|message| Fault::at_pointer("/method/layers", message)));
        faults
    }

    /// What the target names mean, in our order: a module's own name where every layer has it, else its paths.
    fn names(&self, sites: &[SiteInfo]) -> std::result::Result<Vec<String>, String> {
        let names = match &self.target_modules {
            TargetModules::Word(word) if word == "all-linear" => {
                return Ok(modules(sites).map(|module| module.name().to_string()).collect());
            }
            TargetModules::Word(word) => std::slice::from_ref(word),
            TargetModules::Names(names) if names.is_empty() => return Err("name at least one module".to_string()),
            TargetModules::Names(names) => names.as_slice(),
        };
        let unknown = |name: &String| !sites.iter().any(|info| is_meant(name, info));
        if let Some(name) = names.iter().find(|name| unknown(name)) {
            let known: Vec<&str> = modules(sites).map(Module::name).collect();
            let known = known.join(", ");
            return Err(format!("\"{name}\" is no module of this base; known are {known}, or \"all-linear\""));
        }
        let meant = |info: &&SiteInfo| names.iter().any(|name| is_meant(name, info));
        let of = |module: Module| {
            let all: Vec<&SiteInfo> = sites.iter().filter(|info| info.site.module == module).collect();
            match all.iter().all(meant) {
                true => vec![module.name().to_string()],
                false => all.into_iter().filter(meant).map(|info| info.path.clone()).collect(),
            }
        };
        Ok(modules(sites).flat_map(of).collect())
    }

    /// The sites of a resolved configuration, in the base's order.
    pub fn targets<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        let count = layers(sites);
        let in_layers = |site: Site| match (site.layer, self.layers) {
            (None, _) | (_, Layers::Named(AllLayers::All)) => true,
            (Some(layer), Layers::Top { top }) => layer + top >= count,
            (Some(layer), Layers::Range { from, to }) => (from..=to).contains(&layer),
        };
        // A whole path means one site: imported adapters may touch any set of them.
        let named = |info: &SiteInfo| match &self.target_modules {
            TargetModules::Names(names) => {
                names.iter().any(|name| name == info.site.module.name() || *name == info.path)
            }
            TargetModules::Word(_) => false,
        };
        sites.iter().filter(|info| named(info) && in_layers(info.site)).collect()
    }
}

fn layers(sites: &[SiteInfo]) -> usize {
    sites.iter().filter_map(|info| info.site.layer).max().map_or(0, |last| last + 1)
}

/// The modules that this base has, in our order.
fn modules(sites: &[SiteInfo]) -> impl Iterator<Item = Module> {
    Module::ALL.into_iter().filter(|module| sites.iter().any(|info| info.site.module == *module))
}

/// Our own name, or PEFT's rule: the checkpoint's path is the name, or ends in it after a dot.
fn is_meant(name: &str, info: &SiteInfo) -> bool {
    let ends_in = || info.path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    info.site.module.name() == name || ends_in()
}

fn sentence(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; ")
}

/// The adapter on its sites.
pub struct Lora {
    pairs: BTreeMap<Site, Pair>,
    scaling: f64,
    dropout: f64,
}

struct Pair {
    /// `(rank, input)`
    a: Param,
    /// `(output, rank)`, zero at first: a fresh adapter leaves the base as it is.
    b: Param,
}

impl Lora {
    /// Builds a resolved configuration.
    pub fn build(config: &Config, sites: &[SiteInfo], parameters: &mut Parameters) -> Result<Self> {
        let pair = |info: &SiteInfo| {
            let a =
                parameters.tensor(format!("{}.lora_A", info.site), &[config.rank, info.input], Init::KaimingUniform);
            let b = parameters.tensor(format!("{}.lora_B", info.site), &[info.output, config.rank], Init::Zeros);
            (info.site, Pair { a, b })
        };
        let pairs = config.targets(sites).into_iter().map(pair).collect();
        Ok(Self { pairs, scaling: config.scaling(), dropout: config.dropout })
    }
}

impl Hooks for Lora {
    fn touches(&self, site: Site) -> bool {
        self.pairs.contains_key(&site)
    }

    fn after(&self, tape: &mut Tape, site: Site, input: Rows, output: Rows) -> Result<Rows> {
        let Some(pair) = self.pairs.get(&site) else { return Ok(output) };
        let input = tape.dropout(input, self.dropout, site.place())?;
        tape.add_low_rank(output, input, pair.a, pair.b, self.scaling)
    }

    fn lowest(&self) -> Lowest {
        let lowest = |site: &Site| site.layer.map_or(Lowest::Pooler, Lowest::Layer);
        self.pairs.keys().map(lowest).min().unwrap_or(Lowest::Head)
    }
}
