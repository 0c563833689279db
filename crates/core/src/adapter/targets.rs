//! Which places of the base a method touches: named modules, in chosen layers.
//!
//! What a user says is checked against the base's sites and written out, so that what is stored says all that matters.

use crate::error::{Error, FieldError, Problem, Result};
use crate::model::{Module, Site, SiteInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Our names (`query`), names of the checkpoint (`attention.self.query`, matched as PEFT does: equal, or the end after a
/// dot), or `"all-linear"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TargetModules {
    Names(Vec<String>),
    Single(String),
}

/// Which layers: `"all"`, `{"top": 2}`, or `{"from": 2, "to": 4}` (both included).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", untagged, deny_unknown_fields)]
pub enum Layers {
    Keyword(AllLayers),
    Top { top: usize },
    Range { from: usize, to: usize },
}

impl Default for Layers {
    fn default() -> Self {
        Self::Keyword(AllLayers::All)
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
    pub fn contains(self, layer: usize, num_layers: usize) -> bool {
        match self {
            Self::Keyword(AllLayers::All) => true,
            Self::Top { top } => layer.saturating_add(top) >= num_layers,
            Self::Range { from, to } => (from..=to).contains(&layer),
        }
    }

    fn validate(self, num_layers: usize) -> Option<String> {
        match self {
            Self::Keyword(AllLayers::All) => None,
            Self::Top { top } if top == 0 || top > num_layers => {
                Some(format!("top must be between 1 and {num_layers}"))
            }
            Self::Range { from, to } if from > to || to >= num_layers => {
                Some(format!("from and to count layers from 0 to {}, from not above to", num_layers.saturating_sub(1)))
            }
            _ => None,
        }
    }
}

impl TargetModules {
    pub fn from_names(names: &[&str]) -> Self {
        Self::Names(names.iter().map(|name| (*name).to_string()).collect())
    }

    /// What the names mean, in our order: a module's own name where every layer has it, else its paths. `sites` are those
    /// that the method could touch.
    fn resolve(&self, sites: &[SiteInfo]) -> std::result::Result<Vec<String>, String> {
        let names = match self {
            Self::Single(keyword) if keyword == "all-linear" => {
                let linear_modules = present_modules(sites).filter(|module| module.is_linear());
                return Ok(linear_modules.map(|module| module.name().to_string()).collect());
            }
            Self::Single(name) => std::slice::from_ref(name),
            Self::Names(names) if names.is_empty() => return Err("name at least one module".to_string()),
            Self::Names(names) => names.as_slice(),
        };
        let is_unknown = |name: &String| !sites.iter().any(|info| matches_target(name, info));
        if let Some(name) = names.iter().find(|name| is_unknown(name)) {
            let available: Vec<&str> = present_modules(sites).map(Module::name).collect();
            return Err(format!(
                "\"{name}\" is no module of this base that this method changes; known are {}",
                format_module_names(&available)
            ));
        }
        let is_target = |info: &&SiteInfo| names.iter().any(|name| matches_target(name, info));
        let resolve_module = |module: Module| {
            let module_sites: Vec<&SiteInfo> = sites.iter().filter(|info| info.site.module == module).collect();
            match module_sites.iter().all(is_target) {
                true => vec![module.name().to_string()],
                false => module_sites.into_iter().filter(is_target).map(|info| info.module_path.clone()).collect(),
            }
        };
        Ok(present_modules(sites).flat_map(resolve_module).collect())
    }

    /// Whether a resolved list names this site. A whole path means one site: imported adapters may touch any set of them.
    pub fn contains(&self, info: &SiteInfo) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| name == info.site.module.name() || *name == info.module_path),
            Self::Single(_) => false,
        }
    }
}

fn format_module_names(names: &[&str]) -> String {
    let has_linear =
        names.iter().any(|name| [Module::Query, Module::QueryKeyValue].iter().any(|module| *name == module.name()));
    format!("{}{}", names.join(", "), if has_linear { ", or \"all-linear\"" } else { "" })
}

/// What is wrong with a method's settings, one fault each.
pub struct MethodValidator {
    errors: Vec<FieldError>,
    num_layers: usize,
}

impl MethodValidator {
    pub fn new(sites: &[SiteInfo]) -> Self {
        Self { errors: Vec::new(), num_layers: num_layers(sites) }
    }

    /// `field` is the setting's name.
    pub fn require(&mut self, condition: bool, field: &str, message: impl Into<String>) {
        if !condition {
            self.errors.push(FieldError::at_pointer(format!("/method/{field}"), message));
        }
    }

    pub fn check_dropout(&mut self, dropout: f64) {
        self.require((0.0..1.0).contains(&dropout), "dropout", "dropout must be at least 0 and below 1");
    }

    pub fn check_layers(&mut self, layers: Layers) {
        if let Some(message) = layers.validate(self.num_layers) {
            self.require(false, "layers", message);
        }
    }

    /// The modules written out. `sites` are those that the method could touch.
    pub fn resolve_modules(&mut self, field: &str, modules: &TargetModules, sites: &[SiteInfo]) -> TargetModules {
        match modules.resolve(sites) {
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
    pub fn resolve_modules_or_all(
        mut self,
        requested: Option<&TargetModules>,
        layers: Layers,
        trainable_sites: &[SiteInfo],
        sites: &[SiteInfo],
    ) -> Result<TargetModules> {
        self.check_layers(layers);
        let all_modules =
            || TargetModules::Names(present_modules(trainable_sites).map(|module| module.name().to_string()).collect());
        let modules =
            self.resolve_modules("target_modules", &requested.cloned().unwrap_or_else(all_modules), trainable_sites);
        self.finish(|| !selected_sites(&modules, layers, sites).is_empty())?;
        Ok(modules)
    }

    /// What has been found, and whether anything is touched at all.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn finish(mut self, has_targets: impl FnOnce() -> bool) -> Result<()> {
        if self.errors.is_empty() && !has_targets() {
            self.require(false, "layers", "no target module lies in the chosen layers");
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        let error_messages: Vec<&str> = self.errors.iter().map(|fault| fault.message.as_str()).collect();
        let detail = format!("the method's settings do not fit this base: {}", error_messages.join("; "));
        Err(Error::Invalid(Problem::new("invalid_method", detail).with_errors(self.errors)))
    }
}

/// The sites of a resolved list in the chosen layers, in the base's order.
pub fn selected_sites<'a>(modules: &TargetModules, layers: Layers, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
    sites.iter().filter(|info| modules.contains(info) && is_in_layers(info.site, layers, sites)).collect()
}

/// What belongs to no layer is in whatever layers are chosen.
pub fn is_in_layers(site: Site, selected: Layers, sites: &[SiteInfo]) -> bool {
    site.layer.is_none_or(|layer| selected.contains(layer, num_layers(sites)))
}

/// The layers of the base.
pub fn num_layers(sites: &[SiteInfo]) -> usize {
    sites.iter().filter_map(|info| info.site.layer).max().map_or(0, |last| last + 1)
}

/// The linear maps.
pub fn linear_sites(sites: &[SiteInfo]) -> Vec<SiteInfo> {
    sites.iter().filter(|info| info.site.module.is_linear()).cloned().collect()
}

/// The modules that there are, in our order.
fn present_modules(sites: &[SiteInfo]) -> impl Iterator<Item = Module> {
    Module::ALL.into_iter().filter(|module| sites.iter().any(|info| info.site.module == *module))
}

/// Our names of the parts that a fused map is made of: they mean all of it.
fn fused_module_names(module: Module) -> &'static [&'static str] {
    match module {
        Module::QueryKeyValue => &["query", "key", "value"],
        Module::FeedForwardGateIn => &["feed_forward_in"],
        _ => &[],
    }
}

/// Our own name, or PEFT's rule: the checkpoint's path is the name, or ends in it after a dot.
pub fn matches_target(name: &str, info: &SiteInfo) -> bool {
    let has_suffix = || info.module_path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let module = info.site.module;
    module.name() == name || fused_module_names(module).contains(&name) || has_suffix()
}
