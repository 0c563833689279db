//! Target modules and layers: which sites of the base a method adapts.
//!
//! A request is resolved against the base's sites to a list of module names or paths, which is what a job stores.

use crate::model::{BaseModelInfo, Module, Site, SiteInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Module names (`query`), paths of the checkpoint (`attention.self.query`, matched by PEFT's rule: the whole path, or its end
/// after a dot), or `"all-linear"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TargetModules {
    Names(Vec<String>),
    Single(String),
}

/// Layers to adapt: `"all"`, `{"top": 2}`, or `{"from": 2, "to": 4}` (inclusive).
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

/// `"all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllLayers {
    All,
}

impl Layers {
    /// Whether the layer is selected.
    pub fn contains(self, layer: usize, num_layers: usize) -> bool {
        match self {
            Self::Keyword(AllLayers::All) => true,
            Self::Top { top } => layer.saturating_add(top) >= num_layers,
            Self::Range { from, to } => (from..=to).contains(&layer),
        }
    }

    /// The selected layers in ascending order.
    pub fn indices(self, num_layers: usize) -> impl Iterator<Item = usize> {
        (0..num_layers).filter(move |layer| self.contains(*layer, num_layers))
    }

    /// The error message for a selection that the base cannot satisfy.
    pub fn error(self, num_layers: usize) -> Option<String> {
        match self {
            Self::Keyword(AllLayers::All) => None,
            Self::Top { top } => {
                let is_valid = (1..=num_layers).contains(&top);
                (!is_valid).then(|| format!("top must be between 1 and {num_layers}"))
            }
            Self::Range { from, to } => {
                let is_valid = from <= to && to < num_layers;
                let last = num_layers.saturating_sub(1);
                (!is_valid).then(|| format!("from and to count layers from 0 to {last}, from not above to"))
            }
        }
    }
}

impl TargetModules {
    pub fn from_names(names: &[&str]) -> Self {
        Self::Names(names.iter().map(|name| (*name).to_string()).collect())
    }

    /// Resolves the request to names in the order of [`Module::ALL`]: the module's name if every one of its sites is
    /// selected, else their paths. `sites` are those that the method can adapt.
    pub fn resolve(&self, sites: &[SiteInfo]) -> std::result::Result<Vec<String>, String> {
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

    /// Whether a resolved list contains this site, by the name of its module or by its path.
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

/// The sites of a resolved list in the selected layers, in the base's order.
pub fn selected_sites<'a>(modules: &TargetModules, layers: Layers, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
    sites.iter().filter(|info| modules.contains(info) && is_in_layers(info.site, layers, sites)).collect()
}

/// Whether the site is in the selected layers; a site outside all layers (embeddings, pooler, last norm) always is.
fn is_in_layers(site: Site, selected: Layers, sites: &[SiteInfo]) -> bool {
    site.layer.is_none_or(|layer| selected.contains(layer, num_layers(sites)))
}

/// Names of the projections that a fused linear map combines; each of them selects the whole map.
fn fused_module_names(module: Module) -> &'static [&'static str] {
    match module {
        Module::QueryKeyValue => &["query", "key", "value"],
        Module::FeedForwardGateIn => &["feed_forward_in"],
        _ => &[],
    }
}

/// Whether a requested name selects the site: by the module's name, or by PEFT's rule on the checkpoint's path.
pub fn matches_target(name: &str, info: &SiteInfo) -> bool {
    let module = info.site.module;
    module.name() == name || fused_module_names(module).contains(&name) || has_module_suffix(&info.module_path, name)
}

/// PEFT's rule for a list of names: the path equals the name, or ends with it after a dot.
pub fn has_module_suffix(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|parent| parent.is_empty() || parent.ends_with('.'))
}

/// Number of layers.
pub fn num_layers(sites: &[SiteInfo]) -> usize {
    sites.iter().filter_map(|info| info.site.layer).max().map_or(0, |last| last + 1)
}

/// Width of the hidden states.
pub fn hidden_size(sites: &[SiteInfo]) -> usize {
    sites.iter().find(|info| info.site.module == Module::AttentionOutput).map_or(0, |info| info.out_features)
}

/// The linear maps.
pub fn linear_sites(sites: &[SiteInfo]) -> Vec<SiteInfo> {
    sites.iter().filter(|info| info.site.module.is_linear()).cloned().collect()
}

/// The modules of the base in the order of [`Module::ALL`].
pub fn present_modules(sites: &[SiteInfo]) -> impl Iterator<Item = Module> {
    Module::ALL.into_iter().filter(|module| sites.iter().any(|info| info.site.module == *module))
}

/// Output width of the query, key or value projection at `site`, which may be a third of a fused projection.
pub fn projection_width(sites: &[SiteInfo], site: Site) -> usize {
    let fused_site = Site { module: Module::QueryKeyValue, ..site };
    let width_at = |info: &SiteInfo| match info.site {
        found if found == site => Some(info.out_features),
        found if found == fused_site => Some(info.out_features / 3),
        _ => None,
    };
    sites.iter().find_map(width_at).unwrap_or(0)
}

/// Width of the keys; less than the hidden size where several query heads share a key head.
pub fn key_width(sites: &[SiteInfo]) -> usize {
    projection_width(sites, Site { layer: Some(0), module: Module::Key })
}

/// Number of key and value heads.
pub fn num_kv_heads(info: &BaseModelInfo, sites: &[SiteInfo]) -> usize {
    let query_width = projection_width(sites, Site { layer: Some(0), module: Module::Query });
    info.attention_heads * key_width(sites) / query_width.max(1)
}
