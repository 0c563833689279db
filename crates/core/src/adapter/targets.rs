//! Which places of the base a method touches: named modules, in chosen layers.
//!
//! What a user says is checked against the base's sites and written out, so that what is stored says all that matters.

use crate::error::{Error, Fault, Problem, Result};
use crate::model::{Module, Site, SiteInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

impl Layers {
    /// Whether they are fewer than all.
    pub fn contains(self, layer: usize, layers: usize) -> bool {
        match self {
            Self::Named(AllLayers::All) => true,
            Self::Top { top } => layer.saturating_add(top) >= layers,
            Self::Range { from, to } => (from..=to).contains(&layer),
        }
    }

    fn fault(self, layers: usize) -> Option<String> {
        match self {
            Self::Named(AllLayers::All) => None,
            Self::Top { top } if top == 0 || top > layers => Some(format!("top must be between 1 and {layers}")),
            Self::Range { from, to } if from > to || to >= layers => {
                Some(format!("from and to count layers from 0 to {}, from not above to", layers.saturating_sub(1)))
            }
            _ => None,
        }
    }
}

impl TargetModules {
    pub fn of(names: &[&str]) -> Self {
        Self::Names(names.iter().map(|name| (*name).to_string()).collect())
    }

    /// What the names mean, in our order: a module's own name where every layer has it, else its paths. `sites` are those
    /// that the method could touch.
    fn names(&self, sites: &[SiteInfo]) -> std::result::Result<Vec<String>, String> {
        let names = match self {
            Self::Word(word) if word == "all-linear" => {
                let linear = modules(sites).filter(|module| module.is_linear());
                return Ok(linear.map(|module| module.name().to_string()).collect());
            }
            Self::Word(word) => std::slice::from_ref(word),
            Self::Names(names) if names.is_empty() => return Err("name at least one module".to_string()),
            Self::Names(names) => names.as_slice(),
        };
        let unknown = |name: &String| !sites.iter().any(|info| is_meant(name, info));
        if let Some(name) = names.iter().find(|name| unknown(name)) {
            let known: Vec<&str> = modules(sites).map(Module::name).collect();
            return Err(format!(
                "\"{name}\" is no module of this base that this method changes; known are {}",
                list(&known)
            ));
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

    /// Whether a resolved list names this site. A whole path means one site: imported adapters may touch any set of them.
    pub fn names_site(&self, info: &SiteInfo) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| name == info.site.module.name() || *name == info.path),
            Self::Word(_) => false,
        }
    }
}

fn list(known: &[&str]) -> String {
    let linear =
        known.iter().any(|name| [Module::Query, Module::QueryKeyValue].iter().any(|module| *name == module.name()));
    format!("{}{}", known.join(", "), if linear { ", or \"all-linear\"" } else { "" })
}

/// What is wrong with a method's settings, one fault each.
pub struct Check {
    faults: Vec<Fault>,
    layers: usize,
}

impl Check {
    pub fn new(sites: &[SiteInfo]) -> Self {
        Self { faults: Vec::new(), layers: layers(sites) }
    }

    /// `field` is the setting's name.
    pub fn require(&mut self, holds: bool, field: &str, message: impl Into<String>) {
        if !holds {
            self.faults.push(Fault::at_pointer(format!("/method/{field}"), message));
        }
    }

    pub fn dropout(&mut self, dropout: f64) {
        self.require((0.0..1.0).contains(&dropout), "dropout", "dropout must be at least 0 and below 1");
    }

    pub fn layers(&mut self, layers: Layers) {
        if let Some(message) = layers.fault(self.layers) {
            self.require(false, "layers", message);
        }
    }

    /// The modules written out. `sites` are those that the method could touch.
    pub fn modules(&mut self, field: &str, modules: &TargetModules, sites: &[SiteInfo]) -> TargetModules {
        match modules.names(sites) {
            Ok(names) => TargetModules::Names(names),
            Err(message) => {
                self.require(false, field, message);
                TargetModules::Names(Vec::new())
            }
        }
    }

    /// The modules of a method that touches everything it is able to where none are named, written out; the last check.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn all_or_named(
        mut self,
        named: Option<&TargetModules>,
        layers: Layers,
        able: &[SiteInfo],
        sites: &[SiteInfo],
    ) -> Result<TargetModules> {
        self.layers(layers);
        let all = || TargetModules::Names(modules(able).map(|module| module.name().to_string()).collect());
        let modules = self.modules("target_modules", &named.cloned().unwrap_or_else(all), able);
        self.finish(|| !chosen(&modules, layers, sites).is_empty())?;
        Ok(modules)
    }

    /// What has been found, and whether anything is touched at all.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn finish(mut self, touches_something: impl FnOnce() -> bool) -> Result<()> {
        if self.faults.is_empty() && !touches_something() {
            self.require(false, "layers", "no target module lies in the chosen layers");
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        let messages: Vec<&str> = self.faults.iter().map(|fault| fault.message.as_str()).collect();
        let detail = format!("the method's settings do not fit this base: {}", messages.join("; "));
        Err(Error::Invalid(Problem::new("invalid_method", detail).with_faults(self.faults)))
    }
}

/// The sites of a resolved list in the chosen layers, in the base's order.
pub fn chosen<'a>(modules: &TargetModules, layers: Layers, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
    sites.iter().filter(|info| modules.names_site(info) && in_layers(info.site, layers, sites)).collect()
}

/// What belongs to no layer is in whatever layers are chosen.
pub fn in_layers(site: Site, chosen: Layers, sites: &[SiteInfo]) -> bool {
    site.layer.is_none_or(|layer| chosen.contains(layer, layers(sites)))
}

/// The layers of the base.
pub fn layers(sites: &[SiteInfo]) -> usize {
    sites.iter().filter_map(|info| info.site.layer).max().map_or(0, |last| last + 1)
}

/// The linear maps.
pub fn linear(sites: &[SiteInfo]) -> Vec<SiteInfo> {
    sites.iter().filter(|info| info.site.module.is_linear()).cloned().collect()
}

/// The modules that there are, in our order.
fn modules(sites: &[SiteInfo]) -> impl Iterator<Item = Module> {
    Module::ALL.into_iter().filter(|module| sites.iter().any(|info| info.site.module == *module))
}

/// Our names of the parts that a fused map is made of: they mean all of it.
fn parts(module: Module) -> &'static [&'static str] {
    match module {
        Module::QueryKeyValue => &["query", "key", "value"],
        Module::FeedForwardGateIn => &["feed_forward_in"],
        _ => &[],
    }
}

/// Our own name, or PEFT's rule: the checkpoint's path is the name, or ends in it after a dot.
pub fn is_meant(name: &str, info: &SiteInfo) -> bool {
    let ends_in = || info.path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let module = info.site.module;
    module.name() == name || parts(module).contains(&name) || ends_in()
}
